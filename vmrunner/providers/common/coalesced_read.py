"""Reads of single things that are made together: one call for all who ask while another call is
under way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class _Question(Generic[K, V]):
    def __init__(self, key: K) -> None:
        self.key = key
        self.value: V | None = None
        self.failed: Exception | None = None
        self.answered = False


class CoalescedRead(Generic[K, V]):
    """`read` gives what it found of several keys. An answer was always read after its question:
    who asks while a call is under way is part of the next one."""

    def __init__(self, read: Callable[[Sequence[K]], Mapping[K, V]]) -> None:
        self._read = read
        self._waiting: deque[_Question[K, V]] = deque()
        self._turn = threading.Lock()

    def __call__(self, key: K) -> V | None:
        """The value of that key, None where there is none. Raises what `read` raised."""
        question = _Question[K, V](key)
        self._waiting.append(question)
        with self._turn:
            if not question.answered:
                self._answer_all()
        if question.failed is not None:
            raise question.failed
        return question.value

    def _answer_all(self) -> None:
        """Read for all that wait, in the turn of one of them."""
        questions = [self._waiting.popleft() for _ in range(len(self._waiting))]
        values: Mapping[K, V] = {}
        failed: Exception | None = None
        try:
            values = self._read([question.key for question in questions])
        except Exception as error:  # noqa: BLE001 - each of them raises it
            failed = error
        for question in questions:
            question.value, question.failed = values.get(question.key), failed
            question.answered = True
