"""The OpenAPI document as bytes that are made once: whoever asks for it has shown no token."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response

from vmrunner.server import transfer


class PackedDocument:
    """A document, as it is and packed. Safe in threads."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._bodies: tuple[bytes, bytes] | None = None

    def _made(self) -> tuple[bytes, bytes]:
        with self._lock:
            if self._bodies is None:
                body = json.dumps(self._make(), ensure_ascii=False).encode()
                self._bodies = (body, transfer.pack(body))
            return self._bodies

    def response(self, headers: Headers) -> Response:
        """The answer to a request with these headers."""
        body, packed = self._made()
        name = transfer.etag(body)
        # `Transfer` adds Vary itself, but to what is packed or not sent at all.
        more = {"ETag": name, "Cache-Control": "no-cache"}
        vary = {"Vary": "Accept-Encoding"}
        if transfer.has(headers.get("if-none-match", ""), name):
            return Response(status_code=304, headers=more | vary)
        if transfer.takes_gzip(headers):
            body, more = packed, more | vary | {"Content-Encoding": "gzip"}
        return Response(body, headers=more, media_type="application/json")
