"""A request of plain HTTP, taken apart and put together anew: what goes on is what was checked.
Pure.

One request a connection. A second one could name another host, and bytes that two programs read
differently could hide it: h11 reads strictly, and writes what goes to the server itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import h11

from vmrunner.providers.qemu.allow.client_hello import HelloRefused, host_name

#: Bytes that a request's head may take.
LONGEST_HEAD: Final = 16384
#: Of one connection, or a way to make something else of it.
_HOP: Final = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"trailer",
    b"upgrade", b"http2-settings",
})  # fmt: skip


class HttpRequest:
    """One request as it arrives, and as it goes on."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._from = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
        self._to = h11.Connection(h11.CLIENT)
        self._head: h11.Request | None = None
        self.done = False  # nothing more of it comes

    def feed(self, data: bytes) -> None:
        """Take in what came; b"": the client sends no more. Raises HelloRefused."""
        try:
            self._from.receive_data(data)
        except (h11.RemoteProtocolError, RuntimeError) as error:
            raise HelloRefused(str(error)) from None

    def host(self) -> str | None:
        """Return the host that is asked for; None while that is not known. Raises HelloRefused."""
        event = self._next()
        if event in (h11.NEED_DATA, h11.PAUSED):
            return None
        if not isinstance(event, h11.Request):
            raise HelloRefused("no request")
        if event.method == b"CONNECT" or not (
            event.target.startswith(b"/") or event.target == b"*"
        ):
            raise HelloRefused("a request to a proxy")
        hosts = [value for name, value in event.headers if name == b"host"]
        if len(hosts) != 1:
            raise HelloRefused("not one Host")
        name, colon, port = hosts[0].decode("ascii", "replace").partition(":")
        if colon and port != str(self._port):
            raise HelloRefused("another port")
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
            raise HelloRefused("two lengths")  # the server may take the other one
        self._head = event
        return host_name(name)

    def sent(self) -> Iterator[bytes]:
        """Yield what of it is to be sent on now. Raises HelloRefused."""
        if self._head is not None:
            headers = [(n, v) for n, v in self._head.headers if n not in _HOP]
            yield self._send(
                h11.Request(
                    method=self._head.method,
                    target=self._head.target,
                    headers=[*headers, (b"connection", b"close")],
                )
            )
            self._head = None
        while not self.done:
            event = self._next()
            if isinstance(event, h11.Data):
                yield self._send(h11.Data(data=bytes(event.data)))
            elif isinstance(event, h11.EndOfMessage):
                self.done = True
                yield self._send(h11.EndOfMessage())
            elif event in (h11.NEED_DATA, h11.PAUSED):
                return
            else:
                raise HelloRefused("no request")

    def _send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> bytes:
        try:
            return self._to.send(event) or b""
        except h11.LocalProtocolError as error:
            raise HelloRefused(str(error)) from None

    def _next(self) -> object:
        try:
            return self._from.next_event()
        except h11.RemoteProtocolError as error:
            raise HelloRefused(str(error)) from None


def refusal(status: int, text: str) -> bytes:
    """Return a whole answer that says no."""
    reason = {403: "Forbidden", 502: "Bad Gateway"}[status]
    body = f"vmrunner: {text}\n".encode()
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
