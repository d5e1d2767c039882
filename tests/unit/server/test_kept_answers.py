"""Answers that are kept."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from vmrunner.server.kept_answers import MOST_KEPT, KeptAnswers


def test_an_answer_is_made_again_when_it_is_old() -> None:
    clock = [0.0]
    kept = KeptAnswers[float](30.0, now=lambda: clock[0])
    assert [kept.get("a", lambda: clock[0]) for clock[0] in (0.0, 29.0, 30.0)] == [0.0, 0.0, 30.0]
    assert kept.get("b", lambda: 7.0) == 7.0


def test_two_who_ask_at_once_get_one_answer() -> None:
    kept, go, made = KeptAnswers[int](30.0), threading.Event(), []

    def make() -> int:
        made.append(1)
        assert go.wait(20)
        return len(made)

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(kept.get, "a", make) for _ in range(2)]
        go.set()
        assert [answer.result(20) for answer in answers] == [1, 1]


def test_answers_do_not_pile_up() -> None:
    kept = KeptAnswers[int](30.0)
    for number in range(MOST_KEPT + 50):
        kept.get(number, lambda: 0)
    assert len(kept._kept) == len(kept._making) == MOST_KEPT
