"""Whole lives on the fake cloud, with the promises checked at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import Mock

import pytest

from tests.faults.node import Node
from tests.faults.world import LIMITS, LOG, World
from vmrunner.errors import LedgerError
from vmrunner.model import BuildState, Death, Reason, Result
from vmrunner.providers.fake import Call, Fault, Plan
from vmrunner.reaper.reap_pass import ReapPass

Make = Callable[..., World]


def test_a_build_lives_and_leaves_nothing(make_world: Make) -> None:
    world = make_world()
    build = world.submit()
    world.node()
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.result, done.reason, done.exit_code) == (Result.SUCCESS, Reason.EXIT_CODE, 0)
    assert [p.state for p in done.phases] == [
        s for s in BuildState if s not in (BuildState.HELD, BuildState.FINISHED)
    ]
    chunks = world.truth.logs.read(build.id)
    assert b"".join(chunk.data for chunk in chunks) == LOG
    assert world.started == {(build.id, 1): 1}
    assert world.cloud.counts["create"] == 1
    assert (done.cost.usd or 0) > 0
    assert done.cost.final


def test_many_builds_stay_under_the_limit(make_world: Make) -> None:
    world = make_world(max_instances=3)
    builds = [world.submit() for _ in range(8)]
    world.node()
    most = 0
    while not world.quiet():
        world.run(1)
        most = max(most, len(world.truth.instances.open()))
    assert most == 3
    assert all(world.truth.builds.get(b.id).result is Result.SUCCESS for b in builds)


@pytest.mark.parametrize(
    "faults",
    [
        [Fault.LOST_RESPONSE],
        [Fault.LOST_REQUEST],
        [Fault.SERVER_ERROR, Fault.LOST_RESPONSE],
        [Fault.LOST_RESPONSE, Fault.LOST_RESPONSE, Fault.LOST_RESPONSE],
        [Fault.THROTTLE, Fault.THROTTLE],
    ],
)
def test_an_uncertain_create_makes_one_machine(make_world: Make, faults: list[Fault]) -> None:
    world = make_world()
    build = world.submit()
    world.fail("create", *faults)
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    assert len(world.cloud.machines) == 1


def test_a_create_that_never_answers_ends_the_build(make_world: Make) -> None:
    world = make_world()
    build = world.submit()
    world.fail("create", *[Fault.LOST_REQUEST] * 200)
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).reason is Reason.BOOT_FAILED


def test_a_create_that_is_heard_late_dies(make_world: Make) -> None:
    world = make_world()
    build = world.submit()
    world.fail("create", Fault.LATE, seconds=100)
    world.fail("create", *[Fault.LOST_REQUEST] * 5)
    world.node()
    world.run(5)
    world.truth.builds.request_cancel(build.id, Reason.USER, world.clock())
    world.run(150)
    world.settle()
    assert len(world.cloud.machines) == 1
    assert world.truth.builds.get(build.id).result is Result.CANCELLED


def test_a_vm_that_lost_our_name_lives_on_and_ends(make_world: Make) -> None:
    """Its row recorded it: no sweep takes it for an orphan, and nothing of it is left."""
    world = make_world()
    build = world.submit(timeout=500, ttl=590)
    world.seconds[build.id] = 450
    world.node()
    world.run(300, until=lambda: bool(world.started))
    for thing in world.cloud.standing():
        del thing.tags["vmrunner:instance"]
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS


def test_a_page_knows_the_rows_of_what_lost_its_name(make_world: Make) -> None:
    """By it a VM without any deadline of its own is not past that of today's limits."""
    world = make_world()
    build = world.submit(timeout=500, ttl=590)
    world.seconds[build.id] = 450
    node = world.node()
    world.run(300, until=lambda: bool(world.started))
    for thing in world.cloud.standing():
        for name in ("instance", "expires-at", "max-ttl"):
            del thing.tags[f"vmrunner:{name}"]
    world.limits = replace(world.limits, limits=replace(world.limits.limits, max_ttl=200))
    node.kill()
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS


@pytest.mark.parametrize("fails", ["all of it", "writes"])
def test_a_vm_born_past_its_end_needs_no_ledger(
    make_world: Make, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Its row has no reference, and no sweep shows it: only a look by its id finds it. A ledger
    that answers and takes nothing (a standby) is no better."""
    world = make_world()
    world.submit(timeout=60, ttl=120)
    world.fail("create", Fault.LATE, seconds=610)
    world.fail("create", *[Fault.LOST_REQUEST] * 50)
    node = world.node(sweeps=False)
    world.run(5)
    (row,) = world.truth.instances.open()
    assert row.deadline < world.clock() + 610
    world.run(600)
    if fails == "writes":
        node.drives = False  # its engine would delete it
        monkeypatch.setattr(ReapPass, "_mark", Mock(side_effect=LedgerError("read-only")))
    else:
        node.ledger_down = True
    world.run(200, until=lambda: bool(world.cloud.machines) and not world.standing())
    assert world.cloud.machines
    assert not world.standing()


@pytest.mark.parametrize("fault", [Fault.NO_CAPACITY, Fault.QUOTA])
def test_after_a_full_pool_the_next_offer_is_another_row(make_world: Make, fault: Fault) -> None:
    world = make_world()
    build = world.submit(spot=True)
    world.fail("create", fault)
    world.node()
    world.settle()
    done = world.truth.builds.get(build.id)
    rows = world.truth.instances.list(build=build.id)
    assert done.result is Result.SUCCESS
    assert done.attempt == 1
    assert sorted(row.offer.market.value for row in rows) == ["on-demand", "spot"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.NO_CAPACITY, Reason.NO_CAPACITY),
        (Fault.QUOTA, Reason.QUOTA),
        (Fault.CREDENTIALS, Reason.CREDENTIALS),
        (Fault.BAD_ORDER, Reason.IMAGE),
    ],
)
def test_a_refusal_ends_the_build_with_its_reason(
    make_world: Make, fault: Fault, reason: Reason
) -> None:
    world = make_world()
    build = world.submit()
    world.fail("create", *[fault] * 10)
    world.node()
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.result, done.reason) == (Result.ERROR, reason)
    assert not world.cloud.machines


def test_with_a_queue_timeout_a_refusal_waits(make_world: Make) -> None:
    world = make_world()
    patient = world.submit(queue_timeout=100)
    world.fail("create", Fault.NO_CAPACITY, Fault.QUOTA)
    world.node()
    world.settle()
    assert world.truth.builds.get(patient.id).result is Result.SUCCESS
    second = world.submit(queue_timeout=20)
    world.fail("create", *[Fault.NO_CAPACITY] * 50)
    world.settle()
    assert world.truth.builds.get(second.id).reason is Reason.QUEUE_TIMEOUT


@pytest.mark.parametrize("after", [0, 1, 3, 6, 9])
def test_a_cancelled_build_ends_wherever_it_is(make_world: Make, after: int) -> None:
    world = make_world()
    build = world.submit()
    world.node()
    world.run(after)
    world.truth.builds.request_cancel(build.id, Reason.USER, world.clock())
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.CANCELLED


@pytest.mark.parametrize("after", [0, 1, 3, 6, 9])
def test_a_build_dies_with_its_submitter(make_world: Make, after: int) -> None:
    world = make_world()
    build = world.submit(submitter=7)
    world.node()
    world.run(after)
    world.living.clear()
    world.settle()
    done = world.truth.builds.get(build.id)
    assert done.result is Result.CANCELLED or not after
    assert done.reason is Reason.OWNER_GONE


def test_a_lost_boot_is_tried_again_and_then_given_up(make_world: Make) -> None:
    world = make_world()
    build = world.submit()
    world.node()
    for _ in range(3):
        world.run(60, until=lambda: any(m.alive for m in world.ours()))
        for machine in world.ours():
            world.cloud.die(machine)
        world.run(2)
    world.settle()
    done = world.truth.builds.get(build.id)
    assert done.reason is Reason.BOOT_FAILED
    assert done.attempt == 3


def test_all_attempts_end_within_the_longest_life_of_one_vm(make_world: Make) -> None:
    """However long the next one had to wait for its turn."""
    world = make_world()
    build = world.submit(retry_on_loss=True, ttl=200.0, timeout=100.0)
    world.node()
    world.run(60, until=lambda: bool(world.started))
    (first,) = world.truth.instances.list(build=build.id)
    world.truth.pause(True, world.clock())
    for machine in world.ours():
        world.cloud.die(machine)
    world.run(450)
    world.truth.pause(False, world.clock())
    world.run(60, until=lambda: len(world.truth.instances.list(build=build.id)) == 2)
    last = max(row.deadline for row in world.truth.instances.list(build=build.id))
    assert last <= first.created_at + LIMITS.max_ttl
    world.settle()


def test_no_vm_is_asked_for_when_no_time_is_left(make_world: Make) -> None:
    world = make_world()
    build = world.submit(ttl=200.0, timeout=150.0, queue_timeout=36_000.0)
    world.node()
    world.run(60, until=lambda: bool(world.truth.instances.list(build=build.id)))
    world.truth.pause(True, world.clock())
    for machine in world.ours():
        world.cloud.preempt(machine)
    world.run(LIMITS.max_ttl + 100, step=5.0)
    world.truth.pause(False, world.clock())
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.result, done.reason) == (Result.TIMEOUT, Reason.DEADLINE)
    assert len(world.truth.instances.list(build=build.id)) == 1


def test_a_wait_for_capacity_shortens_no_vms_life(make_world: Make) -> None:
    world = make_world()
    build = world.submit(ttl=200.0, timeout=150.0, queue_timeout=36_000.0)
    world.judge = lambda call: Plan(Fault.NO_CAPACITY) if call.method == "create" else None
    world.node()
    world.run(LIMITS.max_ttl + 100, step=5.0)
    world.judge = None
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    last = world.truth.instances.list(build=build.id)[0]
    assert last.deadline - last.created_at > 198


@pytest.mark.parametrize("again", [False, True])
def test_a_vm_lost_amid_steps_is_retried_only_on_request(make_world: Make, *, again: bool) -> None:
    world = make_world()
    build = world.submit(retry_on_loss=again)
    world.node()
    world.run(60, until=lambda: bool(world.started))
    for machine in world.ours():
        world.cloud.die(machine)
    world.settle()
    done = world.truth.builds.get(build.id)
    assert done.result is (Result.SUCCESS if again else Result.ERROR)
    assert done.reason is (Reason.EXIT_CODE if again else Reason.VM_LOST)


def test_a_guest_that_switches_itself_off_fails_its_build(make_world: Make) -> None:
    world = make_world()
    build = world.submit(retry_on_loss=True)
    world.node()
    world.run(60, until=lambda: bool(world.started))
    for machine in world.ours():
        world.cloud.power_off(machine)
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.FAILURE


def test_a_preempted_machine_is_not_the_builds_failure(make_world: Make) -> None:
    world = make_world()
    build = world.submit()
    world.node()
    world.run(60, until=lambda: bool(world.started))
    for machine in world.ours():
        world.cloud.preempt(machine)
    world.settle()
    assert world.truth.builds.get(build.id).reason is Reason.PREEMPTED


def test_a_build_that_never_ends_dies_at_its_deadline(make_world: Make) -> None:
    world = make_world()
    world.build_seconds = 1e9
    build = world.submit()
    world.node()
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.result, done.reason) == (Result.TIMEOUT, Reason.DEADLINE)


def test_a_failed_build_is_held_and_then_dies(make_world: Make) -> None:
    world = make_world()
    world.exit_code = 3
    build = world.submit(keep_on_failure=40)
    world.node()
    world.run(60, until=lambda: world.truth.builds.get(build.id).state is BuildState.HELD)
    held = world.truth.builds.get(build.id)
    assert (held.result, held.exit_code) == (Result.FAILURE, 3)
    world.run(30)
    assert any(m.alive for m in world.ours())
    world.settle()
    assert world.truth.builds.get(build.id).exit_code == 3


def test_a_stubborn_machine_is_forced(make_world: Make) -> None:
    world = make_world()
    world.submit()
    world.node()
    world.run(60, until=lambda: bool(world.started))
    for machine in world.ours():
        machine.protected = True
        machine.reverts = 1
    world.settle()


def test_the_dead_that_just_vanish_are_closed_after_two_sweeps(make_world: Make) -> None:
    world = make_world()
    world.cloud.tombstone = 0.0
    build = world.submit()
    world.node()
    world.settle()
    (row,) = world.truth.instances.list(build=build.id)
    assert row.gone_at is not None
    assert row.gone_at > row.created_at + world.limits.limits.newborn


def test_a_newborn_that_is_not_visible_yet_is_waited_for(make_world: Make) -> None:
    world = make_world()
    world.cloud.visibility_lag = 20.0
    build = world.submit()
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    assert world.cloud.counts["create"] == 1


def test_foreign_machines_live(make_world: Make) -> None:
    world = make_world()
    build = world.submit()
    world.node()
    world.run(10)
    (ours,) = list(world.ours())
    installation = world.truth.installation
    foreign = []
    for tags in (
        {},
        {"vmrunner:installation": installation[:-1]},
        {"vmrunner:installation": installation + "0"},
        {"vmrunner:installation": installation.upper()},
        {"vmrunner:installation": ""},
        {"vmrunner:instance": ours.tags["vmrunner:instance"]},
        ours.tags | {"vmrunner:installation": "another"},
        ours.tags | {"vmrunner:role": "guard"},
        ours.tags | {"vmrunner:role": ""},
    ):
        expired = {**tags, "vmrunner:expires-at": "1"}
        foreign.append(world.cloud.plant(ours.ref.scope, expired))
    world.settle()
    world.run(200)
    assert all(machine.alive for machine in foreign)
    assert world.truth.builds.get(build.id).result is Result.SUCCESS


def test_a_cancelled_newborn_that_nobody_sees_yet_is_waited_for(make_world: Make) -> None:
    """A delete that finds nothing proves nothing: the VM appears later, and dies then."""
    world = make_world()
    world.cloud.visibility_lag = 30.0
    build = world.submit()
    world.node()
    world.run(3)
    world.truth.builds.request_cancel(build.id, Reason.USER, world.clock())
    world.settle()
    assert world.kills


def test_no_create_is_sent_after_half_the_newborn_window(make_world: Make) -> None:
    """Its token may be forgotten by then, and a sweep may have begun to count it as absent."""
    world = make_world()
    world.submit()
    world.fail("create", *[Fault.LOST_REQUEST] * 200)
    sent: list[float] = []

    def judge(call: Call) -> None:
        if call.method == "create":
            (row,) = world.truth.instances.these([call.about])
            sent.append(world.clock() - row.created_at)

    called = world.cloud.on_call
    assert called is not None
    world.cloud.on_call = lambda call: judge(call) or called(call)
    world.node()
    world.settle()
    assert len(sent) > 3
    assert max(sent) < world.limits.limits.newborn / 2


def test_the_row_is_looked_at_once_more_before_the_create(make_world: Make) -> None:
    """Between the intent and the create others may have decided that it dies."""
    world = make_world()
    world.submit()

    def meanwhile(_node: Node) -> None:
        (row,) = world.truth.instances.open()
        world.truth.instances.mark_deleting(
            row.id, seen_epoch=row.epoch, death=Death.CANCELLED, now=world.clock()
        )

    probe = make_world()
    probe.submit()
    first = probe.node()
    first.tick()
    place = first.points.index("after instances.start")
    world.node(sleep_at=place, sleep=meanwhile)
    world.run(3)
    assert world.cloud.counts["create"] == 0
