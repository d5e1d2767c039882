"""A receiver of webhooks on loopback, which checks signatures as the documentation says; and what
is sent to it."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vmrunner.ledger import Ledger, outbox
from vmrunner.model import NotifyEndpoint, NotifyEvent
from vmrunner.services import notifications
from vmrunner.services.client import webhooks
from vmrunner.services.notifications import OutboxSender, Webhook

PAGE = Path(__file__).parents[2] / "docs/webhooks.md"
KEY = b"a key of the tests"


def documented() -> Callable[..., bool]:
    """The function of the documentation."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    found: Callable[..., bool] = names["verified"]
    return found


class Receiver:
    """Takes what comes. `answers` has what it says to the next requests, instead of 200: a code,
    or what is done with the handler."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []  # of all requests, taken or not
        self.headers: list[dict[str, str]] = []
        self.answers: list[int | Callable[[BaseHTTPRequestHandler], None]] = []
        self._lock = threading.Lock()
        self._verified = documented()
        self.forged = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._lock:
            self.forged += not self._verified(KEY, handler.headers, body)
            self.bodies.append(json.loads(body))
            self.headers.append(dict(handler.headers.items()))
            answer = self.answers.pop(0) if self.answers else 200
        if callable(answer):
            answer(handler)
            return
        handler.send_response(answer)
        if answer in (302, 307):
            handler.send_header("Location", self.url + "/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    @property
    def ids(self) -> list[str]:
        return [body["id"] for body in self.bodies]

    @property
    def builds(self) -> list[str]:
        return [body["items"][0]["id"] for body in self.bodies]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()
        assert receiver.forged == 0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def named(ledger: Ledger, name: str = "chat", **options: Any) -> None:
    values = {"events": frozenset(NotifyEvent), "match": {}, **options}
    ledger.outbox.declare([NotifyEndpoint(name=name, **values)], time.time())


def sender(
    ledger: Ledger,
    url: str,
    name: str = "chat",
    *,
    post: Callable[..., str] = webhooks.post,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> OutboxSender:
    webhook = Webhook(name=name, url=url, key=KEY)
    delivery = notifications.delivery(ledger, webhook, post)
    return OutboxSender(ledger, name, delivery, clock, monotonic)


def waiting(ledger: Ledger, name: str = "chat") -> list[str]:
    far = time.time() + 10 * outbox.LONGEST_PAUSE  # whatever was put off
    return [notice.subject for notice in ledger.outbox.waiting(name, far, 1000)]
