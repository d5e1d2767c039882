"""The rules of design §6, one by one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from tests.support.reaper_inputs import (
    LIMITS,
    MINE,
    NOW,
    OTHER,
    SCOPE,
    I,
    before,
    killed,
    page,
    reaped,
    row,
    vm,
)
from vmrunner.core.lifecycle import SweepId
from vmrunner.core.reap_plan import ReapPlan, Sighting
from vmrunner.model import Death, Instance, Kind, Offer, Page

# --- EXPIRED ---


@pytest.mark.parametrize(
    ("tag", "deadline", "created", "dies"),
    [
        (str(int(NOW - 1)), NOW + 100, NOW - 10, True),  # a lowered tag
        (str(int(NOW + 9999)), NOW - 1, NOW - 10, True),  # a raised tag
        (None, NOW - 1, NOW - 10, True),  # no tag, but a row
        ("later", NOW - 1, NOW - 10, True),
        (str(int(NOW + 1)), NOW + 1, NOW - 10, False),
        (str(int(NOW)), NOW, NOW - 10, False),  # past means past
        # A row's own deadline holds when max_ttl was lowered under it.
        (str(int(NOW + 1)), NOW + 1, NOW - LIMITS.max_ttl - 10, False),
        # So does the tag without a row; a limit counts only where neither can be read.
        (str(int(NOW + 1)), None, NOW - LIMITS.max_ttl - 1, False),
        (str(int(NOW - 1)), None, NOW - 10, True),
        (None, None, NOW - LIMITS.max_ttl - 1, True),
        ("-5", None, NOW - LIMITS.max_ttl - 1, True),
        ("٣", None, NOW - 10, False),  # digits, but not ours
        (None, None, NOW - 10, False),
    ],
)
def test_expired_is_past_the_earliest_that_is_known(tag, deadline, created, dies) -> None:
    rows = [] if deadline is None else [row(deadline=deadline)]
    plan = reaped(rows, [page(vm(tags={"vmrunner:expires-at": tag}, created_at=created))])
    assert killed(plan) == ([("i-vm-1", Death.EXPIRED)] if dies else [])


@pytest.mark.parametrize(
    ("limit", "age", "dies"),
    [
        (str(int(LIMITS.max_ttl + 600)), LIMITS.max_ttl + 599, False),  # it was lowered since
        (str(int(LIMITS.max_ttl + 600)), LIMITS.max_ttl + 601, True),
        ("600", 601, True),  # it was raised since
        ("600", 599, False),
        ("-600", LIMITS.max_ttl - 1, False),  # nobody can read it: the limit of today
        ("1e9", LIMITS.max_ttl + 1, True),
    ],
)
def test_without_a_deadline_the_limit_of_its_birth_counts(limit, age, dies) -> None:
    tags = {"vmrunner:expires-at": None, "vmrunner:max-ttl": limit}
    plan = reaped([], [page(vm(tags=tags, created_at=NOW - age))])
    assert killed(plan) == ([("i-vm-1", Death.EXPIRED)] if dies else [])


def test_without_any_time_the_first_sighting_stands_for_its_birth() -> None:
    ghost = vm(tags={"vmrunner:expires-at": None, "vmrunner:generation": "old"}, created_at=None)
    first = reaped([], [page(ghost)])
    assert killed(first) == []
    assert killed(reaped([], [page(ghost)], before(first))) == []
    late = reaped([], [page(ghost)], before(first, LIMITS.max_ttl + 1))
    assert killed(late) == [("i-vm-1", Death.EXPIRED)]


@pytest.mark.parametrize(
    "tags",
    [
        {"vmrunner:installation": MINE[:-1]},
        {"vmrunner:installation": MINE + "1"},
        {"vmrunner:installation": MINE.upper()},
        {"vmrunner:installation": ""},
        {"vmrunner:installation": None},
        {"vmrunner:role": "guard"},
        {"vmrunner:role": ""},
        {"vmrunner:role": None},
    ],
)
def test_what_is_not_ours_by_tag_and_role_lives(tags) -> None:
    stranger = vm(tags={**tags, "vmrunner:expires-at": "1"}, created_at=1.0)
    gone = row(state=I.GONE)
    first = reaped([gone], [page(stranger)])
    assert not first.kills
    assert not reaped([gone], [page(stranger)], before(first)).kills


def test_an_empty_installation_owns_nothing() -> None:
    nobody = vm(tags={"vmrunner:installation": "", "vmrunner:expires-at": "1"})
    plan = reaped([], [page(nobody)], installation="")
    assert not plan.kills


def test_an_image_builder_dies_only_when_expired() -> None:
    image = vm(tags={"vmrunner:role": "image"})
    assert not reaped([row(state=I.GONE)], [page(image)]).kills
    old = vm(tags={"vmrunner:role": "image", "vmrunner:expires-at": str(int(NOW - 1))})
    assert killed(reaped([], [page(old)])) == [("i-vm-1", Death.EXPIRED)]


def test_an_expired_child_goes_with_its_parent_or_after_it() -> None:
    past = {"vmrunner:expires-at": str(int(NOW - 1))}
    machine = vm(tags=past)
    disk = vm(id="d-1", kind=Kind.DISK, parent=machine.ref, tags=past)
    first = reaped([], [page(machine), page(disk, kind=Kind.DISK)])
    assert killed(first) == [("i-vm-1", Death.EXPIRED)]
    assert first.again
    leftovers = [page(), page(disk, kind=Kind.DISK)]
    second = reaped([], leftovers, before(first))
    assert killed(second) == [("d-1", Death.EXPIRED)]
    assert not second.again
    # One that hangs on something that lives on is asked to die all the same.
    living = [page(vm(tags={"vmrunner:expires-at": str(int(NOW + 99))})), leftovers[1]]
    assert killed(reaped([], living)) == [("d-1", Death.EXPIRED)]


# --- LEFTOVER, DUPLICATE ---


def test_leftover_children_wait_for_their_parents() -> None:
    gone = row(state=I.GONE)
    machine = vm()
    disk = vm(id="d-1", kind=Kind.DISK, parent=machine.ref)
    for child in (disk, vm(id="d-1", kind=Kind.DISK)):  # what it hangs on is not always told
        both = [page(machine), page(child, kind=Kind.DISK)]
        assert killed(reaped([gone], both)) == [("i-vm-1", Death.LEFTOVER)]
    alone = [page(), page(disk, kind=Kind.DISK)]
    assert killed(reaped([gone], alone)) == [("d-1", Death.LEFTOVER)]
    # No VM was seen, but not all could be read: it says nothing.
    broken = [page(error="zone down"), page(disk, kind=Kind.DISK)]
    assert killed(reaped([gone], broken)) == []


def test_the_child_of_a_living_build_lives() -> None:
    disk = vm(id="d-1", kind=Kind.DISK)
    assert not reaped([row()], [page(), page(disk, kind=Kind.DISK)]).kills


def test_a_duplicate_is_what_its_row_does_not_record() -> None:
    copy = vm(id="i-copy")
    assert killed(reaped([row()], [page(vm(), copy)])) == [("i-copy", Death.DUPLICATE)]
    assert not reaped([row(ref=None, state=I.REQUESTED)], [page(vm(), copy)]).kills


# --- STUCK, early_deaths ---


@pytest.mark.parametrize(
    ("state", "limit"),
    [(I.REQUESTED, LIMITS.requested), (I.BOOTING, LIMITS.booting), (I.READY, LIMITS.ready)],
)
def test_stuck_counts_from_when_somebody_watched(state, limit) -> None:
    slow = row(state=state, state_since=NOW - limit - 1)
    assert [d.reason for d in reaped([slow], since=0.0).marks] == [Death.STUCK]
    assert not reaped([slow], since=NOW - 10).marks
    # Nor while its place was not seen; another's darkness says nothing of it.
    for dark in (NOW - 10, math.inf):
        assert not reaped([slow], seen={SCOPE: dark}).marks
        assert reaped([slow], seen={OTHER: dark}).marks
    assert reaped([slow], seen={SCOPE: NOW - limit - 1}).marks
    assert not reaped([row(state=state, state_since=NOW - limit + 1)]).marks


@pytest.mark.parametrize("state", [I.BUSY, I.HELD])
def test_busy_and_held_are_never_stuck(state) -> None:
    assert not reaped([row(state=state, state_since=0.0)]).marks


def test_dying_for_too_long_alarms_and_is_never_given_up() -> None:
    plan = reaped([row(state=I.DELETING, state_since=NOW - 1e6, deletes=99)])
    assert "99 attempts" in plan.alarms[0]
    assert not plan.closes


def test_wishes_doom_in_order_of_priority() -> None:
    rows = [row("vm-1"), row("vm-2"), row("vm-3", deadline=NOW - 1)]
    early_deaths = {"vm-1": Death.ABANDONED, "vm-2": Death.CANCELLED, "vm-3": Death.CANCELLED}
    marks = reaped(rows, early_deaths=early_deaths).marks
    assert [(d.instance, d.reason) for d in marks] == [
        ("vm-3", Death.EXPIRED),
        ("vm-2", Death.CANCELLED),
        ("vm-1", Death.ABANDONED),
    ]


# --- ORPHAN ---


def changed(memory: frozenset[Sighting], **values: Any) -> frozenset[Sighting]:
    return frozenset(replace(sighting, **values) for sighting in memory)


def test_an_orphan_dies_at_its_second_complete_sighting() -> None:
    orphan = vm()
    first = reaped([], [page(orphan)])
    assert not first.kills
    again = reaped([], [page(orphan)], before(first))
    assert killed(again) == [("i-vm-1", Death.ORPHAN)]
    assert not again.kills[0].force
    assert reaped([], [page(orphan)], before(again)).kills[0].force


#: What a second sweep sees, and what is remembered of a first one: an orphan that would die.
SEEN, REMEMBERED = [page(vm())], before(reaped([], [page(vm())]))


@pytest.mark.parametrize(
    ("rows", "pages", "memory"),
    [
        pytest.param([], SEEN, frozenset(), id="seen once"),
        pytest.param([], SEEN, changed(REMEMBERED, sweep="s-2"), id="same sweep"),
        pytest.param([], SEEN, changed(REMEMBERED, begun=NOW - 59), id="too soon"),
        pytest.param(
            [], [page(vm(created_at=NOW - 200 - LIMITS.newborn))], REMEMBERED, id="newborn"
        ),
        pytest.param(
            [], [page(vm(), more=True), page(error="throttled")], REMEMBERED, id="incomplete"
        ),
        pytest.param(
            [], [page(vm(tags={"vmrunner:generation": "another"}))], REMEMBERED, id="generation"
        ),
        pytest.param([row()], SEEN, REMEMBERED, id="row"),
    ],
)
def test_an_orphan_lives_while_anything_is_open(
    rows: list[Instance], pages: list[Page], memory: frozenset[Sighting]
) -> None:
    assert reaped([], SEEN, REMEMBERED).kills
    assert not reaped(rows, pages, memory).kills


def test_over_the_cap_no_orphan_dies_until_all_are_gone() -> None:
    many = [vm(f"vm-{n}") for n in range(LIMITS.orphan_cap + 1)]
    first = reaped([], [page(*many)])
    over = reaped([], [page(*many)], before(first))
    assert not over.kills
    assert "have no row" in over.alarms[0]
    latched = reaped([], [page(many[0])], before(over))
    assert not latched.kills
    assert latched.alarms
    # The cap never protects what is past its deadline.
    expired = [replace(m, tags={**m.tags, "vmrunner:expires-at": "1"}) for m in many]
    assert len(reaped([], [page(*expired)], before(over)).kills) == len(many)
    clear = reaped([], [page()], before(latched))
    assert not clear.sightings
    assert not clear.alarms


def test_a_sweep_with_holes_does_not_end_the_latch() -> None:
    many = [vm(f"vm-{n}") for n in range(LIMITS.orphan_cap + 1)]
    over = reaped([], [page(*many)], before(reaped([], [page(*many)])))
    blind = reaped([], [page(error="unreachable")], before(over))
    assert not blind.kills
    few = reaped([], [page(*many[:2])], before(blind))
    assert not few.kills
    assert few.alarms


def test_one_place_that_cannot_be_read_latches_no_other() -> None:
    many = [vm(f"vm-{n}") for n in range(LIMITS.orphan_cap + 1)]
    over = reaped([], [page(*many)], before(reaped([], [page(*many)])))
    dead = Page(scope=OTHER, kind=Kind.INSTANCE, error="switched off")
    # Here it was an error and is over, whatever is elsewhere.
    clear = reaped([], [page(), dead], before(over))
    assert not clear.sightings
    few = reaped([], [page(many[0]), dead], before(reaped([], [page(many[0]), dead])))
    assert killed(few) == [("i-vm-0", Death.ORPHAN)]


def test_one_place_held_back_holds_no_other_back() -> None:
    many = [vm(f"vm-{n}") for n in range(LIMITS.orphan_cap + 1)]
    other = vm("vm-x", scope=OTHER)
    elsewhere = Page(scope=OTHER, kind=Kind.INSTANCE, resources=(other,))
    over = reaped([], [page(*many)], before(reaped([], [page(*many)])))
    both = reaped([], [page(*many), elsewhere], before(over))
    plan = reaped([], [page(*many), elsewhere], before(both))
    assert killed(plan) == [("i-vm-x", Death.ORPHAN)]
    assert f"{len(many)} resources" in plan.alarms[0]


def test_the_cap_counts_over_all_places() -> None:
    spread = [
        Page(
            scope=SCOPE._replace(place=f"z{n}"),
            kind=Kind.INSTANCE,
            resources=(vm(f"vm-{n}", scope=SCOPE._replace(place=f"z{n}")),),
        )
        for n in range(LIMITS.orphan_cap + 1)
    ]
    plan = reaped([], spread, before(reaped([], spread)))
    assert not plan.kills
    assert plan.alarms


def test_who_looked_at_the_orphans_may_release_them() -> None:
    """However many, once; never one that is not seen twice or may live."""
    many = [vm(f"vm-{n}") for n in range(LIMITS.orphan_cap + 1)]
    young = vm("vm-young", created_at=NOW - LIMITS.newborn + 1)
    foreign = vm("vm-other", tags={"vmrunner:generation": "another"})
    listing = [page(*many, young, foreign)]
    first = reaped([], listing, release=True)
    assert not first.kills
    over = reaped([], listing, before(first))
    assert not over.kills
    assert "vmrunner reap --orphans" in over.alarms[0]
    released = reaped([], listing, before(over), release=True)
    assert sorted(killed(released)) == sorted((m.ref.id, Death.ORPHAN) for m in many)
    assert not released.alarms
    # After that the cap holds as before.
    plan = reaped([], [page(many[0])], before(released))
    assert killed(plan) == [(many[0].ref.id, Death.ORPHAN)]


# --- VANISHED ---


def test_a_row_closes_after_two_complete_absences() -> None:
    for state in (I.REQUESTED, I.BUSY, I.DELETING):
        first = reaped([row(state=state, state_since=NOW)], [page()])
        assert not first.closes
        again = reaped([row(state=state, state_since=NOW)], [page()], before(first))
        assert [c.reason for c in again.closes] == [Death.VANISHED]


#: What is remembered of one complete sweep in which the VM was missing.
MISSED = before(reaped([row()], [page()]))


@pytest.mark.parametrize(
    ("mine", "pages", "memory"),
    [
        pytest.param(row(created_at=NOW - LIMITS.newborn - 200), [page()], MISSED, id="newborn"),
        pytest.param(row(), [page(error="zone down")], MISSED, id="error"),
        pytest.param(row(), [page(more=True)], MISSED, id="more"),
        pytest.param(row(), [page(vm("another", id="i-vm-1"))], MISSED, id="seen"),
        pytest.param(row(), [page(vm(id="i-other"))], MISSED, id="by name"),
        pytest.param(
            row(offer=Offer(scope=OTHER, machine_type="small", place="y")),
            [page()],
            MISSED,
            id="scope",
        ),
        pytest.param(
            row(), [page()], before(reaped([row()], [page(vm())], MISSED)), id="seen in between"
        ),
    ],
)
def test_one_absence_or_a_doubtful_one_closes_nothing(
    mine: Instance, pages: list[Page], memory: frozenset[Sighting]
) -> None:
    assert reaped([row()], [page()], MISSED).closes
    assert not reaped([mine], pages, memory).closes


@pytest.mark.parametrize(
    "tags",
    [
        {"vmrunner:installation": "another"},
        {"vmrunner:installation": MINE[:-1]},
        {"vmrunner:installation": ""},
        {"vmrunner:installation": None},
        {"vmrunner:role": "guard"},
        {"vmrunner:role": None},
    ],
)
def test_anothers_vm_with_a_copied_id_keeps_no_row_open(tags) -> None:
    copy = vm(id="i-copy", tags=tags)
    memory = before(reaped([row()], [page(copy)]))
    assert reaped([row()], [page(copy)], memory).closes


def test_a_partial_sweep_neither_breaks_nor_makes_a_series() -> None:
    mine = row()
    memory = before(reaped([mine], [page()]), 600)
    partly = reaped([mine], [page(error="down")], memory, sweep=SweepId(id="s-x", begun=NOW - 300))
    assert partly.sightings == memory
    assert reaped([mine], [page()], partly.sightings).closes
    assert reaped([mine], [], memory, sweep=None).sightings == memory


NAMELESS = {"vmrunner:instance": None}


def test_a_vm_without_our_name_is_known_by_its_reference() -> None:
    mine, shown = row(), vm(tags=NAMELESS)
    memory = before(reaped([mine], [page(shown)]))
    assert reaped([mine], [page(shown)], memory) == ReapPlan()
    assert killed(reaped([], [page(shown)], before(reaped([], [page(shown)]))))
    late = reaped([row(deadline=NOW - 1)], [page(shown)])
    assert [(kill.instance, kill.reason) for kill in late.kills] == [("vm-1", Death.EXPIRED)]


def test_a_child_without_our_name_is_its_vms() -> None:
    disk = vm(id="d-1", kind=Kind.DISK, tags=NAMELESS, parent=row().ref)
    pages = [page(vm(tags=NAMELESS)), page(disk, kind=Kind.DISK)]
    assert not reaped([row()], pages, before(reaped([row()], pages))).kills


def test_what_has_no_name_may_be_a_birth() -> None:
    """Of a create whose answer is on its way: for as long as that may be, and no longer."""
    requested = row(state=I.REQUESTED, ref=None, created_at=NOW - 800, state_since=NOW - 800)
    newborn = vm(id="i-new", tags=NAMELESS, created_at=NOW - 790)
    older = vm(id="i-old", tags=NAMELESS, created_at=NOW - 5000)
    first = before(reaped([], [page(newborn, older)]))
    assert killed(reaped([requested], [page(newborn, older)], first)) == [("i-old", Death.ORPHAN)]


def test_beside_an_unread_row_nothing_nameless_is_an_orphan() -> None:
    shown = vm(tags=NAMELESS)
    memory = before(reaped([], [page(shown)]))
    assert killed(reaped([], [page(shown)], memory))
    assert not killed(reaped([], [page(shown)], memory, unread=True))


def test_a_tag_that_names_another_row_is_told() -> None:
    rows = [row(), row("vm-2", ref=None)]
    plan = reaped(rows, [page(vm("vm-2", id="i-vm-1"))])
    assert plan.alarms == ("i-vm-1 is tagged vm-2, and vm-1 recorded it",)
