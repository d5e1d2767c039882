"""One row, page, thing or driver that makes no sense harms nothing but itself: what is past its
deadline dies, what is not lives, and all others are as they would be without it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests.faults.world import World
from tests.support.reaper_inputs import before, killed, page, reaped, row, vm
from vmrunner.model import BuildRecord, BuildState, Death, Fate, Outcome, Page, Ref, Result
from vmrunner.providers.deletion import delete_each
from vmrunner.providers.fake import SCOPE, Clock, Cloud, FakeProvider, Fault, Plan
from vmrunner.services.audit import survivors

Make = Callable[..., World]

ROWS = {
    "instances": {
        "offer": "{",
        "role": "janitor",
        "state": "somewhere",
        "created_at": "yesterday",
        "deadline": "soon",
        "epoch": "first",
        "ref": "[1]",
        "address": "{",
        "death": "old age",
    },
    "builds": {
        "spec": "{",
        "state": "somewhere",
        "submitter": "{",
        "phases": "running",
        "created_at": "yesterday",
        "reason": "because",
        "hold_until": "later",
    },
}
each_row = pytest.mark.parametrize(
    ("table", "column", "value"),
    [(table, name, value) for table, columns in ROWS.items() for name, value in columns.items()],
)


def spoil(world: World, build: BuildRecord, table: str, column: str, value: str) -> None:
    name = "build" if table == "instances" else "id"
    with sqlite3.connect(world.root / "ledger.db") as raw:
        raw.execute(f"UPDATE {table} SET {column} = ? WHERE {name} = ?", (value, build.id))
    raw.close()


def three(world: World) -> list[BuildRecord]:
    """Builds that run."""
    builds = [world.submit() for _ in range(3)]
    world.node()
    states = {BuildState.RUNNING}
    world.run(30, until=lambda: {world.truth.builds.get(b.id).state for b in builds} == states)
    return builds


@each_row
def test_an_unreadable_row_saves_no_vm_past_its_deadline(
    make_world: Make, table: str, column: str, value: str
) -> None:
    world = make_world()
    world.build_seconds = 1e9
    builds = three(world)
    spoil(world, builds[0], table, column, value)
    world.nodes[0].kill()
    world.node(drives=False)
    world.run(400, until=lambda: not world.standing())
    assert not world.standing()


def test_a_cloud_without_read_rights_saves_no_expired_vm(
    make_world: Make,
) -> None:
    """Neither looks nor listings are answered; deletes are, and the ledger knows what to delete."""
    world = make_world()
    world.build_seconds = 1e9
    three(world)
    world.nodes[0].kill()
    blind = Plan(Fault.CREDENTIALS)
    world.judge = lambda call: blind if call.method in ("look", "sweep") else None
    world.node(drives=False)
    world.run(400, until=lambda: not world.standing())
    assert not world.standing()


@each_row
def test_an_unreadable_row_kills_nothing_and_stops_no_other_build(
    make_world: Make, table: str, column: str, value: str
) -> None:
    world = make_world()
    builds = three(world)
    (first, *others) = builds
    spoil(world, first, table, column, value)
    machine = next(m for m in world.ours() if m.tags["vmrunner:build"] == first.id)
    later = world.submit()
    world.run(
        100,
        until=lambda: all(world.truth.builds.get(b.id).finished for b in (*others, later)),
    )
    assert {world.truth.builds.get(b.id).result for b in (*others, later)} == {Result.SUCCESS}
    assert machine.order is not None
    world.run(machine.order.deadline - world.clock() - 5)
    assert machine.alive
    report = world.nodes[0].reaping.run(dry_run=True)
    assert [text for text in report.unread if "cannot be read" in text]
    lines = survivors(world.truth, world.limits.limits, "fake", world.provider())
    assert [line for line in lines if "cannot be read" in line.message]
    world.run(100, until=lambda: not world.standing())
    assert not world.standing()


def test_a_row_that_cannot_be_read_is_a_row(make_world: Make) -> None:
    """Its VM is no orphan, however often it is seen."""
    world = make_world()
    world.build_seconds = 1e9
    (first, *_) = three(world)
    spoil(world, first, "instances", "offer", "{")
    world.nodes[0].kill()
    world.node(drives=False)
    world.run(world.limits.limits.newborn + 2 * world.sweep_seconds)
    assert len([m for m in world.ours() if m.alive]) == 3


# --- things ---


@pytest.mark.parametrize(
    "odd",
    [
        {"created_at": "yesterday", "tags": {"vmrunner:expires-at": None}},
        {"created_at": "yesterday"},
        {"tags": {"vmrunner:expires-at": 5}},
        {"power": None},
        {"parent": 7},
    ],
)
def test_a_thing_that_makes_no_sense_changes_nothing_else(odd: dict[str, Any]) -> None:
    expired = {"vmrunner:expires-at": "1"}
    rows = [row("vm-2", deadline=10.0)]
    things = [vm("vm-2"), vm("vm-3", tags=expired), vm("vm-4")]
    ghost = vm("vm-0", **odd)
    first, second = reaped(rows, [page(*things)]), reaped(rows, [page(ghost, *things)])
    dead = [("i-vm-2", Death.EXPIRED), ("i-vm-3", Death.EXPIRED)]
    assert killed(first) == dead
    assert [kill for kill in killed(second) if kill[0] != "i-vm-0"] == dead
    third = reaped(rows, [page(ghost, *things)], before(second))
    assert ("i-vm-4", Death.ORPHAN) in killed(reaped(rows, [page(*things)], before(first)))
    assert dead == [kill for kill in killed(third) if kill[1] is Death.EXPIRED]


# --- pages and drivers ---


class Broken(FakeProvider):
    """Breaks off after the first page, and cannot bear to delete some."""

    breaks = False
    unbearable: frozenset[str] = frozenset()
    delete_calls = 0

    def sweep(self) -> Iterator[Page]:
        for shown in super().sweep():
            yield shown
            if self.breaks:
                raise RuntimeError("a bug")

    def delete(self, refs: Sequence[Ref], *, force: bool = False) -> Mapping[Ref, Outcome]:
        self.delete_calls += 1
        if any(ref.id in self.unbearable for ref in refs):
            raise RuntimeError("a bug")
        return super().delete(refs, force=force)


def test_a_broken_sweep_kills_what_it_saw_and_concludes_nothing(make_world: Make) -> None:
    world = make_world()
    world.build_seconds = 1e9
    three(world)
    world.nodes[0].kill()
    broken = Broken("fake", world.cloud, page_size=1)
    broken.breaks = True
    node = world.node(drives=False)
    node.engine.context.providers = {"fake": broken}
    world.run(200)
    report = node.reaping.run()
    assert report.unread == ("fake: it ended early: RuntimeError: a bug",)
    world.run(200, until=lambda: not world.standing())
    assert not world.standing()
    assert not world.truth.instances.open()  # seen dead, one by one


def test_a_driver_that_cannot_bear_one_thing_deletes_the_others() -> None:
    cloud = Cloud(Clock())
    refs = [cloud.plant(SCOPE, {}).ref for _ in range(20)]
    broken = Broken("fake", cloud)
    broken.unbearable = frozenset({refs[7].id})
    outcomes = delete_each(broken, refs)
    assert [ref for ref, outcome in outcomes.items() if outcome.fate is not Fate.ACCEPTED] == [
        refs[7]
    ]
    assert outcomes[refs[7]].error == "RuntimeError: a bug"
    assert broken.delete_calls <= 2 * 5 + 1
