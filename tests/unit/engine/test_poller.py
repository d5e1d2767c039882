"""Looks: whose turn it is, and what a place that does not answer means for the others."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.reaper_inputs import OTHER, SCOPE, I, row
from vmrunner.core.reachability import Reachability
from vmrunner.engine.poller import DARK, LONGEST_PAUSE, SLOWEST, InstancePoller
from vmrunner.errors import ProviderError, Throttled, Uncertain
from vmrunner.model import Instance, Key, Kind, Offer, Power, Ref, Scope, Seen
from vmrunner.providers import LookPace

SLOW = LookPace().steady


@dataclass
class Bench:
    """A watcher at a cloud in which each look takes `seconds`."""

    seconds: float = 0.0
    dead: set[Scope] = field(default_factory=set)
    now: float = 1000.0
    calls: list[tuple[float, list[str]]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    throttled: dict[str, float] = field(default_factory=dict)  # instance → until
    look_every: LookPace = field(default_factory=LookPace)
    _open: list[tuple[float, Future[Any], Callable[[], Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        context: Any = SimpleNamespace(
            monotonic=lambda: self.now,
            delete_threads=lambda name: self,
            wake=lambda: None,
            providers={"p": self},
            now=lambda row: self.now,
            guard=self._guard,
        )
        self.watcher = InstancePoller(context)

    @contextlib.contextmanager
    def _guard(self, doing: str) -> Iterator[None]:
        try:
            yield
        except ProviderError:
            self.troubles.append(doing)

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        call: Future[Any] = Future()
        self._open.append((self.now + self.seconds, call, work))
        self.settle()
        return call

    def settle(self) -> None:
        for entry in [entry for entry in self._open if entry[0] <= self.now]:
            self._open.remove(entry)
            try:
                entry[1].set_result(entry[2]())
            except ProviderError as error:
                entry[1].set_exception(error)

    def look(self, keys: Sequence[Key]) -> dict[Key, Seen]:
        self.calls.append((self.now, [key.instance for key in keys]))
        if {key.scope for key in keys} & self.dead:
            raise Uncertain("timeout")
        free = [key for key in keys if self.throttled.get(key.instance, 0.0) <= self.now]
        if not free:
            name = keys[0].instance
            raise Throttled("429", instance=name, wait=self.throttled[name] - self.now)
        ref = lambda key: Ref(key.scope, Kind.INSTANCE, key.instance)  # noqa: E731
        return {key: Seen(ref=ref(key), power=Power.RUNNING) for key in free}

    def run(self, rows: list[Instance], seconds: float, tick: float = 0.25) -> set[str]:
        seen: set[str] = set()
        until = self.now + seconds
        while self.now < until:
            such = [r.id for r in rows if r.state is not I.BUSY or not self.watcher.knows(r)]
            self.watcher.poll({r.id: r for r in rows}, such, lambda _: False)
            self.settle()
            seen |= self.watcher.observations().keys()
            self.now += tick
        return seen


def booting(name: str, since: float, **options: Any) -> Instance:
    return row(name, state=I.BOOTING, state_since=since, **options)


def at(scope: Scope, name: str, **options: Any) -> Instance:
    return row(name, offer=Offer(scope=scope, machine_type="m", place="z"), **options)


@pytest.mark.parametrize("seconds", [0.1, 1.0, 2.0])
def test_a_newborn_is_looked_at_within_seconds_among_ten_thousand(seconds: float) -> None:
    bench = Bench(seconds)
    rows = [row(f"vm-{n:06}") for n in range(10_000)]
    bench.run(rows, 12, tick=1.0)
    newborn = row("vm-999999", state=I.BOOTING, state_since=bench.now)
    assert "vm-999999" in bench.run([*rows, newborn], 2 * seconds + 2, tick=1.0)


def test_each_of_too_many_to_see_has_its_turn() -> None:
    bench = Bench(seconds=10.0)
    rows = [row(f"vm-{n:06}") for n in range(20_000)]
    assert len(bench.run(rows, 40, tick=5.0)) == len(rows)


def test_whoever_finds_no_free_slot_waits_for_the_next() -> None:
    bench = Bench()
    rows = [row(f"vm-{n:06}") for n in range(20_000)]
    bench.run(rows, 1)
    bench.seconds, bench.now = SLOW, bench.now + SLOW
    assert len(bench.run(rows, 2 * SLOW + 6, tick=5.0)) == len(rows)


def test_what_changes_waits_for_no_other_look() -> None:
    bench = Bench(seconds=1.0)
    first, steady, second = booting("vm-1", bench.now), row("vm-2"), booting("vm-3", bench.now)
    bench.run([first], 0.25)
    bench.run([first, steady], 0.25)
    bench.run([first, steady, second], 1.25)
    assert bench.calls[:2] == [(1001.0, ["vm-1"]), (1001.5, ["vm-3", "vm-2"])]


def test_a_vm_that_was_anothers_has_its_turn_again() -> None:
    bench = Bench()
    mine = row("vm-1")
    bench.run([mine], 1)
    bench.run([], 2 * SLOW)
    assert bench.run([mine], 2 * SLOW) == {"vm-1"}


def test_few_are_looked_at_in_one_call_without_overlap() -> None:
    bench = Bench(seconds=1.0)
    rows = [row(f"vm-{n}", state=I.BOOTING, state_since=bench.now) for n in range(3)]
    bench.run(rows, 10)
    starts = [when for when, _ in bench.calls]
    assert all(later - sooner >= 1.0 for sooner, later in pairwise(starts))
    assert all(sorted(names) == ["vm-0", "vm-1", "vm-2"] for _, names in bench.calls)


def test_a_place_that_does_not_answer_hides_no_other() -> None:
    bench = Bench(dead={OTHER})
    assert bench.run([at(SCOPE, "vm-1"), at(OTHER, "vm-2")], 1) == {"vm-1"}
    assert bench.troubles == ["look at p in y"]


def test_a_place_counts_as_seen_while_it_answers() -> None:
    bench = Bench()
    rows = [at(SCOPE, "vm-1"), at(OTHER, "vm-2")]
    began = bench.now
    assert bench.watcher.since(rows, 5000.0) == {SCOPE: math.inf, OTHER: math.inf}
    bench.run(rows, 3 * SLOW, tick=1.0)
    provider_now = 5000.0 + bench.now - began  # its own clock
    assert bench.watcher.since(rows, provider_now) == {SCOPE: 5000.0, OTHER: 5000.0}
    bench.dead = {OTHER}
    bench.run(rows, DARK + SLOW, tick=1.0)
    provider_now = 5000.0 + bench.now - began
    assert bench.watcher.since(rows, provider_now) == {SCOPE: 5000.0, OTHER: math.inf}
    bench.dead = set()
    back = bench.now
    bench.run(rows, 2 * SLOW, tick=1.0)
    provider_now = 5000.0 + bench.now - began
    since = bench.watcher.since(rows, provider_now)
    assert since[SCOPE] == 5000.0
    assert 0 <= since[OTHER] - (5000.0 + back - began) <= SLOW


def test_a_new_state_is_a_new_turn() -> None:
    bench = Bench()
    instance = row("vm-1")
    bench.run([instance], 1)
    assert len(bench.calls) == 1
    bench.run([replace(instance, state=I.DELETING, state_since=bench.now)], 0.25)
    assert len(bench.calls) == 2


def test_what_was_lost_is_seen_anew() -> None:
    reachability = Reachability()
    reachability.record(SCOPE, 10.0)
    reachability.record(SCOPE, 500.0)
    assert reachability.since([SCOPE], 600.0, 600.0) == {SCOPE: 10.0}
    reachability.lost(SCOPE)
    assert reachability.since([SCOPE], 600.0, 600.0) == {SCOPE: math.inf}
    reachability.record(SCOPE, 700.0)
    assert reachability.since([SCOPE], 800.0, 1800.0) == {SCOPE: 1700.0}


def test_a_driver_says_how_often_its_vms_are_looked_at() -> None:
    paced, plain = Bench(look_every=LookPace(fresh=2.0, changing=6.0, steady=20.0)), Bench()
    counts = []
    for bench in (paced, plain):
        rows = [booting("vm-1", bench.now)]
        for seconds in (60.0, 60.0):
            before = len(bench.calls)
            bench.run(rows, seconds)
            counts.append(len(bench.calls) - before)
    assert counts == [30, 10, 240, 30]


def test_no_pace_lets_a_place_that_answers_count_as_dark() -> None:
    bench = Bench(look_every=LookPace(steady=3600.0))
    rows = [row("vm-1")]
    bench.run(rows, 10 * DARK, tick=1.0)
    assert bench.watcher.since(rows, bench.now) != {SCOPE: math.inf}
    assert {later[0] - sooner[0] for sooner, later in pairwise(bench.calls)} == {SLOWEST}


def test_a_refusal_about_one_vm_pauses_that_alone(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.throttled["vm-1"] = bench.now + 60
    rows = [booting("vm-1", bench.now)]
    assert bench.run(rows, 55) == set()
    assert len(bench.calls) == len(caplog.records) == 1  # and once told
    rows.append(booting("vm-2", bench.now))
    assert bench.run(rows, 1) == {"vm-2"}
    assert bench.run(rows, 6) == {"vm-1", "vm-2"}


def test_a_place_that_fails_is_asked_less_and_told_rarely() -> None:
    bench = Bench(dead={SCOPE})
    rows = [booting("vm-1", bench.now), at(OTHER, "vm-2", state=I.BOOTING, state_since=bench.now)]
    bench.run(rows, 50)
    failed = [when for when, names in bench.calls if names == ["vm-1"]]
    pauses = [later - sooner for sooner, later in pairwise(failed)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    assert len(bench.troubles) == 1
    assert len(bench.calls) > 200  # the other place as often as ever
    bench.dead = set()
    assert "vm-1" in bench.run(rows, LONGEST_PAUSE + 1)
    before = len(bench.calls)
    bench.run([booting("vm-1", bench.now)], 2)
    assert len(bench.calls) >= before + 7
