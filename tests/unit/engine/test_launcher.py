"""Creates: the intent first, then the machine; and what each answer of a cloud means."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.support.engine_parts import EngineParts, Later
from vmrunner.core.scheduling import PlannedStart
from vmrunner.engine.launcher import DISTRUST, FIRST_WAIT, CreateResults, Launcher
from vmrunner.errors import Throttled
from vmrunner.model import Budget, BudgetPeriod, Death, InstanceState, Order, Reason, Ref, Result
from vmrunner.providers import registry
from vmrunner.providers.fake import Fault


def launched(parts: EngineParts, *faults: Fault) -> tuple[Launcher, CreateResults]:
    """A launcher that was told to start `b-1`, and what came of it at once."""
    parts.cloud.fail("create", *faults)
    launcher = Launcher(parts.context)
    launcher.start([parts.planned(parts.submit())])
    return launcher, launcher.collect()


def test_the_intent_is_durable_before_the_cloud_is_asked(parts: EngineParts) -> None:
    states = []
    parts.cloud.on_call = lambda call: (
        states.append(parts.rows()[1].state) if call.method == "create" else None
    )
    launched(parts)
    assert states == [InstanceState.REQUESTED]


def test_the_answer_is_recorded_and_the_vm_boots(parts: EngineParts) -> None:
    launcher, results = launched(parts)
    _, row = parts.rows()
    assert results.booting == (row.id,)
    assert (row.state, row.ref) == (InstanceState.BOOTING, parts.cloud.of(row.id)[0].ref)
    assert not launcher.busy


def test_after_a_lost_answer_the_resend_finds_its_vm(parts: EngineParts) -> None:
    launcher, results = launched(parts, Fault.LOST_RESPONSE)
    launcher.resend()
    assert results == launcher.collect() == CreateResults(), "its turn has not come"
    parts.clock.advance(FIRST_WAIT)
    launcher.resend()
    (booting,) = launcher.collect().booting
    assert len(parts.cloud.of(booting)) == 1


def test_a_refused_offer_is_followed_by_the_next(parts: EngineParts) -> None:
    launcher, _ = launched(parts, Fault.NO_CAPACITY)
    (booting,) = launcher.collect().booting
    refused = [row for row in parts.ledger.instances.list(build="b-1") if row.id != booting]
    assert [(row.state, row.death) for row in refused] == [(InstanceState.GONE, Death.REFUSED)]
    assert parts.rows()[1].offer.machine_type == "large"


@pytest.mark.parametrize(
    ("fault", "reason"), [(Fault.NO_CAPACITY, Reason.NO_CAPACITY), (Fault.QUOTA, Reason.QUOTA)]
)
def test_a_build_whose_offers_are_all_refused_may_wait(
    parts: EngineParts, fault: Fault, reason: Reason
) -> None:
    launcher, _ = launched(parts, fault, fault)
    ((build, row, end),) = launcher.collect().waiting
    assert (build.id, end.reason) == ("b-1", reason)
    assert parts.ledger.instances.get(row.id).state is InstanceState.GONE


def test_no_offer_is_next_when_all_time_is_over(parts: EngineParts) -> None:
    _, row = parts.booting()
    parts.ledger.instances.close(row.id, epoch=row.epoch, death=Death.VANISHED, now=parts.clock())
    requeued = parts.ledger.builds.requeue("b-1", epoch=row.epoch, now=parts.clock())
    parts.clock.advance(parts.context.limits.limits.max_ttl - 60)
    parts.pool = pool = Later()
    parts.cloud.fail("create", Fault.NO_CAPACITY)
    launcher = Launcher(parts.context)
    launcher.start([parts.planned(requeued)])
    parts.clock.advance(60)
    pool.run()
    ((build, last, end),) = launcher.collect().ended
    assert (build.id, build.attempt, end.reason) == ("b-1", 2, Reason.DEADLINE)
    assert parts.ledger.instances.get(last.id).state is InstanceState.GONE
    assert not launcher.busy


def test_a_refusal_after_doubt_closes_nothing(parts: EngineParts) -> None:
    """The send before may have been heard: only the sweeps can tell."""
    launcher, _ = launched(parts, Fault.LATE, Fault.NO_CAPACITY)
    parts.clock.advance(FIRST_WAIT)
    launcher.resend()
    assert launcher.collect() == CreateResults()
    (row,) = parts.ledger.instances.list(build="b-1")
    assert (row.state, row.death) == (InstanceState.DELETING, Death.REFUSED)


def test_a_provider_that_refused_our_credentials_rests(parts: EngineParts) -> None:
    launcher, results = launched(parts, Fault.CREDENTIALS)
    assert [end.reason for _, _, end in results.ended] == [Reason.CREDENTIALS]
    assert not launcher.trusts("local")
    parts.clock.advance(DISTRUST)
    assert launcher.trusts("local")


def test_nobody_asks_for_a_row_that_dies(parts: EngineParts) -> None:
    """The thread that asks may run an hour late."""
    parts.pool = pool = Later()
    launcher, _ = launched(parts)
    parts.mark_deleting(parts.rows()[1])
    pool.run()
    launcher.collect()
    assert parts.cloud.counts["create"] == 0
    assert not launcher.busy


def test_a_vm_that_comes_when_its_row_dies_is_deleted(parts: EngineParts) -> None:
    parts.pool = pool = Later()
    launcher, _ = launched(parts)
    pool.run()
    row = parts.mark_deleting(parts.rows()[1])
    assert launcher.collect().booting == ()
    (machine,) = parts.cloud.of(row.id)
    assert machine.alive  # no tick waits for its delete
    pool.run()
    assert not machine.alive


def test_a_create_that_is_too_old_is_not_sent_again(parts: EngineParts) -> None:
    launcher, _ = launched(parts, Fault.LOST_REQUEST)
    parts.clock.advance(parts.context.limits.limits.newborn / 2)
    launcher.resend()
    assert launcher.collect() == CreateResults()
    assert (parts.cloud.counts["create"], launcher.busy) == (1, False)


def test_what_waits_to_be_sent_again_can_be_dropped(parts: EngineParts) -> None:
    launcher, _ = launched(parts, Fault.THROTTLE)
    _, row = parts.rows()
    assert launcher.is_pending(row.id)
    launcher.drop(row.id)
    assert not launcher.is_pending(row.id)


def test_an_adopted_create_finds_the_vm_of_its_former_owner(parts: EngineParts) -> None:
    launched(parts, Fault.LOST_RESPONSE)
    build, _ = parts.rows()
    now = parts.clock()
    parts.ledger.builds.take_over(
        build.id, seen_epoch=build.epoch, owner="e-2", until=now + 60, now=now
    )
    heir = Launcher(parts.context_of("e-2"))
    heir.adopt(*parts.rows())
    (booting,) = heir.collect().booting
    assert parts.rows()[1].ref == parts.cloud.of(booting)[0].ref
    assert len(list(parts.cloud.things())) == 1


def test_all_attempts_together_stay_within_the_longest_life(parts: EngineParts) -> None:
    build, first = parts.booting(ttl=3600.0)
    parts.mark_deleting(first)
    parts.ledger.builds.requeue(build.id, epoch=build.epoch + 1, now=parts.clock())
    longest = parts.context.limits.limits.max_ttl
    parts.clock.advance(longest - 60)
    Launcher(parts.context).start([parts.planned(parts.build())])
    assert parts.rows()[1].deadline == first.created_at + longest


def test_a_build_over_budget_ends_and_asks_nobody(parts: EngineParts) -> None:
    parts.context.budgets = [Budget(usd=0.0, period=BudgetPeriod.DAY)]
    launcher, results = launched(parts)
    ((build, _, end),) = results.ended
    assert (build.id, end.result, end.reason) == ("b-1", Result.ERROR, Reason.BUDGET)
    assert parts.cloud.counts["create"] == 0
    assert launcher.collect() == CreateResults(), "it is told once"


def test_a_next_offer_over_budget_ends_the_build(parts: EngineParts) -> None:
    build = parts.submit()
    small, large = parts.planned(build).offers
    dear = replace(large, usd_hour=9.0)
    parts.context.budgets = [Budget(usd=0.01, period=BudgetPeriod.DAY)]
    parts.cloud.fail("create", Fault.NO_CAPACITY)
    launcher = Launcher(parts.context)
    launcher.start([PlannedStart(build=build, offers=(small, dear))])
    ((_, row, end),) = launcher.collect().ended
    assert end.reason is Reason.BUDGET
    assert parts.ledger.instances.get(row.id).death is Death.REFUSED
    assert parts.ledger.budgets.states(parts.clock())[0].held == 0.0


def test_an_ask_is_logged_once_and_a_refusal(
    parts: EngineParts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="vmrunner.engine")
    launcher, _ = launched(parts, Fault.LOST_RESPONSE, Fault.NO_CAPACITY)
    parts.clock.advance(FIRST_WAIT)
    launcher.resend()
    launcher.collect()
    _, row = parts.rows()
    records = [
        (record.getMessage().split()[2], vars(record)["fields"]) for record in caplog.records
    ]
    ids = {"build": "b-1", "instance": row.id, "provider": row.provider}
    assert records == [
        ("asked", ids | {"machine": row.offer.machine_type}),
        ("refused", ids | {"reason": "NoCapacity"}),
    ]


def test_no_vm_is_promised_more_than_its_kind_can_give(
    parts: EngineParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is in the queue: who put it there may not have known that kind."""
    find = registry.find
    monkeypatch.setattr(registry, "find", lambda kind: replace(find(kind), max_ttl=3600.0))
    Launcher(parts.context).start([parts.planned(parts.submit(ttl=4 * 3600))])
    _, row = parts.rows()
    assert row.deadline <= row.created_at + 3600
    assert parts.ledger.instances.order(row.id).max_ttl == 3600


def test_no_pause_is_longer_than_the_provider_wants(
    parts: EngineParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []

    def throttled(order: Order) -> Ref:
        tries.append(parts.clock())
        raise Throttled("20 VMs boot from one image", wait=5.0)

    provider = parts.context.providers[parts.planned(parts.submit()).build.spec.provider]
    monkeypatch.setattr(provider, "create", throttled)
    launcher = Launcher(parts.context)
    launcher.start([parts.planned(parts.submit("b-2"))])
    for _ in range(30):
        launcher.resend()
        launcher.collect()
        parts.clock.advance(1.0)
    pauses = [after - before for before, after in pairwise(tries)]
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert set(pauses[3:]) == {5.0}
