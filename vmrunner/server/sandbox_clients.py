"""Clients of the sandboxes that were used lately: their connections serve the next request."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vmrunner.services.sandboxes import SandboxClient

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.lib.channels import Channel
    from vmrunner.model import Instance

KEPT_CLIENTS: Final = 64


class SandboxClients:
    """Called with an id, it returns that sandbox's client. Safe in threads. One that is forgotten
    while it is used closes its connections when that ends."""

    def __init__(
        self, ledger: Callable[[], Ledger], channel: Callable[[Instance], Channel]
    ) -> None:
        self._ledger, self._channel = ledger, channel
        self._lock = threading.Lock()
        self._clients: OrderedDict[str, SandboxClient] = OrderedDict()

    def __call__(self, sandbox: str) -> SandboxClient:
        oldest = None
        with self._lock:
            client = self._clients.pop(sandbox, None) or SandboxClient(
                self._ledger(), sandbox, self._channel
            )
            self._clients[sandbox] = client
            if len(self._clients) > KEPT_CLIENTS:
                _, oldest = self._clients.popitem(last=False)
        if oldest is not None:
            oldest.close()
        return client
