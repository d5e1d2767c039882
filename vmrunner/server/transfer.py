"""The way of an answer to its caller: none where he has it already, packed where he likes that, and
its head alone for HEAD."""

from __future__ import annotations

import gzip
import hashlib
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, to_thread
from starlette.datastructures import Headers, MutableHeaders

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_JSON: Final = "application/json"
LEAST: Final = 1024  # bytes that are worth packing
LARGE: Final = 64 << 10  # … that are packed in a thread: no other request is answered meanwhile
LEVEL: Final = 5


class Transfer:
    """ASGI middleware behind the authentication."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
        elif scope["method"] == "GET":
            await self._app(scope, receive, JsonSender(scope, send))
        else:
            request = {**scope, "method": "GET"}  # no route has HEAD of its own
            with CancelScope() as work:
                head = HeadSender(send, work)
                await self._app(request, receive, JsonSender(request, head))


class HeadSender:
    """Sends the head of an answer, and ends the work on the rest."""

    def __init__(self, send: Send, work: CancelScope) -> None:
        self._send, self._work = send, work
        self._done = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._send(message)
            media = Headers(raw=message["headers"]).get("content-type", "")
            if not media.startswith("text/event-stream"):  # whose first byte may be long in coming
                return
        if not self._done:  # of a file: once its source was begun, and so is closed
            self._done = True
            await self._send({"type": "http.response.body", "body": b""})
            self._work.cancel()


class JsonSender:
    """Sends an answer of JSON as it is best for this caller, and any other as it is."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._headers = Headers(scope=scope)
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._fits(message):
            self._start = message  # until its body is known
            return
        start, self._start = self._start, None
        if start is not None:
            if not message.get("more_body"):
                message = await self._made_best(start, message)
            await self._send(start)
        await self._send(message)

    @staticmethod
    def _fits(message: Message) -> bool:
        headers = Headers(raw=message["headers"])
        is_json = headers.get("content-type", "") == _JSON
        return message["status"] == 200 and is_json and "content-encoding" not in headers

    async def _made_best(self, start: Message, message: Message) -> Message:
        """The body, with a head to fit."""
        body: bytes = message["body"]
        headers = MutableHeaders(raw=start["headers"])
        start["headers"] = headers.raw
        headers.add_vary_header("Accept-Encoding")
        if 304 in getattr(self._scope.get("route"), "responses", ()):
            name = etag(body)
            headers["ETag"] = name
            headers["Cache-Control"] = "private, no-cache"
            if has(self._headers.get("if-none-match", ""), name):
                start["status"] = 304
                del headers["content-length"], headers["content-type"]
                return {**message, "body": b""}
        if len(body) >= LEAST and self._takes_packed():
            body = await to_thread.run_sync(pack, body) if len(body) > LARGE else pack(body)
            headers["Content-Encoding"] = "gzip"
            headers["Content-Length"] = str(len(body))
        return {**message, "body": body}

    def _takes_packed(self) -> bool:
        """True for a caller that asks for gzip and shows a token: a page of another site makes a
        browser ask with its cookie, and could learn from lengths what stands beside its own
        words."""
        caller = self._scope["state"].get("caller")
        return takes_gzip(self._headers) and not (caller is not None and caller.cookie)


def etag(body: bytes) -> str:
    """The name of a body, packed or not."""
    return f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'


def has(if_none_match: str, name: str) -> bool:
    """True if the caller has what is called so."""
    listed = [word.strip().removeprefix("W/") for word in if_none_match.split(",")]
    return "*" in listed or name.removeprefix("W/") in listed


def takes_gzip(headers: Headers) -> bool:
    """True if the caller likes gzip as well as anything."""
    for word in headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = word.strip().partition(";")
        if name.strip() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def pack(body: bytes) -> bytes:
    """A body, packed: the same bytes each time."""
    return gzip.compress(body, LEVEL, mtime=0)
