"""A local cloud as a service: an endpoint on loopback, and VMs behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import HTTPServer
from typing import Final, Generic, Protocol, Self, TypeVar

from vmrunner_localclouds.common.faults import FaultPlan, FaultSubject, RequestFate
from vmrunner_localclouds.common.virtual_clock import Timeline
from vmrunner_localclouds.vms import VmFleet, Vms

HOST: Final = "127.0.0.1"


class HttpEndpoint:
    """The server of one cloud, in a thread of its own."""

    _server: HTTPServer | None = None

    def make(self, port: int) -> HTTPServer:
        raise NotImplementedError

    @property
    def url(self) -> str:
        assert self._server is not None, "it is not started"
        return f"http://{HOST}:{self._server.server_port}"

    def start(self, port: int = 0) -> None:
        self._server = server = self.make(port)
        self._thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class CloudRequest(FaultSubject, Protocol):
    """A request, as far as every cloud knows it."""

    @property
    def key(self) -> str:
        """The caller's token, or access key."""


class CloudMachine(Protocol):
    """A machine, as far as every cloud knows it."""

    @property
    def instance(self) -> str:
        """The id that vmrunner gave it."""

    @property
    def alive(self) -> bool: ...


M = TypeVar("M", bound=CloudMachine)
R = TypeVar("R", bound=CloudRequest)
T = TypeVar("T")


class LocalService(Timeline, Generic[M, R, T]):
    """A cloud of machines `M` that can be started and stopped. Requests `R` are answered, or meet
    a fate: a `T`, or one that all clouds have."""

    _endpoint: HttpEndpoint

    def __init__(
        self, clock: Callable[[], float], faults: FaultPlan[R, RequestFate | T], vms: Vms | None
    ) -> None:
        super().__init__(clock)
        self.faults = faults
        self.refused: dict[str, RequestFate] = {}  # keys of requests that are not accepted
        self.requests: list[R] = []  # all that came
        self.machines: list[M] = []  # all that ever was
        self.bodies = VmFleet(self, vms) if vms is not None else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, port: int = 0) -> None:
        """Listen on 127.0.0.1; port 0 takes a free one."""
        self._endpoint.start(port)
        if self.bodies is not None:
            self.bodies.start()

    def stop(self) -> None:
        """Stop: no request is answered any more, and no VM is left."""
        self._endpoint.stop()
        if self.bodies is not None:
            self.bodies.stop()

    @property
    def url(self) -> str:
        return self._endpoint.url

    # --- what is there ---

    def of(self, instance: str) -> list[M]:
        """All machines that carry this id of vmrunner's, in order of creation."""
        self.settle()
        return [machine for machine in self.machines if machine.instance == instance]

    @property
    def alive(self) -> list[M]:
        """All machines that exist, with no delete accepted."""
        self.settle()
        return [machine for machine in self.machines if machine.alive]

    # --- who asks ---

    def count(self, action: str) -> int:
        """Number of requests for an action."""
        return sum(request.action == action for request in self.requests)

    def plan(self, request: R) -> RequestFate | T | None:
        """The fate of a request before it is looked at; None: no fault is planned."""
        return self.refused.get(request.key) or self.faults.plan(request)
