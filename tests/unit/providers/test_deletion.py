"""Deleting until it is seen dead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vmrunner.model import Fate, Key, Kind, Outcome, Power, Ref, Seen
from vmrunner.providers.deletion import DELETE_RETRY, DeletionProgress, delete_until_dead
from vmrunner.providers.fake import SCOPE, Clock, Cloud, FakeProvider

REF = Ref(SCOPE, Kind.INSTANCE, "i-1")
KEY = Key(SCOPE, "vm-1", "i-1")


@dataclass
class Tough:
    """One VM that dies by force alone, or never."""

    clock: Clock = field(default_factory=Clock)
    refuses: tuple[bool, ...] = ()  # asked by force or not: is it refused?
    dies: bool = True
    hidden: int = 0  # looks that do not show it
    forced: list[bool] = field(default_factory=list)

    def provider(self) -> FakeProvider:
        tough = self

        class Provider(FakeProvider):
            def delete(self, refs: Sequence[Ref], *, force: bool = False) -> Mapping[Ref, Outcome]:
                tough.forced.append(force)
                failed = force in tough.refuses
                return {ref: Outcome(fate=Fate.FAILED if failed else Fate.ACCEPTED) for ref in refs}

            def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
                tough.hidden -= 1
                if tough.hidden >= 0:
                    return {}
                dead = tough.dies and True in tough.forced
                return {
                    key: Seen(ref=REF, power=Power.DEAD if dead else Power.STOPPING) for key in ids
                }

        return Provider("p", Cloud(self.clock))

    def deleted(
        self, seconds: float = 100.0, *, ref: Ref | None = REF, **options: Any
    ) -> DeletionProgress:
        return delete_until_dead(
            self.provider(), {KEY: ref}, seconds=seconds, sleep=self.clock.sleep, **options
        )


def test_what_is_refused_is_asked_again_by_force_at_once() -> None:
    tough = Tough(refuses=(False,))
    assert tough.deleted(0).dead == {KEY}
    assert tough.forced == [False, True]


def test_what_lives_on_is_forced() -> None:
    tough, began = Tough(), Clock()()
    assert tough.deleted().dead == {KEY}
    assert tough.forced == [False, True]
    assert tough.clock() - began >= DELETE_RETRY


def test_what_is_refused_by_force_too_is_not_waited_for() -> None:
    tough = Tough(refuses=(False, True))
    outcome = tough.deleted()
    assert not outcome.waiting
    assert not outcome.dead
    assert outcome.outcomes[REF].fate is Fate.FAILED
    assert tough.forced == [False, True]


def test_what_never_dies_is_waited_for_until_time_runs_out() -> None:
    tough = Tough(dies=False)
    outcome = tough.deleted(70.0, force=True)
    assert outcome.waiting == {KEY}
    assert not outcome.dead
    assert tough.forced == [True, True, True]


def test_what_is_not_visible_is_not_waited_for() -> None:
    tough = Tough(hidden=1)
    outcome = tough.deleted(ref=None)
    assert (outcome.waiting, outcome.dead, tough.forced) == (set(), set(), [])


def test_the_invisible_is_waited_for_until_others_know_its_end() -> None:
    tough = Tough(hidden=5)
    assert tough.deleted(ref=None, force=True, closed=lambda: False).dead == {KEY}
    assert tough.forced == [True]


def test_nothing_is_waited_for_whose_end_others_know() -> None:
    tough, began = Tough(hidden=10**6), Clock()()
    assert not tough.deleted(closed=lambda: tough.clock() - began > 5).dead
    assert 5 < tough.clock() - began < 10


def test_what_was_asked_before_is_only_looked_at() -> None:
    tough = Tough(forced=[True])
    assert tough.deleted(ask=False).dead == {KEY}
    assert tough.forced == [True]
