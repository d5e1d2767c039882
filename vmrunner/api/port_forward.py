"""A port of a sandbox, on this machine's loopback."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from typing import TYPE_CHECKING, Final, Self

from vmrunner.errors import VmrunnerError

if TYPE_CHECKING:
    from vmrunner.services.protocols import SandboxAccess

log = logging.getLogger("vmrunner")

ACCEPT_RETRY: Final = 0.5  # seconds from a connection that could not be taken to the next


class PortForward:
    """A port of this machine's loopback that leads to a port of a sandbox until it is closed.
    `address`: ("127.0.0.1", port). Every user of this machine can connect; the sandbox sees
    connections from its own loopback."""

    def __init__(self, client: SandboxAccess, port: int, local: int) -> None:
        """`local`: the port here; 0: any."""
        self._client = client
        self._port = port
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", local))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        threading.Thread(target=self._serve, name=f"forward {port}", daemon=True).start()

    def __repr__(self) -> str:
        return f"<PortForward {self.url} to port {self._port}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Port on this machine."""
        return self.address[1]

    @property
    def url(self) -> str:
        """HTTP address of the port on this machine."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Accept no more connections. Open ones go on."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed; or no descriptor is left, until another is closed
                self._closed.wait(ACCEPT_RETRY)
                continue
            threading.Thread(target=self._relay, args=(connection,), daemon=True).start()

    def _relay(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._client.forward(self._port, connection)
            except VmrunnerError as error:
                log.info("forward: %s", error)  # its caller finds it closed
