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


def test_an_answer_to_another_version_waits_its_pause() -> None:
    clock = [0.0]
    kept = KeptAnswers[str](30.0, now=lambda: clock[0])

    def get(at: float, version: int, took: float = 1.0) -> str:
        def make() -> str:
            clock[0] += took
            return f"of {version}"

        clock[0] = at
        return kept.get("a", make, version)

    assert get(0.0, 1) == "of 1"
    assert get(20.9, 2) == "of 1", "twenty times what it took"
    assert get(21.0, 2, took=0.0) == "of 2"
    assert get(21.0, 3, took=60.0) == "of 3", "what costs nothing is never late"
    assert get(110.9, 4) == "of 3"
    assert get(111.0, 4) == "of 4", "the longest time holds all the same"
    assert get(141.9, 4) == "of 4", "what has not changed is kept"


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
