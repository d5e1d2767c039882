"""Arming: the cloud's own deadline for each VM that is born, until its row is closed."""

from __future__ import annotations

import pytest

from tests.support.engine_parts import EngineParts, Later
from vmrunner.engine.deadlines import FIRST_WAIT, DeadlineArmer
from vmrunner.model import Instance, Kind
from vmrunner.providers.fake import Fault


class Arming:
    """An armer, with the one row that it minds."""

    def __init__(self, parts: EngineParts, row: Instance, *, able: bool = True) -> None:
        parts.cloud.arms = 300.0 if able else None
        parts.reopen()
        self.parts = parts
        self.row = row
        self.armer = DeadlineArmer(parts.context)

    def turn(self, seconds: float = 0.0, *, closed: bool = False) -> None:
        """One tick, so many seconds later."""
        self.parts.clock.advance(seconds)
        rows = [] if closed else [self.parts.ledger.instances.get(self.row.id)]
        self.armer.update(rows, lambda: set() if closed else None)

    @property
    def armings(self) -> int:
        return self.parts.cloud.counts["arm"]

    @property
    def schedules(self) -> int:
        """How many there are."""
        return sum(schedule.alive for schedule in self.parts.cloud.things(Kind.SCHEDULE))


@pytest.fixture
def arming(parts: EngineParts) -> Arming:
    return Arming(parts, parts.booting()[1])


def test_a_vm_is_armed_once_it_is_born(arming: Arming) -> None:
    for _ in range(3):
        arming.turn(FIRST_WAIT)
    assert (arming.armings, arming.schedules) == (1, 1)


def test_an_arming_waits_behind_no_births(parts: EngineParts, arming: Arming) -> None:
    """Hundreds may wait for the cloud's rate, and an engine may die meanwhile."""
    parts.context.create_threads = lambda _: Later()
    arming.turn()
    assert (arming.armings, arming.schedules) == (1, 1)


def test_the_cloud_ends_an_armed_vm_past_its_deadline(parts: EngineParts, arming: Arming) -> None:
    arming.turn()
    parts.clock.advance(arming.row.deadline + 301 - parts.clock())
    parts.cloud.settle()
    assert not parts.machine(arming.row).alive


def test_it_is_disarmed_once_its_row_is_closed(arming: Arming) -> None:
    arming.turn()
    arming.turn()
    assert arming.schedules == 1
    arming.turn(closed=True)
    assert arming.schedules == 0
    arming.turn(closed=True)
    assert not arming.armer.busy


def test_an_arming_that_failed_is_tried_again_and_told_once(
    parts: EngineParts, arming: Arming
) -> None:
    parts.cloud.fail("arm", Fault.SERVER_ERROR, Fault.SERVER_ERROR)
    arming.turn()
    arming.turn(FIRST_WAIT - 0.5)
    assert arming.armings == 1
    for _ in range(8):
        arming.turn(FIRST_WAIT)
    assert (arming.armings, arming.schedules) == (3, 1)
    assert parts.event_count("trouble") == 1


def test_a_dying_vm_is_not_armed(parts: EngineParts, arming: Arming) -> None:
    parts.mark_deleting(arming.row)
    wakes = parts.wakes
    arming.turn()
    assert (arming.armings, parts.wakes) == (0, wakes), "nothing was sent, not even to a thread"


def test_a_vm_that_dies_meanwhile_is_not_armed(parts: EngineParts, arming: Arming) -> None:
    parts.pool = pool = Later()
    arming.turn()
    parts.mark_deleting(arming.row)
    pool.run()
    arming.turn()
    assert arming.armings == 0


def test_a_provider_that_cannot_arm_is_not_asked(parts: EngineParts) -> None:
    arming = Arming(parts, parts.booting()[1], able=False)
    arming.turn()
    assert (arming.armings, arming.armer.busy) == (0, False)


def test_arming_again_elsewhere_gives_the_same_schedule(parts: EngineParts, arming: Arming) -> None:
    """An engine that takes over does not know what was armed before."""
    arming.turn()
    Arming(parts, arming.row).turn()
    assert (arming.armings, arming.schedules) == (2, 1)
