"""A local cloud as a service: an endpoint on loopback, and VMs behind it."""

from __future__ import annotations

import threading
from http.server import HTTPServer
from typing import TYPE_CHECKING, Final, Self

from vmrunner.testing.common.virtual_clock import Timeline

if TYPE_CHECKING:
    from vmrunner.testing.vms import VmFleet

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


class LocalService(Timeline):
    """A cloud that can be started and stopped."""

    _endpoint: HttpEndpoint
    bodies: VmFleet | None

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
