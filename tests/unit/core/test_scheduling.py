from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.ledger_rows import SCOPE, instance
from vmrunner.core.scheduling import (
    ANYWHERE,
    Capacity,
    OffersAnswer,
    Refusal,
    SchedulingPlan,
    owner,
    plan,
)
from vmrunner.model import (
    BuildRecord,
    BuildSpec,
    BuildState,
    InstanceState,
    Offer,
    Reason,
    Spec,
    Step,
)

OFFER = Offer(scope=SCOPE, machine_type="small", place="z")
NOW = 1000.0


def build(
    name: str, *, team: str = "", priority: int = 0, at: float = 0.0, **options: Any
) -> BuildRecord:
    spec = BuildSpec(
        steps=(Step(run="x"),),
        container="c",
        timeout=60,
        ttl=120,
        labels={"team": team} if team else {},
        priority=priority,
        **{"provider": "p", **options},
    )
    return BuildRecord(id=name, spec=spec, state=BuildState.QUEUED, created_at=at, state_since=at)


def always(_name: str, _spec: Spec) -> OffersAnswer:
    return OffersAnswer(offers=(OFFER,))


def started(decided: SchedulingPlan) -> list[str]:
    return [start.build.id for start in decided.starts]


BUILDS = st.lists(
    st.builds(
        build,
        st.uuids().map(str),
        team=st.sampled_from(["", "a", "b", "c"]),
        priority=st.integers(0, 2),
        at=st.integers(0, 50).map(float),
        provider=st.sampled_from(["p", "q"]),
    ),
    max_size=25,
    unique_by=lambda b: b.id,
)


@given(BUILDS, st.randoms(), st.integers(0, 12), st.integers(0, 6))
def test_the_order_of_the_input_means_nothing(builds, random, overall, each) -> None:
    rooms = Capacity(overall=overall, each={"p": each})
    first = plan(NOW, builds, [], always, rooms)
    shuffled = list(builds)
    random.shuffle(shuffled)
    assert plan(NOW, shuffled, [], always, rooms) == first


@given(BUILDS, st.integers(0, 12), st.integers(0, 6), st.integers(0, 4))
def test_no_limit_is_passed_and_no_place_left_empty(builds, overall, each, busy) -> None:
    running = [(None, instance(str(n))) for n in range(busy)]
    decided = plan(NOW, builds, running, always, Capacity(overall=overall, each={"p": each}))
    by_provider = Counter(s.build.spec.provider for s in decided.starts)
    assert len(decided.starts) <= max(0, overall - busy)
    assert by_provider["p"] <= max(0, each - busy)
    waiting = {b.id: b for b in builds}.keys() - set(started(decided))
    assert waiting == decided.waiting.keys()
    if waiting and len(decided.starts) + busy < overall:
        assert all(b.spec.provider == "p" for b in builds if b.id in waiting)
        assert by_provider["p"] + busy >= each


@given(BUILDS, st.integers(1, 12))
def test_priority_then_fairness_then_age(builds, overall) -> None:
    decided = plan(NOW, builds, [], always, Capacity(overall=overall))
    names = started(decided)
    by_id = {b.id: b for b in builds}
    waiting = [b for b in builds if b.id not in names]
    for name in names:
        for other in waiting:
            assert by_id[name].spec.priority >= other.spec.priority
    for mine in names:
        for other in waiting:  # among one owner's equals, the older starts
            ours = by_id[mine]
            if (ours.spec.priority, owner(ours)) == (other.spec.priority, owner(other)):
                assert (ours.created_at, ours.id) <= (other.created_at, other.id)


def test_owners_take_turns() -> None:
    many = [build(f"a{n}", team="a", at=n) for n in range(5)]
    few = [build(f"b{n}", team="b", at=100 + n) for n in range(2)]
    decided = plan(NOW, many + few, [], always, Capacity(overall=4))
    assert started(decided) == ["a0", "b0", "a1", "b1"]


def test_who_has_machines_already_waits_for_who_has_none() -> None:
    running = [(build("old", team="a"), instance("1"))]
    queued = [build("a", team="a", at=1), build("b", team="b", at=2)]
    assert started(plan(NOW, queued, running, always, Capacity(overall=2))) == ["b"]


def test_no_label_and_no_priority_takes_another_tenants_turn() -> None:
    greedy = [replace(build(f"a{n}", team=str(n), priority=9, at=n), tenant="a") for n in range(5)]
    modest = [replace(build(f"b{n}", at=100 + n), tenant="b") for n in range(2)]
    decided = plan(NOW, greedy + modest, [], always, Capacity(overall=4))
    assert started(decided) == ["a0", "b0", "a1", "b1"]


def test_a_full_provider_never_blocks_another() -> None:
    queued = [build("p1", at=1), build("q1", at=2, provider="q")]
    running = [(None, instance("1"))]
    decided = plan(NOW, queued, running, always, Capacity(overall=9, each={"p": 1}))
    assert started(decided) == ["q1"]
    assert "limit" in decided.waiting["p1"]


def test_the_overall_limit_is_told_from_a_providers_own() -> None:
    queued = [build("p1", at=1), build("q1", at=2, provider="q")]
    running = [(None, instance("1"))]
    decided = plan(NOW, queued, running, always, Capacity(overall=1, each={"p": 1}))
    assert decided.crowded == {"p": 1, ANYWHERE: 1}


@pytest.mark.parametrize(
    ("answer", "crowded"),
    [
        (OffersAnswer(offers=(OFFER,)), {ANYWHERE: 1}),
        (OffersAnswer(message="dry"), {}),
        (OffersAnswer(message="no vCPUs left", scarce=Reason.QUOTA), {ANYWHERE: 1}),
        (OffersAnswer(message="nobody answers", later=True), {}),
    ],
)
def test_a_pool_makes_way_for_what_can_be_had(answer: OffersAnswer, crowded: object) -> None:
    running = [(None, replace(instance("1"), build=None))]
    queued = [build("p1", queue_timeout=2 * NOW)]
    decided = plan(NOW, queued, running, lambda *_: answer, Capacity(overall=1))
    assert (decided.crowded, list(decided.waiting)) == (crowded, ["p1"])


def test_what_can_never_be_had_waits_for_no_place() -> None:
    running = [(None, replace(instance("1"), build=None))]
    dry = OffersAnswer(message="dry")
    decided = plan(NOW, [build("p1")], running, lambda *_: dry, Capacity(overall=1))
    assert [reject.reason for reject in decided.rejects] == [Reason.NO_CAPACITY]


def test_a_quota_that_what_waits_has_taken_is_waited_for() -> None:
    running = [(None, replace(instance("1"), build=None))]
    spent = OffersAnswer(message="no vCPUs left", scarce=Reason.QUOTA)
    decided = plan(NOW, [build("p1")], running, lambda *_: spent, Capacity(overall=1))
    assert (decided.rejects, decided.crowded) == ((), {ANYWHERE: 1})


@pytest.mark.parametrize(("quota", "limit"), [(False, 1), (True, 2)])
def test_refused_builds_keep_one_place_each_of_a_quota(quota: bool, limit: int) -> None:
    queued = [build("soon", queue_timeout=2 * NOW), build("dry", queue_timeout=2 * NOW)]
    refusals = {"soon": Refusal(NOW + 1, quota=quota), "dry": Refusal(NOW - 1, quota=quota)}
    dry = OffersAnswer(message="dry")
    decided = plan(NOW, queued, [], lambda *_: dry, Capacity(overall=3), refusals=refusals)
    assert decided.reserved == {"p": limit}
    assert bool(decided.refused_specs) is not quota


def test_one_place_is_made_for_all_refused_builds() -> None:
    """None while one of them tries; and where one is free, the one that tried first tries again."""
    queued = [build("late", at=1), build("early", at=2), build("new", at=3)]
    refusals = {"late": Refusal(NOW - 1), "early": Refusal(NOW - 2), "tries": Refusal(NOW)}
    pooled = (None, replace(instance("1"), build=None))
    tries = (build("tries"), replace(instance("2"), state=InstanceState.REQUESTED))

    def decided(*running: Any) -> SchedulingPlan:
        return plan(NOW, queued, running, always, Capacity(overall=2), refusals=refusals)

    full = decided(pooled, pooled)
    assert (full.crowded, full.reserved) == ({ANYWHERE: 2}, {"p": 1})
    trying = decided(pooled, tries)
    assert (trying.crowded, trying.reserved) == ({ANYWHERE: 1}, {})
    del queued[2]
    assert started(decided(pooled)) == ["early"]
    assert decided(pooled).crowded == {}


def test_time_in_the_queue_runs_out_while_draining_too() -> None:
    queued = [build("late", at=0, queue_timeout=NOW), build("early", at=1, queue_timeout=NOW)]
    decided = plan(NOW, queued, [], always, Capacity(overall=9), draining=True)
    assert [(r.build.id, r.reason) for r in decided.rejects] == [("late", Reason.QUEUE_TIMEOUT)]
    assert decided.waiting == {"early": "launching is stopped (drain)"}


def test_what_can_never_be_had_is_said_at_once() -> None:
    def offers(_name: str, spec: Spec) -> OffersAnswer:
        return OffersAnswer(message="no such image", refused=Reason.IMAGE)

    (reject,) = plan(NOW, [build("x")], [], offers, Capacity(overall=9)).rejects
    assert (reject.reason, reject.message) == (Reason.IMAGE, "no such image")


def test_without_room_one_waits_only_where_waiting_may_help() -> None:
    def none(_name: str, _spec: Spec) -> OffersAnswer:
        return OffersAnswer(message="the disk is full")

    alone = plan(NOW, [build("x")], [], none, Capacity(overall=9))
    assert [r.reason for r in alone.rejects] == [Reason.NO_CAPACITY]
    beside = plan(NOW, [build("x")], [(None, instance("1"))], none, Capacity(overall=9))
    assert beside.waiting == {"x": "the disk is full"}
    patient = plan(NOW, [build("x", queue_timeout=1e6)], [], none, Capacity(overall=9))
    assert patient.waiting == {"x": "the disk is full"}
    unknown = plan(
        NOW, [build("x")], [], lambda _n, _s: OffersAnswer(later=True), Capacity(overall=9)
    )
    assert "x" in unknown.waiting


def test_a_refused_build_waits_its_while() -> None:
    refusals = {"x": Refusal(NOW + 1)}
    decided = plan(NOW, [build("x")], [], always, Capacity(overall=9), refusals=refusals)
    assert not decided.starts
    later = plan(NOW + 1, [build("x")], [], always, Capacity(overall=9), refusals=refusals)
    assert started(later) == ["x"]
