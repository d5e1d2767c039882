"""Faults of requests, on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar


class FaultSubject(Protocol):
    """The part of a request that selects its fate."""

    @property
    def action(self) -> str: ...


class RequestFate(NamedTuple):
    """One request's fate. `happens`: its effect comes first. Without a code there is no answer: the
    connection breaks. `garbage` is sent instead of an error document."""

    code: str = ""
    status: int = 400
    message: str = ""
    happens: bool = False
    garbage: bytes = b""


LOST_REQUEST: Final = RequestFate()
LOST_ANSWER: Final = RequestFate(happens=True)
GARBAGE: Final = RequestFate("Garbage", 200, garbage=b"<html>a proxy says hello")

R = TypeVar("R", bound=FaultSubject)
T = TypeVar("T")


class FaultPlan(Generic[R, T]):
    """The fates of requests `R`, each a `T`. A standing rule comes before an action's queue."""

    def __init__(self) -> None:
        self.on_request: Callable[[R], T | None] | None = None
        self.denied: set[str] = set()
        self._next: dict[str, deque[T | None]] = {}

    def fail(self, action: str, *troubles: T | None) -> None:
        """Plan the fates of the next requests for `action`; None: that one is answered normally."""
        self._next.setdefault(action, deque()).extend(troubles)

    def deny(self, *actions: str) -> None:
        """Deny these to every caller, until `allow`."""
        self.denied.update(actions)

    def allow(self, *actions: str) -> None:
        self.denied.difference_update(actions)

    def plan(self, request: R) -> T | None:
        """The fate of this request; None: no fault is planned."""
        if self.on_request is not None and (found := self.on_request(request)) is not None:
            return found
        if request.action in self.denied:
            return self.denial(request)
        queue = self._next.get(request.action)
        return queue.popleft() if queue else None

    def denial(self, request: R) -> T:
        """This cloud's message for a denial."""
        raise NotImplementedError
