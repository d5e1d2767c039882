"""Warm-ups of VMs that wait, where no way leads to one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import ledger_rows as rows
from vmrunner.engine.pool_warm_ups import PoolWarmUps
from vmrunner.errors import Refused
from vmrunner.model import Address, Instance, PoolSpec, Scope

SPEC = PoolSpec(name="fast", provider="far", container="debian:trixie")


@pytest.mark.parametrize("error", [Refused("no credentials"), ImportError("no module 'tunnel'")])
def test_a_channel_that_cannot_be_had_ends_its_own_alone(error: Exception) -> None:
    """The tick goes on: others wait for it, and the pool hears of it as of a VM that boots not."""

    def channel_to(_: Instance) -> Any:
        raise error

    def spawn(_: str, work: Callable[[], None]) -> None:
        work()

    context: Any = SimpleNamespace(channel_to=channel_to, wake=lambda: None)
    warm_ups = PoolWarmUps(context, lambda _: pytest.fail("it was made"), spawn)
    row = rows.instance("vm-1", "far", Scope("far", "account", "place"))
    warm_ups.begin(replace(row, address=Address("there")), SPEC)
    (word,) = warm_ups.ended()
    assert (word.instance.id, word.connection, word.error) == (row.id, None, str(error))
