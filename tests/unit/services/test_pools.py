"""Pools, as ops see them: what is wished of one, and what a doctor says."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.ledger_builds import ref
from tests.support.pools import POOL, instance
from vmrunner.errors import ConfigError
from vmrunner.model import EmptyReason, Level, Pool, PriceSource, Rate
from vmrunner.services import pools
from vmrunner.services.pools import PoolStatus


@pytest.mark.parametrize("size", [-1, 10_001, 10**20])
def test_no_pool_is_wished_a_size_without_bounds(size: int) -> None:
    with pytest.raises(ConfigError, match="is not within 0 to 10000"):
        pools.resize(None, "fast", size)  # type: ignore[arg-type]


@pytest.mark.parametrize(("builds", "level"), [(0, Level.WARNING), (40, Level.OK)])
def test_doctor_names_a_pool_that_costs_more_than_it_saves(
    monkeypatch: pytest.MonkeyPatch, builds: int, level: Level
) -> None:
    """One small VM, for two days: it is no day's cost that tells."""
    now = time.time()
    rate = Rate(usd_hour=0.05, source=PriceSource.SHIPPED)
    row = instance(created_at=now - 48 * 3600, deadline=now + 60, rate=rate, ref=ref("i-1"))
    entry = PoolStatus(
        pool=Pool(spec=POOL, shape="s", revision=1), want=1, have=1, making=0, claimed=0,
        builds=builds, hit_rate=1.0 if builds else None, p50=None, p95=None, idle_usd_today=0.6,
        empty_reason=None,
    )  # fmt: skip
    monkeypatch.setattr(pools, "status", lambda *_: [entry])
    ledger: Any = SimpleNamespace(pools=SimpleNamespace(instances=lambda *_: [row]))
    providers: Any = SimpleNamespace(time_at=lambda *_: now)
    (found,) = pools.findings(ledger, providers)
    assert found.level is level
    if level is Level.WARNING:
        assert "cost $2.40 in 7d00h, and 0 builds" in found.message


def test_doctor_names_a_machine_type_that_is_never_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(spec=replace(POOL, machine_type="huge"), shape="s", revision=1)
    entry = PoolStatus(
        pool=pool, want=1, have=0, making=0, claimed=0, builds=0, hit_rate=None, p50=None,
        p95=None, idle_usd_today=0.0, empty_reason=EmptyReason.MACHINE_TYPE,
    )  # fmt: skip
    monkeypatch.setattr(pools, "status", lambda *_: [entry])
    none: Any = None
    (found,) = pools.findings(none, none)
    assert (found.level, found.message) == (
        Level.WARNING, "no VM of it is ready: local does not offer machine_type 'huge'",
    )  # fmt: skip
