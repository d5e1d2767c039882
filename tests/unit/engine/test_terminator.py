"""Deletes: asked again and again, first with patience and then with force."""

from __future__ import annotations

from tests.support.engine_parts import EngineParts, Later
from vmrunner.engine.terminator import ANSWERS, FIRST_WAIT, SLOTS, Terminator
from vmrunner.model import Instance
from vmrunner.providers.deletion import DELETE_RETRY, FORCE_AFTER
from vmrunner.providers.fake import Fault


class Deleting:
    """A terminator, with the one row that it minds."""

    def __init__(self, parts: EngineParts, row: Instance) -> None:
        self.parts = parts
        self.row = row
        self.terminator = Terminator(parts.context)

    @property
    def deletes(self) -> int:
        return self.parts.cloud.counts["delete"]

    def turn(self, seconds: float = 0.0) -> None:
        """One tick, so many seconds later."""
        self.parts.clock.advance(seconds)
        row = self.parts.ledger.instances.get(self.row.id)
        self.terminator.send_deletes([row])
        self.terminator.collect({row.id: row})


def test_what_must_die_is_asked_to_die(parts: EngineParts) -> None:
    row = parts.dying()
    Deleting(parts, row).turn()
    assert not parts.machine(row).alive


def test_what_lives_is_left_alone(parts: EngineParts) -> None:
    _, row = parts.booting()
    Deleting(parts, row).turn(DELETE_RETRY)
    assert parts.machine(row).alive
    assert parts.cloud.counts["delete"] == 0


def test_an_accepted_delete_is_repeated_after_a_while(parts: EngineParts) -> None:
    deleting = Deleting(parts, row := parts.dying())
    parts.machine(row).stuck = True
    deleting.turn()
    deleting.turn(DELETE_RETRY - 1)
    assert deleting.deletes == 1
    deleting.turn(1)
    assert deleting.deletes == 2
    assert parts.ledger.instances.get(row.id).deletes == 1, "from now on they are counted"


def test_failed_deletes_come_at_growing_intervals(parts: EngineParts) -> None:
    deleting = Deleting(parts, row := parts.dying())
    parts.machine(row).undeletable = True
    deleting.turn()
    for wait in (FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT):
        before = deleting.deletes
        deleting.turn(wait - 0.5)
        assert deleting.deletes == before, "too soon"
        deleting.turn(0.5)
        assert deleting.deletes == before + 1


def test_past_its_deadline_no_pause_is_long(parts: EngineParts) -> None:
    deleting = Deleting(parts, row := parts.dying())
    parts.machine(row).undeletable = True
    parts.clock.advance(row.deadline - row.created_at + 1)
    for _ in range(8):
        deleting.turn(DELETE_RETRY)
    assert deleting.deletes == 8


def test_no_pause_inside_its_deadline_reaches_past_it(parts: EngineParts) -> None:
    deleting = Deleting(parts, row := parts.dying())
    parts.machine(row).undeletable = True
    for _ in range(8):
        parts.ledger.instances.tried(row.id, 0.0)
    deleting.turn(row.deadline - parts.clock() - 70)
    deleting.turn(69)
    assert deleting.deletes == 1
    deleting.turn(2)
    assert deleting.deletes == 2


def test_a_stubborn_vm_is_forced_after_a_few_attempts(parts: EngineParts) -> None:
    deleting = Deleting(parts, row := parts.dying())
    machine = parts.machine(row)
    machine.protected = True
    for _ in range(FORCE_AFTER):
        deleting.turn(DELETE_RETRY)
    assert machine.alive
    deleting.turn(DELETE_RETRY)
    assert not machine.alive


def test_the_turn_is_remembered_by_the_next_engine(parts: EngineParts) -> None:
    deleting = Deleting(parts, row := parts.dying())
    parts.machine(row).undeletable = True
    deleting.turn()
    Deleting(parts, row).turn()
    assert deleting.deletes == 1, "its row says not before"


def test_a_row_without_a_reference_waits_for_a_look(parts: EngineParts) -> None:
    parts.cloud.fail("create", Fault.LOST_RESPONSE)
    deleting = Deleting(parts, row := parts.dying())
    deleting.turn()
    assert (row.ref, deleting.deletes) == (None, 0)
    (machine,) = parts.cloud.of(row.id)
    deleting.terminator.found(row.id, machine.ref)
    deleting.turn()
    assert not machine.alive


def test_one_call_at_a_time_goes_to_a_vm(parts: EngineParts) -> None:
    row = parts.dying()
    parts.pool = pool = Later()
    deleting = Deleting(parts, row)
    deleting.turn()
    deleting.turn(DELETE_RETRY)
    pool.run()
    assert deleting.deletes == 1


def test_a_call_under_way_holds_up_no_other_vm(parts: EngineParts) -> None:
    rows = [parts.dying(f"b-{n}") for n in range(SLOTS + 1)]
    parts.pool = pool = Later()
    terminator = Terminator(parts.context)
    for row in rows:
        terminator.send_deletes([row])
    pool.run()
    assert [parts.machine(row).alive for row in rows] == [False] * SLOTS + [True]


def test_no_look_comes_before_the_answer_for_long(parts: EngineParts) -> None:
    row = parts.dying()
    parts.pool = pool = Later()
    deleting = Deleting(parts, row)
    deleting.turn()
    assert deleting.terminator.is_pending(row.id)
    assert not deleting.terminator.is_pending("vm-other")
    parts.clock.advance(ANSWERS)
    assert not deleting.terminator.is_pending(row.id), "it may never come"
    other = Deleting(parts, parts.dying("b-2"))
    other.turn()
    pool.run()
    other.turn()
    assert not other.terminator.is_pending(other.row.id)


def test_one_that_cannot_be_deleted_delays_no_other(parts: EngineParts) -> None:
    first, second = parts.dying("b-1"), parts.dying("b-2")
    parts.machine(first).undeletable = True
    terminator = Terminator(parts.context)
    terminator.send_deletes([first, second])
    assert not parts.machine(second).alive
