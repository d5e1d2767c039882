from __future__ import annotations

import pytest

from tests.support.reaper_inputs import LIMITS, MINE, NOW, OTHER, SCOPE, I, page, row, vm
from vmrunner.core.audit_rules import (
    AuditFault,
    ReaperActivity,
    audit,
    by_tags,
    clocks,
    idle,
    older_than,
    silence,
)
from vmrunner.model import Kind, Offer, Page, Power, Ref, Scope


def faults(rows, pages) -> list[AuditFault]:
    return [survivor.fault for survivor in audit(NOW, rows, pages, LIMITS, MINE)]


def test_all_is_well() -> None:
    assert faults([row()], [page(vm())]) == []
    assert faults([], [page(vm(tags={"vmrunner:installation": "another"}))]) == []
    assert faults([row(state=I.GONE)], [page(vm(power=Power.DEAD))]) == []
    assert faults([row()], [page(vm(tags={"vmrunner:instance": None}))]) == []


@pytest.mark.parametrize(
    ("rows", "pages", "fault"),
    [
        ([row(deadline=NOW - 61)], [page(vm())], AuditFault.PAST_DEADLINE),
        (
            [row()],
            [page(vm(tags={"vmrunner:expires-at": str(int(NOW - 61))}))],
            AuditFault.PAST_DEADLINE,
        ),
        ([], [page(vm())], AuditFault.UNKNOWN),
        ([row(state=I.GONE)], [page(vm())], AuditFault.CLOSED),
        ([row(ref=Ref(SCOPE, Kind.INSTANCE, "i-x"))], [page(vm())], AuditFault.DOUBLE),
        ([row()], [page(vm(tags={"vmrunner:role": None}))], AuditFault.BADLY_TAGGED),
        ([row()], [page()], AuditFault.NOT_THERE),
        (
            [row()],
            [page(vm(id="i-copy", tags={"vmrunner:installation": "another"}))],
            AuditFault.NOT_THERE,
        ),
        ([row()], [page(vm()), page(kind=Kind.DISK, error="denied")], AuditFault.UNREAD),
    ],
)
def test_each_fault_is_found(rows, pages, fault) -> None:
    assert fault in faults(rows, pages)


def test_within_grace_and_while_it_stops_nothing_is_late() -> None:
    late = row(deadline=NOW - 59)
    assert faults([late], [page(vm())]) == []
    stopping = vm(power=Power.STOPPING)
    assert faults([row(deadline=NOW - 99, state=I.DELETING)], [page(stopping)]) == []
    # But what stops for ever bills for ever.
    ever = row(deadline=NOW - 901, state=I.DELETING)
    assert faults([ever], [page(stopping)]) == [AuditFault.PAST_DEADLINE]


def test_two_vms_of_a_row_that_knows_neither_are_told() -> None:
    unborn = row(ref=None, state=I.REQUESTED)
    assert faults([unborn], [page(vm())]) == []
    assert faults([unborn], [page(vm(), vm(id="i-2"))]) == [AuditFault.DOUBLE] * 2


def test_without_a_ledger_tags_tell_only_what_is_late() -> None:
    late = vm(id="i-late", tags={"vmrunner:expires-at": str(int(NOW - 61))})
    pages = [page(late, vm(id="i-2")), page(kind=Kind.DISK, error="denied")]
    found = by_tags(NOW, pages, LIMITS, MINE)
    assert [line.fault for line in found] == [AuditFault.PAST_DEADLINE, AuditFault.UNREAD]


def test_newborns_do_not_count() -> None:
    young = NOW - LIMITS.newborn + 10
    assert faults([], [page(vm(created_at=young))]) == []
    assert faults([row(created_at=young)], [page()]) == []


def test_a_row_in_a_scope_that_nobody_read_is_told() -> None:
    elsewhere = Offer(scope=Scope("fake", "b", "z"), machine_type="small", place="z")
    assert faults([row(offer=elsewhere)], [page()]) == [AuditFault.UNREAD]


def test_an_expired_row_is_told_even_when_its_tag_lies() -> None:
    late_tag = vm(tags={"vmrunner:expires-at": str(int(NOW + 9999))})
    found = faults([row(deadline=NOW - 100)], [page(late_tag)])
    assert AuditFault.PAST_DEADLINE in found
    assert AuditFault.ROW_PAST_DEADLINE in found


def test_machines_of_other_runners_by_tag_and_age() -> None:
    def other(age: float | None, **tags: str):
        created_at = None if age is None else NOW - age
        return vm(id=f"i-{age}", created_at=created_at, tags=tags)

    pages: list[Page] = [
        page(
            other(100, team="ci"),
            other(10, team="ci"),
            other(100, team="x"),
            other(None, team="ci"),
        )
    ]
    found = older_than(NOW, pages, "team", "ci", 60)
    assert sorted(s.ref.id for s in found if s.ref) == ["i-100", "i-None"]


def test_untagged_things_of_our_image_or_network_are_told() -> None:
    bare = {f"vmrunner:{name}": None for name in ("installation", "role", "instance", "expires-at")}
    near = vm(near="image vmrunner-7", tags=bare)
    assert faults([], [page(near)]) == [AuditFault.UNTAGGED]
    assert faults([], [page(vm(tags=bare))]) == []
    young = NOW - LIMITS.newborn + 10
    assert faults([], [page(vm(near="image", tags=bare, created_at=young))]) == []
    another = vm(near="image", tags={"vmrunner:installation": "another"})
    assert faults([], [page(another)]) == []
    assert faults([], [page(vm(near="image", tags=bare, power=Power.DEAD))]) == []


def test_a_daemon_without_passes_is_told_even_with_nothing_alive() -> None:
    def messages(**activity: float) -> list[str]:
        return [line.message for line in silence(NOW, [], ReaperActivity(**activity))]

    assert messages(serving=NOW - 10) == []
    assert messages(serving=NOW - 9999, passed=NOW - 20, swept=NOW - 200) == []
    (text,) = messages(serving=NOW - 9999, passed=NOW - 301, swept=NOW - 200)
    assert "has not finished a pass for 301 s" in text
    (text,) = messages(serving=NOW - 9999, passed=NOW - 20)
    assert "has not finished a sweep for 9999 s" in text
    assert len(messages(serving=NOW - 9999)) == 2


def test_without_a_daemon_silence_matters_only_while_rows_are_open() -> None:
    def faults_of(rows, **activity: float) -> list[AuditFault]:
        return [line.fault for line in silence(NOW, rows, ReaperActivity(**activity))]

    old = row(created_at=NOW - 5000)
    assert faults_of([], passed=NOW - 99999, swept=NOW - 99999) == []
    assert faults_of([row(state=I.GONE)]) == []
    assert faults_of([row(created_at=NOW - 60)]) == []  # it was just made: somebody lives
    assert faults_of([old], seen=NOW - 5) == []  # a foreground build drives it
    assert faults_of([old], passed=NOW - 300) == []  # a cron job reaps
    assert faults_of([old], passed=NOW - 901) == [AuditFault.REAPER_SILENT]
    assert faults_of([old]) == [AuditFault.REAPER_SILENT]


def test_a_last_pass_in_the_future_is_silence() -> None:
    """The clock was set back by an hour: nobody knows what was done since."""
    passed, swept = NOW + 3595, NOW + 3540
    for minutes in (6, 20, 58):
        now = NOW + 60 * minutes
        found = clocks(now, ReaperActivity(passed=passed, swept=swept, serving=NOW - 86_400))
        assert [line.fault for line in found] == [AuditFault.CLOCKS_APART] * 2
        assert f"pass was {int(passed - now)} s in the future" in found[0].message
    far = ReaperActivity(passed=passed, swept=swept, serving=NOW + 3000)
    assert len(silence(NOW, [], far)) == 2
    back = ReaperActivity(passed=NOW - 5, swept=NOW - 5, serving=NOW + 3000)
    assert silence(NOW, [], back) == []
    assert clocks(NOW, back) == []


def test_clocks_that_are_apart_are_told() -> None:
    well = {"e-1": 4.9, "e-2": -4.9}
    assert clocks(NOW, ReaperActivity(ahead=well)) == []
    found = clocks(NOW, ReaperActivity(ahead=well | {"e-3": 31.2, "e-4": -86_400.0}))
    assert [line.fault for line in found] == [AuditFault.CLOCKS_APART] * 2
    assert [line.message for line in found] == [
        "the clock of e-3 is 31 s ahead of the database's",
        "the clock of e-4 is 86400 s behind the database's",
    ]


def test_a_place_with_vms_that_nobody_lists_is_told() -> None:
    def messages(**swept: float) -> list[str]:
        scopes = {str(SCOPE): swept["at"]} if swept else {}
        activity = ReaperActivity(
            serving=NOW - 9999, passed=NOW - 20, swept=NOW - 200, scopes=scopes
        )
        return [line.message for line in silence(NOW, [row(created_at=NOW - 60)], activity)]

    assert messages(at=NOW - 899) == []
    for at in (NOW - 901, NOW + 901):
        assert messages(at=at) == [f"VMs are open in {SCOPE}, which nobody could list for 901 s"]
    assert "for 9999 s" in messages()[0]
    activity = ReaperActivity(serving=NOW - 9999, passed=NOW - 20, swept=NOW - 200)
    assert silence(NOW, [row(state=I.GONE)], activity) == []


def test_a_disabled_place_is_idle_once_it_holds_nothing() -> None:
    off = [Page(scope=OTHER, kind=kind, error="off") for kind in (Kind.INSTANCE, Kind.DISK)]
    assert idle([page(), *off], {SCOPE}) == {OTHER: "off"}
    assert idle([page(), *off], {SCOPE, OTHER}) == {}
    # A part of it answers, or nothing answers at all: that is no place that is off.
    partly = Page(scope=OTHER, kind=Kind.ADDRESS)
    assert idle([page(), partly, *off], {SCOPE}) == {}
    assert idle(off, {SCOPE}) == {}
