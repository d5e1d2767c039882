"""Questions that each tick asks the providers again: answered by threads of theirs, waited for
shortly, remembered. A cloud that accepts and never answers holds up its own builds alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from vmrunner.errors import (
    BadOrder,
    CredentialsRefused,
    NoCapacity,
    ProviderError,
    QuotaExceeded,
    Uncertain,
    VmrunnerError,
)
from vmrunner.lib.backoff import backoff
from vmrunner.lib.threads import GIVE_UP, WorkerPool

log = logging.getLogger("vmrunner.engine")

T = TypeVar("T")

#: Seconds that a tick waits for an answer, once for a provider that keeps its answers back.
ANSWER_WAIT = 0.25
#: Seconds that nothing is asked again after a failure: doubled with each that follows.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 15.0
#: An answer counts for so many seconds while no newer one can be had.
HOLDS: Final = 60.0
ASKS: Final = 8  # threads a provider
REMEMBERED: Final = 256  # answers of a provider


#: Answers too, which hold like any other.
_NO: Final = (BadOrder, CredentialsRefused, NoCapacity, QuotaExceeded)


@dataclass(slots=True)
class _Question:
    """A question: its call on the way, and what came of those before. Times are monotonic."""

    call: Future[Any] | None = None
    sent_at: float = 0.0
    answer: Future[Any] | None = None  # the last call that was answered
    answered_at: float = 0.0
    trouble: ProviderError | None = None  # what went wrong since
    failures: int = 0
    again_at: float = float("-inf")


class ProviderAnswers:
    """The questions to one provider. Used by the tick's thread alone."""

    def __init__(
        self,
        name: str,
        pool: Callable[[], WorkerPool],
        monotonic: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._name = name
        self._pool = pool
        self._monotonic = monotonic
        self._wake = wake
        self._questions: dict[Hashable, _Question] = {}
        self._silence = _Question()  # stands for all: the provider did not answer

    def ask(self, key: Hashable, work: Callable[[], T]) -> T:
        """The answer of `work`: the present one, or a recent one where that takes long. Raises the
        `ProviderError` that it raised; `Uncertain` where there is no answer yet. What else goes
        wrong in a driver is logged, and `Uncertain` too."""
        now = self._monotonic()
        question = self._questions.pop(key, None) or _Question()
        self._questions[key] = question  # the last one of all
        self._collect(now)
        if question.call is None and now >= max(question.again_at, self._silence.again_at):
            self._send(question, work, now)
        self._trim()
        if question.trouble is not None:
            raise question.trouble
        if question.answer is not None and now <= question.answered_at + HOLDS:
            answer: T = question.answer.result()
            return answer
        raise self._silence.trouble or Uncertain(f"{self._name} did not answer yet")

    # --- within ---

    def _send(self, question: _Question, work: Callable[[], T], now: float) -> None:
        silent = sum(former.call is not None for former in self._questions.values())
        if silent >= ASKS:
            return
        question.call, question.sent_at = self._pool().submit(work), now
        if not silent:
            wait([question.call], ANSWER_WAIT)
        if question.call.done():
            self._take(question, now)
        else:
            question.call.add_done_callback(lambda _: self._wake())

    def _collect(self, now: float) -> None:
        for question in self._questions.values():
            if question.call is None:
                continue
            if question.call.done():
                self._take(question, now)
            elif now >= question.sent_at + GIVE_UP:
                question.call = None
                self._failed(question, Uncertain(f"{self._name} does not answer"), now)

    def _take(self, question: _Question, now: float) -> None:
        call, question.call = question.call, None
        assert call is not None
        error = call.exception()
        if error is None or isinstance(error, _NO):
            question.answer, question.answered_at = call, now
            question.trouble, question.failures = None, 0
            self._silence = _Question()
        else:
            self._failed(question, error, now)

    def _failed(self, question: _Question, error: BaseException, now: float) -> None:
        """Pause the question; the provider as a whole where that was no answer at all."""
        if not isinstance(error, VmrunnerError):
            log.error("%s: %s", self._name, error, exc_info=error)
        if not isinstance(error, ProviderError):
            error = Uncertain(f"{self._name}: {error}")
        for each in (question, self._silence) if isinstance(error, Uncertain) else (question,):
            each.again_at = now + backoff(FIRST_PAUSE, each.failures, LONGEST_PAUSE)
            each.failures += 1
            each.trouble = error

    def _trim(self) -> None:
        while len(self._questions) > REMEMBERED:
            oldest = next(key for key, question in self._questions.items() if question.call is None)
            del self._questions[oldest]
