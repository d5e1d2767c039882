"""The listener: uvicorn in a thread beside the engine."""

from __future__ import annotations

import logging
import socket
import threading
from typing import TYPE_CHECKING, Final

import uvicorn

from vmrunner.errors import ConfigError
from vmrunner.lib import turns, units
from vmrunner.server import application
from vmrunner.server.client_leases import SubmitterWatch
from vmrunner.server.connections import CallerConnection
from vmrunner.server.websocket_connections import FRAME, PING, CallerWebSocket

if TYPE_CHECKING:
    from vmrunner.model import Principal
    from vmrunner.server.dependencies import ServerParts

log = logging.getLogger("vmrunner.server")

STOP_GRACE: Final = 5.0  # seconds that open requests get when it stops


class HttpListener:
    """An HTTP server of its own thread. It listens once it is made."""

    def __init__(
        self, address: tuple[str, int], parts: ServerParts, *, everybody: Principal | None = None
    ) -> None:
        """Raises ConfigError where the address cannot be had."""
        host, port = address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            self._socket.listen(512)
        except OSError as error:
            self._socket.close()
            raise ConfigError(
                f"server.listen: {host}:{port} cannot be had: {error.strerror}",
                hint="another address, or end what listens there",
            ) from None
        self.port: int = self._socket.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}"
        turns.often()
        self._submitters = SubmitterWatch(parts)
        self.app = application.make(parts, everybody=everybody)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                http=CallerConnection,  # on h11, which bounds a request's head
                ws=CallerWebSocket,
                ws_max_size=FRAME,
                ws_ping_interval=PING,
                ws_ping_timeout=PING,
                ws_per_message_deflate=False,  # a little of it is much, and costs each memory
                access_log=False,
                log_config=None,
                server_header=False,
                lifespan="off",
                proxy_headers=False,  # who calls is told by the token alone
                h11_max_incomplete_event_size=64 * 1024,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=int(STOP_GRACE),
            )
        )
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()
        self._submitters.start()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except Exception:
            log.exception("the HTTP server ended")

    def close(self) -> None:
        """End it: no new request, and a little time for those under way."""
        self._submitters.stop()
        self._server.should_exit = True
        self._thread.join(STOP_GRACE + 2)
        self._socket.close()


def parse(text: str) -> tuple[str, int]:
    """HOST:PORT, or [IPv6]:PORT. Raises ConfigError."""
    return units.address(text, "server.listen")


def is_loopback(host: str) -> bool:
    """True if only this host reaches it."""
    return units.is_loopback(host)
