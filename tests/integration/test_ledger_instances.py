"""Instances in the ledger: intent before effect, one way, erased at the end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy.exc import SQLAlchemyError

from tests.support.ledger_builds import ACCESS, launch, ref, running, started, submitted
from vmrunner.core.scheduling import Capacity
from vmrunner.errors import Conflict, Fenced, NotFound
from vmrunner.ledger import Ledger
from vmrunner.ledger.database import Duplicate
from vmrunner.lib import ids
from vmrunner.model import (
    Address,
    BuildState,
    Death,
    EventKind,
    InstanceState,
    Reason,
    Result,
    Scope,
)

S = InstanceState


def test_an_intent_holds_all_that_another_process_needs(ledger: Ledger) -> None:
    submitted(ledger)
    request = launch(ledger, "b-1", "vm-1")
    ((build, instance),) = ledger.instances.start([request], until=200.0)
    assert build == ledger.builds.get("b-1")
    assert instance == ledger.instances.get("vm-1")
    assert (build.state, build.epoch, build.attempt) == (BuildState.PROVISIONING, 1, 1)
    assert (build.owner, build.owner_until, build.instance) == ("e-1", 200.0, "vm-1")
    assert (instance.state, instance.epoch, instance.attempt) == (S.REQUESTED, 1, 1)
    assert ledger.instances.order("vm-1") == request.order
    assert ledger.instances.access("vm-1") == ACCESS


def test_only_what_is_won_is_returned(ledger: Ledger) -> None:
    for name in ("b-1", "b-2", "b-3", "b-4"):
        submitted(ledger, name)
    ledger.builds.request_cancel("b-2", Reason.USER, 11.0)
    ledger.builds.finish("b-3", epoch=0, result=Result.CANCELLED, reason=Reason.USER, now=11.0)
    wishes = [launch(ledger, f"b-{n}", f"vm-{n}") for n in (5, 4, 3, 2, 1)]
    stale = [replace(w, seen_epoch=3) if w.build_id == "b-4" else w for w in wishes]
    won = ledger.instances.start(stale, until=200.0)
    assert [(b.id, i.id) for b, i in won] == [("b-1", "vm-1")]
    assert [i.id for i in ledger.instances.list()] == ["vm-1"]
    assert ledger.instances.start(wishes[-1:], until=200.0) == []
    assert ledger.instances.start([], until=200.0) == []


@pytest.mark.parametrize(
    "rooms", [Capacity(overall=2), Capacity(overall=99, each={"local": 2})], ids=["all", "each"]
)
def test_one_batch_takes_no_more_than_the_rooms_left(ledger: Ledger, rooms: Capacity) -> None:
    """The first ones of it, and a VM of before counts too."""
    started(ledger, "b-0", "vm-0")
    for n in (1, 2, 3):
        submitted(ledger, f"b-{n}")
    wishes = [launch(ledger, f"b-{n}", f"vm-{n}") for n in (2, 1, 3)]
    won = ledger.instances.start(wishes, until=200.0, rooms=rooms)
    assert [instance.id for _, instance in won] == ["vm-2"]
    assert [row.id for row in ledger.instances.open()] == ["vm-0", "vm-2"]


def test_an_order_must_be_the_instances_own(ledger: Ledger) -> None:
    submitted(ledger)
    request = launch(ledger, "b-1", "vm-1")
    for wrong in (
        replace(request, order=replace(request.order, deadline=9e9)),
        replace(request, order=replace(request.order, instance="vm-2")),
        replace(request, instance=replace(request.instance, owner=None)),
    ):
        with pytest.raises(ValueError):
            ledger.instances.start([wrong], until=200.0)


def test_references_are_recorded_in_one_go(ledger: Ledger) -> None:
    for n in (1, 2, 3):
        started(ledger, f"b-{n}", f"vm-{n}")
    ledger.instances.mark_deleting("vm-2", seen_epoch=1, death=Death.CANCELLED, now=101.0)
    refs = [(f"vm-{n}", 1, ref(f"i-{n}")) for n in (3, 2, 1, 4)]
    assert ledger.instances.record(refs, 102.0) == {"vm-1", "vm-3"}
    assert ledger.instances.record(refs, 103.0) == set()
    assert ledger.instances.record([], 103.0) == set()
    instance = ledger.instances.get("vm-1")
    assert (instance.state, instance.state_since, instance.ref) == (S.BOOTING, 102.0, ref("i-1"))
    assert ledger.builds.get("b-1").state is BuildState.BOOTING
    assert ledger.builds.get("b-2").state is BuildState.PROVISIONING
    assert ledger.instances.get("vm-2").ref is None


def test_the_next_offer_is_another_row_of_the_same_attempt(ledger: Ledger) -> None:
    started(ledger)
    second = launch(ledger, "b-1", "vm-2", seen_epoch=1)
    build, instance = ledger.instances.next_offer("vm-1", second, now=105.0, message="no room")
    assert (build.instance, build.attempt, build.epoch) == ("vm-2", 1, 1)
    assert (instance.state, instance.attempt, instance.epoch) == (S.REQUESTED, 1, 1)
    refused = ledger.instances.get("vm-1")
    assert (refused.state, refused.death, refused.message) == (S.GONE, Death.REFUSED, "no room")
    with pytest.raises(NotFound):
        ledger.instances.order("vm-1")
    assert ledger.instances.order("vm-2") == second.order
    assert ledger.instances.record([("vm-2", 1, ref("i-2"))], 106.0) == {"vm-2"}
    third = launch(ledger, "b-1", "vm-3", seen_epoch=1)
    for refused_id in ("vm-1", "vm-2"):  # it is closed; it boots already
        with pytest.raises(Fenced):
            ledger.instances.next_offer(refused_id, third, now=107.0)
    assert [i.id for i in ledger.instances.list()] == ["vm-2", "vm-1"]


def test_doom_fences_whoever_drove_it(ledger: Ledger) -> None:
    running(ledger)
    dying = ledger.instances.mark_deleting(
        "vm-1", seen_epoch=1, death=Death.EXPIRED, now=205.0, message="past E"
    )
    assert dying == ledger.instances.get("vm-1")
    assert dying is not None
    assert (dying.state, dying.death, dying.message) == (S.DELETING, Death.EXPIRED, "past E")
    assert dying.epoch == ledger.builds.get("b-1").epoch == 2
    with pytest.raises(Fenced):
        ledger.logs.append("b-1", 1, 1, offset=1, data=b"x", now=206.0)
    assert ledger.instances.addresses([("vm-1", 1, Address("127.0.0.1"))]) == set()
    for epoch in (1, 2):
        assert (
            ledger.instances.mark_deleting("vm-1", seen_epoch=epoch, death=Death.STUCK, now=207.0)
            is None
        )
    end, _ = ledger.builds.finish(
        "b-1", epoch=2, result=Result.TIMEOUT, reason=Reason.DEADLINE, now=208.0
    )
    assert end.finished


def test_a_doom_at_another_epoch_changes_nothing(ledger: Ledger) -> None:
    """What was decided of a former owner's row does not bind the next one's."""
    running(ledger)
    taken = ledger.builds.take_over("b-1", seen_epoch=1, owner="e-2", until=300.0, now=106.0)
    assert taken is not None
    row = ledger.instances.get("vm-1")
    for epoch in (0, 1, 3):
        stale = ledger.instances.mark_deleting(
            "vm-1", seen_epoch=epoch, death=Death.STUCK, now=107.0
        )
        assert stale is None
    assert ledger.instances.get("vm-1") == row


def test_dooming_a_finished_builds_vm_keeps_the_build(ledger: Ledger) -> None:
    running(ledger)
    end, _ = ledger.builds.finish(
        "b-1", epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, exit_code=0, now=105.0
    )
    assert (
        ledger.instances.mark_deleting("vm-1", seen_epoch=1, death=Death.DONE, now=106.0)
        is not None
    )
    assert ledger.builds.get("b-1") == end


def test_deletes_are_counted_until_it_is_gone(ledger: Ledger) -> None:
    running(ledger)
    ledger.instances.tried("vm-1", 110.0)
    assert ledger.instances.get("vm-1").deletes == 0  # nobody decided that it must die
    ledger.instances.mark_deleting("vm-1", seen_epoch=1, death=Death.DONE, now=105.0)
    ledger.instances.tried("vm-1", 110.0)
    ledger.instances.tried("vm-1", 120.0)
    instance = ledger.instances.get("vm-1")
    assert (instance.deletes, instance.delete_at) == (2, 120.0)


def test_closing_is_final_and_erases_what_was_sealed(ledger: Ledger) -> None:
    running(ledger)
    dying = ledger.instances.mark_deleting("vm-1", seen_epoch=1, death=Death.STUCK, now=105.0)
    assert dying is not None
    close = ledger.instances.close
    assert close("vm-1", epoch=1, death=Death.VANISHED, now=106.0) is False
    assert close("vm-1", epoch=2, death=Death.VANISHED, now=106.0) is True
    assert close("vm-1", epoch=2, death=Death.VANISHED, now=107.0) is False
    instance = ledger.instances.get("vm-1")
    assert (instance.state, instance.death, instance.gone_at) == (S.GONE, Death.STUCK, 106.0)
    assert ledger.instances.open() == []
    for sealed in (ledger.instances.order, ledger.instances.access):
        with pytest.raises(NotFound):
            sealed("vm-1")


def test_an_address_is_noted_by_the_owner_alone(ledger: Ledger) -> None:
    running(ledger)
    assert ledger.instances.addresses([("vm-1", 1, Address("127.0.0.1", 2222))]) == {"vm-1"}
    assert ledger.instances.get("vm-1").address == Address("127.0.0.1", 2222)
    assert ledger.instances.addresses([("vm-1", 0, Address("127.0.0.2"))]) == set()
    assert ledger.instances.get("vm-1").address == Address("127.0.0.1", 2222)


def test_the_first_container_of_a_build_stays_its_own(ledger: Ledger) -> None:
    """Whatever digest a later look, owner or attempt finds under its tag."""
    running(ledger)
    note = ledger.instances.note_containers
    note([("vm-1", 0, "debian@sha256:0")], 105.0)
    assert ledger.instances.container("b-1") is None, "it is another owner's"
    note([("vm-1", 1, "debian@sha256:1"), ("vm-0", 1, "debian@sha256:0")], 106.0)
    note([("vm-1", 1, "debian@sha256:2")], 107.0)
    assert ledger.instances.get("vm-1").container == "debian@sha256:1"
    dying = ledger.instances.mark_deleting("vm-1", seen_epoch=1, death=Death.VANISHED, now=108.0)
    assert dying is not None
    build = ledger.builds.requeue("b-1", epoch=dying.epoch, now=109.0)
    again = launch(ledger, "b-1", "vm-0", seen_epoch=build.epoch)
    ((_, second),) = ledger.instances.start([again], until=300.0)
    note([("vm-0", second.epoch, "debian@sha256:3")], 111.0)
    assert ledger.instances.get("vm-0").container == "debian@sha256:3"
    assert ledger.instances.container("b-1") == "debian@sha256:1"
    pins = [e.data for e in ledger.events.list("b-1") if e.kind == EventKind.PINNED]
    assert pins == [
        {"instance": "vm-1", "container": "debian@sha256:1"},
        {"instance": "vm-0", "container": "debian@sha256:3"},
    ]


def test_a_verdict_and_the_doom_of_its_vm_are_one(ledger: Ledger) -> None:
    running(ledger)
    row = ledger.instances.get("vm-1")
    ledger.builds.finish(
        "b-1", epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=300.0, death=Death.DONE
    )
    dying = ledger.instances.get("vm-1")
    assert (dying.state, dying.death, dying.epoch) == (S.DELETING, Death.DONE, row.epoch + 1)
    closed = ledger.instances.close_all([("vm-1", 1, Death.DONE), ("vm-1", 2, Death.STUCK)], 301.0)
    assert closed == {"vm-1"}
    assert ledger.instances.get("vm-1").death is Death.DONE


def test_the_database_itself_refuses_a_second_live_instance(ledger: Ledger) -> None:
    """Promise 3, no double: should a statement of ours ever be wrong."""
    running(ledger)
    with pytest.raises((SQLAlchemyError, Duplicate)):
        ledger._database.write(
            lambda c: c.exec_driver_sql(
                "INSERT INTO instances (id, build, attempt, provider, role, state, state_since,"
                " created_at, deadline, epoch, message, deletes, delete_at, offer)"
                " SELECT 'vm-2', build, 2, provider, role, 'requested', 1, 1, 1, 9, '', 0, 0,"
                " offer FROM instances WHERE id = 'vm-1'"
            )
        )
    assert [i.id for i in ledger.instances.list()] == ["vm-1"]


def test_instances_are_found(ledger: Ledger) -> None:
    for n in ("1", "11", "2"):
        started(ledger, f"b-{n}", f"vm-{n}")
    find = ledger.instances.find
    assert find("vm-1").id == find("1").id == "vm-1"
    assert find("vm-2").id == "vm-2"
    with pytest.raises(NotFound):
        find("vm-3")
    with pytest.raises(NotFound):
        find("")
    started(ledger, "b-3", "vm-12")
    with pytest.raises(Conflict):
        find("vm-")
    ledger.instances.mark_deleting("vm-2", seen_epoch=1, death=Death.DONE, now=105.0)
    ledger.instances.close("vm-2", epoch=2, death=Death.DONE, now=106.0)
    names = lambda some: [i.id for i in some]  # noqa: E731
    assert names(ledger.instances.open()) == ["vm-1", "vm-11", "vm-12"]
    assert names(ledger.instances.list(build="b-2")) == ["vm-2"]
    assert names(ledger.instances.list(active=False)) == ["vm-2"]
    assert names(ledger.instances.list(active=True, limit=2)) == ["vm-12", "vm-11"]
    assert set(names(ledger.instances.these(["vm-2", "vm-1", "vm-9"]))) == {"vm-1", "vm-2"}
    assert ledger.instances.these([]) == []


def test_where_a_provider_has_vms_or_asked_lately_is_known(ledger: Ledger) -> None:
    """But not for ever: a region may be gone for good."""
    for n, place in enumerate(("eu-west-1", "us-east-1", "eu-west-1", "sa-east-1"), 1):
        submitted(ledger, f"b-{n}")
        request = launch(ledger, f"b-{n}", f"{ids.instances_since(1000 * n)}-{n}")
        offer = replace(request.instance.offer, scope=Scope("ec2", "1", place))
        row = replace(request.instance, offer=offer, provider="other" if n == 4 else "aws")
        order = replace(request.order, offer=offer)
        ledger.instances.start([replace(request, instance=row, order=order)], until=200.0)
    assert {s.place for s in ledger.instances.places("aws")} == {"eu-west-1", "us-east-1"}
    closed = f"{ids.instances_since(2000)}-2"
    ledger.instances.close(closed, epoch=1, death=Death.REFUSED, now=9.0, message="")
    assert {s.place for s in ledger.instances.places("aws", 2000)} == {"eu-west-1", "us-east-1"}
    assert {s.place for s in ledger.instances.places("aws", 2001)} == {"eu-west-1"}
    assert {s.place for s in ledger.instances.places("aws")} == {"eu-west-1"}
    assert ledger.instances.places("nobody", 0) == frozenset()
    assert [ledger.instances.launched(name) for name in ("aws", "nobody")] == [True, False]
