"""Clouds of which every request is handled here, and held against the service's own types."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http.server import HTTPServer
from typing import Any, Generic

from vmrunner_localclouds.common.faults import FaultPlan, RequestFate
from vmrunner_localclouds.common.http_server import HttpAnswer, LoopbackServer
from vmrunner_localclouds.common.service import HttpEndpoint, LocalService, M, R, T
from vmrunner_localclouds.vms import Vms

log = logging.getLogger(__name__)


class JsonCloud(LocalService[M, R, T]):
    """The cloud. With a virtual clock, `sleep` advances it while a client waits."""

    def __init__(
        self,
        clock: Callable[[], float],
        sleep: Callable[[float], object] | None,
        faults: FaultPlan[R, RequestFate | T],
        vms: Vms | None,
    ) -> None:
        super().__init__(clock, faults, vms)
        self.obeys = clock is not time.time  # time passes while a client polls
        self.sleep = sleep or (time.sleep if not self.obeys else lambda _: None)
        self.answer_seconds: dict[str, float] = {}  # action → so long its answers take
        self.rejected: list[str] = []  # requests that the service's types do not allow
        self.complaints: list[str] = []  # where this cloud itself was wrong

    def __exit__(self, kind: object = None, *_: object) -> None:
        self.stop()
        if kind is None and self.complaints:
            raise AssertionError(f"{type(self).__name__} was wrong:\n" + "\n".join(self.complaints))


class JsonEndpoint(HttpEndpoint, Generic[R, T]):
    """The server of one cloud, which answers requests one at a time."""

    name: str  # for the header `Server`

    def __init__(self, cloud: JsonCloud[Any, R, T]) -> None:
        self._cloud = cloud

    def make(self, port: int) -> HTTPServer:
        return LoopbackServer(self, port)

    def date(self) -> str:
        """The date for the header of every answer."""
        return formatdate(self._cloud.now(), usegmt=True)

    def serve(
        self, verb: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> HttpAnswer | None:
        """Answer a request; None when the client hears nothing."""
        cloud, request = self._cloud, self.read(verb, target, headers, body)
        self.pause(request)
        answer = self._decided(request)
        if seconds := cloud.answer_seconds.get(request.action):
            cloud.sleep(seconds)
        return answer

    # --- how this cloud does it ---

    @abstractmethod
    def read(self, verb: str, target: str, headers: Mapping[str, str], body: bytes) -> R:
        """A request from what came over HTTP."""

    @abstractmethod
    def pause(self, request: R) -> None:
        """Let time pass before the answer, without the lock."""

    @abstractmethod
    def handle(self, request: R, broken: T | None) -> HttpAnswer:
        """Execute a request, and answer. `broken`: its operation ends in this."""

    @abstractmethod
    def refuse(self, fate: RequestFate) -> HttpAnswer:
        """An error document."""

    # --- within ---

    def _decided(self, request: R) -> HttpAnswer | None:
        cloud = self._cloud
        with cloud.lock:
            cloud.settle()
            cloud.requests.append(request)
            fate = cloud.plan(request)
            if not isinstance(fate, RequestFate):
                return self._handled(request, fate)
            if fate.happens:
                self._handled(request, None)
        if fate.garbage:
            return HttpAnswer(fate.status, fate.garbage, "text/html")
        return self.refuse(fate) if fate.code else None

    def _handled(self, request: R, broken: T | None) -> HttpAnswer:
        try:
            return self.handle(request, broken)
        except Exception as error:
            # Ours to mend, and no test may pass over it.
            log.exception("%s", request.action)
            self._cloud.complaints.append(f"{request.action}: {type(error).__name__}: {error}")
            return self.refuse(RequestFate(type(self._cloud).__name__, 500, str(error)))
