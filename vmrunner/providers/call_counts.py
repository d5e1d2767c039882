"""Counts of the calls that a process makes through the port: one place for all drivers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from vmrunner.errors import (
    BadOrder,
    CredentialsRefused,
    NoCapacity,
    QuotaExceeded,
    Refused,
    Throttled,
    Uncertain,
)
from vmrunner.model import Fate, Outcome, Page
from vmrunner.providers.port import Provider

#: Methods of the port, and of what a driver may be able to do beside it.
OPERATIONS: Final = (
    "offers", "create", "look", "sweep", "delete", "console", "check", "arm", "seal", "lower",
    "park", "wake", "guarded_roles", "used",
)  # fmt: skip
OK: Final = "ok"
#: Of a call that returned, and told of something that failed: an item, or a page.
PARTLY: Final = "partly"
_OUTCOMES: Final[Mapping[type[Exception], str]] = {
    NoCapacity: "no_capacity",
    QuotaExceeded: "quota",
    Throttled: "throttled",
    CredentialsRefused: "credentials",
    BadOrder: "bad_order",
    Refused: "refused",
    Uncertain: "uncertain",
}


class ProviderCalls:
    """The calls of one process, by provider, operation and outcome. Safe in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Number of calls so far."""
        with self._lock:
            return dict(self._counts)

    def counted(self, provider: Provider) -> Provider:
        """Return the same driver, whose calls are counted from now on. Its methods are replaced
        one by one: what it can do beside the port is asked for by `isinstance`. One whose methods
        cannot be replaced, such as a frozen dataclass, is not counted."""
        for operation in OPERATIONS:
            method = getattr(provider, operation, None)
            if method is not None:
                wrap = self._pages if operation == "sweep" else self._call
                with suppress(AttributeError, TypeError):  # with slots the latter
                    setattr(provider, operation, wrap(provider.name, operation, method))
        return provider

    def _call(self, name: str, operation: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                answer = method(*args, **kwargs)
            except Exception as error:
                self._note(name, operation, _outcome(error))
                raise
            failed = operation == "delete" and any(map(_failed, answer.values()))
            self._note(name, operation, PARTLY if failed else OK)
            return answer

        return call

    def _pages(
        self, name: str, operation: str, method: Callable[[], Iterator[Page]]
    ) -> Callable[[], Iterator[Page]]:
        """The same of a sweep, which is over with its last page."""

        def call() -> Iterator[Page]:
            outcome = OK
            try:
                for page in method():
                    outcome = OK if outcome == OK and page.error is None else PARTLY
                    yield page
            except Exception as error:
                self._note(name, operation, _outcome(error))
                raise
            self._note(name, operation, outcome)

        return call

    def _note(self, *key: str) -> None:
        provider, operation, outcome = key
        with self._lock:
            self._counts[provider, operation, outcome] += 1


def _failed(outcome: Outcome) -> bool:
    return outcome.fate is Fate.FAILED


def _outcome(error: Exception) -> str:
    return next((word for kind, word in _OUTCOMES.items() if isinstance(error, kind)), "error")
