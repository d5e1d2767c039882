"""Claims from a pool, over both databases: none twice, none lost."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.ledger_builds import ACCESS, OFFER, orders, raced, submitted
from tests.support.pools import POOL, instance, waiting
from vmrunner.ledger import LaunchRequest, Ledger
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.sql import update
from vmrunner.ledger.statements import run
from vmrunner.ledger.tables import POOLS
from vmrunner.model import BuildState, Death, InstanceState, PoolPlace, Reason, Result, Start

BUILDS, VMS, PROCESSES = 60, 40, 8

CLAIMER = """
import json, pathlib, sys
from vmrunner.ledger import Ledger

url, data_dir, me = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
ledger = Ledger.open(url, data_dir=data_dir)
builds = ledger.builds.queued(1000)
vms = [row for row in ledger.instances.open() if row.build is None]
print("ready", flush=True)
sys.stdin.readline()
mine, lost = [], 0
while builds and vms:
    claim = ledger.pools.claim(
        builds[0], vms[0], generation=ledger.generation, owner=me, until=1e9, started=200.0,
        now=200.0,
    )
    if claim is None:
        lost += 1
    else:
        mine.append((claim[0].id, claim[1].id, claim[0].epoch, claim[1].epoch))
    builds = ledger.builds.queued(1000)
    vms = [row for row in ledger.instances.open() if row.build is None]
print(json.dumps([mine, lost]))
"""


def claim(ledger: Ledger, build: str = "b-1", name: str = "vm-1", **changes: object) -> object:
    return ledger.pools.claim(
        ledger.builds.get(build),
        ledger.instances.get(name),
        **{  # type: ignore[arg-type]
            "generation": ledger.generation, "owner": "e-2", "until": 1e9, "started": 200.0,
            "now": 200.0, **changes,
        },
    )  # fmt: skip


def test_eight_processes_claim_none_twice_and_lose_none(
    ledger: Ledger, url: str, data_dir: Path
) -> None:
    for n in range(BUILDS):
        submitted(ledger, f"b-{n:03}")
    for n in range(VMS):
        waiting(ledger, f"vm-{n:03}")
    outcomes = raced([CLAIMER, url, str(data_dir), f"e-c{n}"] for n in range(PROCESSES))
    claims = [tuple(pair) for some, _ in outcomes for pair in some]
    assert len(claims) == VMS
    assert set(Counter(build for build, *_ in claims).values()) == {1}
    assert set(Counter(vm for _, vm, *_ in claims).values()) == {1}
    assert sum(lost for _, lost in outcomes) > 0  # they did compete
    assert all(mine == its == 2 for _, _, mine, its in claims)
    rows = {row.id: row for row in ledger.instances.open()}
    assert all(rows[vm].build == build for build, vm, *_ in claims)
    assert len(ledger.builds.queued(1000)) == BUILDS - VMS


@pytest.mark.parametrize(
    ("connected", "state"), [(False, BuildState.CONNECTING), (True, BuildState.PREPARING)]
)
def test_a_claim_leaves_out_what_is_done(
    ledger: Ledger, connected: bool, state: BuildState
) -> None:
    submitted(ledger)
    waiting(ledger)
    assert claim(ledger, connected=connected) is not None
    build = ledger.builds.get("b-1")
    assert (build.state, [phase.state for phase in build.phases]) == (
        state,
        [BuildState.QUEUED, state],
    )


def test_a_claim_joins_build_and_vm(ledger: Ledger) -> None:
    before = submitted(ledger)
    waiting(ledger)
    build, row = claim(ledger)  # type: ignore[misc]
    assert (build.state, build.attempt, build.owner) == (BuildState.CONNECTING, 1, "e-2")
    assert (row.state, row.build, row.owner) == (InstanceState.READY, "b-1", "e-2")
    assert build.epoch == row.epoch == max(before.epoch, 1) + 1
    assert (row.state_since, row.claimed_at, row.start) == (200.0, 200.0, Start.HOT)
    assert row.due == 200.0 + build.spec.ttl < row.deadline
    assert ledger.builds.get("b-1") == build
    assert ledger.instances.get("vm-1") == row
    assert ledger.pools.counts(0.0) == {"fast": (1, 1)}


def test_a_claim_fences_who_filled_the_pool(ledger: Ledger) -> None:
    submitted(ledger)
    row = waiting(ledger)
    claim(ledger)
    mark = ledger.instances.mark_deleting
    assert mark("vm-1", seen_epoch=row.epoch, death=Death.DONE, now=201.0) is None
    assert ledger.pools.take_over("fast", "", "e-1", ["vm-1"]) == 0


@pytest.mark.parametrize(
    "why", ["cancelled", "claimed", "dying", "short", "set back", "taken over"]
)
def test_what_may_not_be_claimed_stays_as_it_is(ledger: Ledger, why: str) -> None:
    submitted(ledger, ttl=50_000.0 if why == "short" else 100.0)
    row = waiting(ledger)
    changes: dict[str, object] = {}
    if why == "cancelled":
        ledger.builds.request_cancel("b-1", Reason.USER, 150.0)
    elif why == "claimed":
        submitted(ledger, "b-2")
        assert claim(ledger, "b-2") is not None
    elif why == "dying":
        ledger.instances.mark_deleting("vm-1", seen_epoch=1, death=Death.DONE, now=150.0)
    elif why == "set back":
        changes["generation"] = "another"
    elif why == "taken over":
        ledger.engines.release("pool:fast", "e-1")
        ledger.engines.acquire("pool:fast", "e-3", 300.0)
        assert ledger.pools.take_over("fast", "", "e-3", ["vm-2"]) == 0
        assert ledger.pools.take_over("slow", "", "e-3", ["vm-1"]) == 0
        assert ledger.pools.take_over("fast", "", "e-3", ["vm-1"]) == 1
    won = ledger.pools.claim(
        ledger.builds.get("b-1"), row,
        **{  # type: ignore[arg-type]
            "generation": ledger.generation, "owner": "e-2", "until": 1e9, "started": 200.0,
            "now": 200.0, **changes,
        },
    )  # fmt: skip
    assert won is None
    assert ledger.builds.get("b-1").state is BuildState.QUEUED
    assert ledger.instances.get("vm-1").build == ("b-2" if why == "claimed" else None)


def test_only_the_holder_of_the_lease_fills(ledger: Ledger) -> None:
    waiting(ledger)
    new = instance(id="vm-2", state=InstanceState.REQUESTED, owner="e-2")
    order, _ = orders(ledger).for_pool(POOL, "vm-2", OFFER, new.deadline)
    request = LaunchRequest(build_id=None, seen_epoch=0, instance=new, order=order, access=ACCESS)
    assert ledger.instances.start([request], until=1e9) == []
    assert [row.id for row in ledger.instances.open()] == ["vm-1"]


def test_a_hold_ends_with_the_build_not_with_the_pool(ledger: Ledger) -> None:
    submitted(ledger)
    waiting(ledger)
    build, row = claim(ledger)  # type: ignore[misc]
    for state, state_of_vm in (
        (BuildState.PREPARING, None),
        (BuildState.RUNNING, InstanceState.BUSY),
    ):
        ledger.builds.advance(
            "b-1", epoch=build.epoch, to=state, now=210.0, instance_to=state_of_vm
        )
    held = ledger.builds.hold(
        "b-1", epoch=build.epoch, result=Result.FAILURE, reason=Reason.EXIT_CODE, now=220.0,
        hold_until=9_000.0,
    )  # fmt: skip
    assert held.hold_until == row.due


def test_a_configuration_that_changed_gets_a_revision(ledger: Ledger) -> None:
    ledger.pools.declare({"fast": POOL}, "e-1", 100.0)
    ledger.pools.declare({"fast": POOL}, "e-1", 101.0)
    assert ledger.pools.resize("fast", 7, "ops", 102.0)
    assert [(p.revision, p.size) for p in ledger.pools.all()] == [(1, 7)]
    ledger.pools.declare({"fast": replace(POOL, size=3)}, "e-1", 103.0)
    (pool,) = ledger.pools.all()
    assert (pool.revision, pool.size, pool.spec.size) == (2, None, 3)
    assert not ledger.pools.drain("slow", "ops", 104.0)
    assert [(a.actor, a.verb, a.subject, a.detail) for a in ledger.actions.latest()] == [
        ("e-1", "configure", "pool:fast", ""),
        ("ops", "resize", "pool:fast", "7"),
        ("e-1", "configure", "pool:fast", ""),
    ]


def test_a_field_that_a_former_version_lacked_is_no_change(ledger: Ledger) -> None:
    """Else an upgrade would end the sizes that were wished."""
    ledger.pools.declare({"fast": POOL}, "e-1", 100.0)
    ledger.pools.resize("fast", 7, "ops", 101.0)
    former = json.loads(codec.pool_spec_text(POOL))
    del former["machine_type"]

    def write(text: str) -> None:
        ledger._database.write(lambda c: run(c, update(POOLS).values(spec=text)))

    write(json.dumps(former))
    ledger.pools.declare({"fast": POOL}, "e-1", 102.0)
    assert [(p.revision, p.size) for p in ledger.pools.all()] == [(1, 7)]
    write("{")
    ledger.pools.declare({"fast": POOL}, "e-1", 103.0)
    assert [(p.revision, p.size) for p in ledger.pools.all()] == [(2, None)]


def test_a_retry_is_no_arrival(ledger: Ledger) -> None:
    build = submitted(ledger)
    ledger.pools.declare({"fast": POOL}, "e-1", 100.0)
    ledger.pools.missed([(build, "fast", "here"), (build, "fast", "here")], 150.0)
    assert ledger.pools.counts(0.0) == {"fast": (1, 0)}
    assert list(ledger.pools.arrivals("fast", "here", 0.0)) == [150.0]
    assert not ledger.pools.arrivals("fast", "", 0.0)


def test_a_host_that_is_gone_leaves_no_place_for_good(ledger: Ledger) -> None:
    """Hosts that live for a day each must not add up to a row for each day."""
    ledger.pools.declare({"fast": POOL}, "e-1", 100.0)
    day = 86_400.0
    for number in range(100):
        state = PoolPlace(place=f"host-{number}", want=1, noted_at=number * day)
        ledger.pools.note("fast", state)
        ledger.pools.note("fast", PoolPlace(place="host-0", want=1, noted_at=number * day))
    (pool,) = ledger.pools.all()
    names = {state.place for state in pool.places}
    assert names == {"host-0", *(f"host-{number}" for number in range(69, 100))}
