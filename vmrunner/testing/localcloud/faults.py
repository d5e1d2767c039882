"""What goes wrong with requests, on demand.

cloud.faults.fail("RunInstances", LOST_ANSWER)          # the next one happens, unheard
cloud.faults.deny("DescribeVolumes")                    # from now on
cloud.faults.on_request = lambda request: …             # whatever a test thinks up
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from vmrunner.testing.localcloud.requests import Request


class Trouble(NamedTuple):
    """One request's fate. `happens`: its effect comes first. Without a code there is no answer: the
    connection breaks. `garbage` is sent instead of an error document."""

    code: str = ""
    status: int = 400
    message: str = ""
    happens: bool = False
    garbage: bytes = b""


LOST_REQUEST: Final = Trouble()
LOST_ANSWER: Final = Trouble(happens=True)
INTERNAL: Final = Trouble("InternalError", 500, "An internal error has occurred")
AFTER_ALL: Final = INTERNAL._replace(happens=True)
UNAVAILABLE: Final = Trouble("Unavailable", 503, "The service is unavailable")
THROTTLED: Final = Trouble("RequestLimitExceeded", 503, "Request limit exceeded.")
NO_CAPACITY: Final = Trouble(
    "InsufficientInstanceCapacity", 500, "There is no capacity for what was asked"
)
DENIED: Final = Trouble(
    "UnauthorizedOperation", 403, "You are not authorized to perform this operation."
)
GARBAGE: Final = Trouble("Garbage", 200, garbage=b"<html>a proxy says hello")

#: Services that do not say UnauthorizedOperation.
_DENIED_ELSEWHERE: Final = DENIED._replace(code="AccessDenied")


class Faults:
    """The plan. A standing rule comes before the queue of an action."""

    def __init__(self) -> None:
        self.on_request: Callable[[Request], Trouble | None] | None = None
        self.denied: set[str] = set()
        self._next: dict[str, deque[Trouble | None]] = {}

    def fail(self, action: str, *troubles: Trouble | None) -> None:
        """The next requests for `action` fare like this; None: all is well with that one."""
        self._next.setdefault(action, deque()).extend(troubles)

    def deny(self, *actions: str) -> None:
        """Nobody may do these, until `allow`."""
        self.denied.update(actions)

    def allow(self, *actions: str) -> None:
        self.denied.difference_update(actions)

    def plan(self, request: Request) -> Trouble | None:
        """What becomes of this request; None: nothing special."""
        if self.on_request is not None and (found := self.on_request(request)) is not None:
            return found
        if request.action in self.denied:
            text = f"{DENIED.message} {request.action}"
            denied = DENIED if request.service == "ec2" else _DENIED_ELSEWHERE
            return denied._replace(message=text)
        queue = self._next.get(request.action)
        return queue.popleft() if queue else None
