"""Questions to providers: what a tick gets while they are asked, and after they failed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.support.engine_parts import Later
from tests.support.inline_pool import Inline
from vmrunner.engine import provider_answers
from vmrunner.engine.provider_answers import ASKS, HOLDS, LONGEST_PAUSE, REMEMBERED, ProviderAnswers
from vmrunner.errors import BadOrder, NoCapacity, ProviderError, Throttled, Uncertain
from vmrunner.lib.threads import GIVE_UP, WorkerPool
from vmrunner.providers.fake import Clock


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_answers, "ANSWER_WAIT", 0.0)


class Desk:
    """Questions by a clock that a test moves. `made`: the calls; `error`: of them."""

    def __init__(self, pool: WorkerPool) -> None:
        self.clock = Clock()
        self.made: list[str] = []
        self.wakes = 0
        self.error: Exception | None = None
        self.answers = ProviderAnswers("cloud", lambda: pool, self.clock, self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def ask(self, key: str = "a", value: str = "") -> str:
        def work() -> str:
            self.made.append(key)
            if self.error is not None:
                raise self.error
            return value or key

        return self.answers.ask(key, work)

    def trouble(self, key: str = "a") -> str:
        with pytest.raises(ProviderError) as caught:
            self.ask(key)
        return str(caught.value)


def test_who_answers_at_once_is_asked_each_time() -> None:
    desk = Desk(Inline())
    assert [desk.ask(value=value) for value in ("1", "2", "3")] == ["1", "2", "3"]
    assert desk.wakes == 0  # else a tick would ask for the next one


def test_a_slow_answer_wakes_and_is_had_later() -> None:
    pool = Later()
    desk = Desk(pool)
    assert desk.trouble() == "cloud did not answer yet"
    desk.trouble()
    assert desk.made == []
    pool.run()
    assert (desk.made, desk.wakes) == (["a"], 1)
    assert desk.ask() == "a"


def test_the_last_answer_holds_for_a_while() -> None:
    pool = Later()
    desk = Desk(pool)
    desk.trouble()
    pool.run()
    assert desk.ask(value="new") == "a"
    desk.clock.advance(HOLDS)
    assert desk.ask() == "a"
    desk.clock.advance(1)
    assert desk.trouble() == "cloud did not answer yet"
    pool.run()
    assert desk.ask() == "new"


@pytest.mark.parametrize("kind", [BadOrder, NoCapacity])
def test_a_no_is_an_answer_without_a_pause(kind: type[ProviderError]) -> None:
    desk = Desk(Inline())
    desk.error = kind("no")
    assert [desk.trouble() for _ in range(3)] == ["no"] * 3
    assert len(desk.made) == 3
    desk.error = None
    assert desk.ask() == "a"


def test_a_failure_pauses_longer_each_time() -> None:
    desk = Desk(Inline())
    desk.error = Uncertain("timeout")
    when = []
    for _ in range(120):
        before = len(desk.made)
        assert desk.trouble() == "timeout"
        when += [desk.clock()] * (len(desk.made) - before)
        desk.clock.advance(1)
    pauses = [later - sooner for sooner, later in pairwise(when)]
    assert pauses[:4] == [1, 2, 4, 8]
    assert set(pauses[4:]) == {LONGEST_PAUSE}


def test_silence_pauses_every_question_and_a_throttle_one() -> None:
    desk = Desk(Inline())
    assert desk.ask("b") == "b"
    desk.error = Throttled("slow down")
    assert desk.trouble("a") == "slow down"
    desk.error = None
    assert desk.ask("b") == "b"
    desk.clock.advance(1)
    desk.error = Uncertain("timeout")
    assert desk.trouble("a") == "timeout"
    before = len(desk.made)
    assert desk.trouble("c") == "timeout"  # and is not asked
    assert desk.ask("b") == "b"  # as it answered a moment ago
    assert len(desk.made) == before


def test_a_drivers_bug_is_told_and_ends_no_tick(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(Inline())
    desk.error = KeyError("subnets")
    assert desk.trouble() == "cloud: 'subnets'"
    assert "KeyError" in caplog.text


def test_what_never_answers_takes_a_few_threads_alone() -> None:
    pool = Later()
    desk = Desk(pool)
    for n in range(10 * ASKS):
        desk.trouble(str(n))
    assert len(pool._waiting) == ASKS
    desk.clock.advance(GIVE_UP)
    assert desk.trouble("0") == "cloud does not answer"


def test_no_more_answers_are_remembered_than_can_be_used() -> None:
    desk = Desk(Inline())
    for n in range(2 * REMEMBERED):
        desk.ask(str(n))
    assert len(desk.answers._questions) == REMEMBERED
