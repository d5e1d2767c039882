from __future__ import annotations

import threading

import pytest

from tests.support.scripted_app import wait_until
from vmrunner.lib.fair_limit import FairLimit


def test_a_place_goes_to_who_waited_longest() -> None:
    limit, order = FairLimit(1), list[int]()

    def enter(n: int) -> None:
        with limit.place(30):
            order.append(n)

    threads = [threading.Thread(target=enter, args=(n,)) for n in range(3)]
    with limit.place(0):
        for n, thread in enumerate(threads):
            thread.start()
            wait_until(lambda n=n: len(limit._waiting) == n + 1)  # type: ignore[misc]
    with limit.place(30):  # whoever had it comes back at once, and is the last
        assert order == [0, 1, 2]
    for thread in threads:
        thread.join()


def test_who_waited_in_vain_leaves_no_place_taken() -> None:
    limit = FairLimit(1)
    with limit.place(0), pytest.raises(TimeoutError), limit.place(0.01):
        raise AssertionError("there was no place")
    with limit.place(0), pytest.raises(TimeoutError), limit.place(0):
        raise AssertionError("there was no place")


def test_a_failure_inside_gives_the_place_back() -> None:
    limit = FairLimit(1)
    with pytest.raises(ZeroDivisionError), limit.place(0):
        raise ZeroDivisionError
    with limit.place(0):
        pass
