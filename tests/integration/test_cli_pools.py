"""`vmrunner pool`, `show` and `ps` over a ledger with pools."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from tests.support.command_line import Cli
from tests.support.ledger_builds import submitted
from tests.support.pools import POOL, waiting
from vmrunner.ledger import Ledger
from vmrunner.lib.process import current
from vmrunner.model import BuildState, EmptyReason, InstanceState, PoolPlace, Reason, Result

KEYS = (
    "name", "kind", "want", "have", "making", "claimed", "hit_rate", "p50", "p95",
    "idle_usd_today", "empty_reason",
)  # fmt: skip


@pytest.fixture
def ledger(ledger_at_home: Ledger) -> Ledger:
    return ledger_at_home


def served(ledger: Ledger) -> None:
    """A build that got a VM of the pool, and its end."""
    submitted(ledger)
    row = waiting(ledger)
    won = ledger.pools.claim(
        ledger.builds.get("b-1"), row, generation=ledger.generation, owner="e-2", until=1e9,
        started=200.0, now=200.0,
    )  # fmt: skip
    assert won is not None
    move = ledger.builds.advance
    move("b-1", epoch=won[0].epoch, to=BuildState.PREPARING, now=201.0)
    move(
        "b-1", epoch=won[0].epoch, to=BuildState.RUNNING, now=202.0,
        instance_to=InstanceState.BUSY,
    )  # fmt: skip
    ledger.builds.finish(
        "b-1", epoch=won[0].epoch, result=Result.SUCCESS, reason=Reason.EXIT_CODE, exit_code=0,
        now=220.0,
    )  # fmt: skip


def noted(reason: EmptyReason, **changes: Any) -> PoolPlace:
    now = time.time()
    state = PoolPlace(place="", want=2, empty_reason=reason, noted_at=now)
    return replace(state, **changes)


def test_an_empty_ledger_says_how_pools_are_made(anywhere: Cli) -> None:
    done = anywhere("pool", "ls")
    assert done.code == 0
    assert b"[pools.NAME]" in done.err


def test_a_pool_is_shown_with_every_key(anywhere: Cli, ledger: Ledger) -> None:
    waiting(ledger)
    ledger.pools.note("fast", noted(EmptyReason.MAKING))
    (shown,) = anywhere("pool", "ls", "-o", "json").items
    assert [key for key in KEYS if key not in shown] == []
    assert (shown["name"], shown["kind"], shown["want"], shown["have"]) == ("fast", "hot", 2, 1)
    assert shown["empty_reason"] is None
    text = anywhere("pool", "show", "fast").out.decode()
    assert "1 ready, 0 on their way, 0 with a build" in text
    assert anywhere("vm", "ls").out.count(b"pool fast") == 1


def test_a_place_longer_than_its_column_is_read(anywhere: Cli, ledger: Ledger) -> None:
    waiting(ledger)
    ledger.pools.note("fast", noted(EmptyReason.MAKING, place="10.0.0.1:/srv"))
    shown = anywhere("pool", "show", "fast").out.decode()
    assert "at 10.0.0.1:/srv 0 ready of 2" in shown


def test_what_is_parked_is_had_and_what_parks_is_made(anywhere: Cli, ledger: Ledger) -> None:
    row = waiting(ledger)
    for to, counts in ((InstanceState.PARKING, (0, 1)), (InstanceState.PARKED, (1, 0))):
        assert ledger.pools.park(row.id, epoch=row.epoch, to=to, now=150.0)
        (shown,) = anywhere("pool", "ls", "-o", "json").items
        assert (shown["have"], shown["making"]) == counts


def test_an_empty_pool_without_a_serve_says_so(cli: Cli, ledger: Ledger) -> None:
    ledger.pools.declare({"fast": POOL}, "e-1", 100.0)
    (shown,) = cli("pool", "ls", "-o", "json").items
    assert shown["empty_reason"] == "no_engine"
    assert b"no `serve` that lives has its provider" in cli("doctor").out


def test_a_pool_of_no_machine_says_which(anywhere: Cli, ledger: Ledger) -> None:
    """A `serve` that lives told so."""
    ledger.engines.join("e-1", current(), "serve", time.time(), ["local"])
    ledger.pools.declare({"fast": replace(POOL, machine_type="huge")}, "e-1", time.time())
    ledger.pools.note("fast", noted(EmptyReason.MACHINE_TYPE))
    (shown,) = anywhere("pool", "ls", "-o", "json").items
    assert (shown["machine_type"], shown["empty_reason"]) == ("huge", "machine_type")
    text = anywhere("pool", "show", "fast").out.decode()
    assert "machine    huge\n" in text
    assert "empty      machine_type: local does not offer machine_type 'huge'\n" in text


def test_a_pool_is_resized_and_drained(anywhere: Cli, ledger: Ledger) -> None:
    ledger.pools.declare({"fast": POOL}, "e-1", 100.0)
    assert anywhere("pool", "resize", "fast", "7").code == 0
    assert ledger.pools.all()[0].size == 7
    assert anywhere("pool", "drain", "fast").code == 0
    assert ledger.pools.all()[0].draining
    assert b"drained" in anywhere("pool", "show", "fast").out


@pytest.mark.parametrize("command", [("show",), ("resize", "3"), ("drain",)])
def test_a_pool_that_is_not_there_is_named(
    cli: Cli, ledger: Ledger, command: tuple[str, ...]
) -> None:
    ledger.pools.declare({"fast": POOL}, "e-1", 100.0)
    verb, *rest = command
    done = cli("pool", verb, "fats", *rest)
    assert done.code != 0
    assert b"there is no pool 'fats'" in done.err
    assert b"did you mean 'fast'?" in done.err
    assert cli("pool", "resize", "fast", "-1").code != 0


def test_show_and_ps_tell_how_a_build_started(anywhere: Cli, ledger: Ledger) -> None:
    served(ledger)
    (shown,) = anywhere("show", "b-1", "-o", "json").items
    assert shown["start"] == "hot"
    assert (shown["instances"][0]["pool"], shown["instances"][0]["start"]) == ("fast", "hot")
    (listed,) = anywhere("ps", "-a", "-o", "json").items
    assert listed["start"] == "hot"
    assert b"hot" in anywhere("ps", "-a", "-o", "wide").out
    assert b"start      hot" in anywhere("show", "b-1").out
