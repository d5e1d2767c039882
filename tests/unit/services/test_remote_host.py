"""The signs of life that a client gives for its builds on a server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.sshd import wait_for
from vmrunner.errors import NotFound, VmrunnerError
from vmrunner.services.client import host
from vmrunner.services.client.host import RemoteHost


class Server:
    """Counts the renewals by path. `broken`: it answers no other way."""

    def __init__(self) -> None:
        self.renewed: Counter[str] = Counter()
        self.broken: dict[str, VmrunnerError] = {}
        self.ended: set[str] = set()
        self.closed = False

    def hasty(self, _: float) -> Server:
        return self

    def post(self, path: str) -> dict[str, float]:
        self.renewed[path] += 1
        if path in self.broken:
            raise self.broken[path]
        return {} if path in self.ended else {"seconds": 60.0}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def keeper(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteHost]:
    monkeypatch.setattr(host, "RENEW", 0.01)
    given: Any = server, SimpleNamespace(waiting={})
    with RemoteHost(*given) as made:
        yield made
    assert server.closed


def lease(build: str) -> str:
    return f"/builds/{build}/lease"


def test_leases_are_renewed_again_and_again(server: Server, keeper: RemoteHost) -> None:
    """One that the server does not renew now keeps no other, and is tried again."""
    server.broken[lease("b-1")] = VmrunnerError("the server is restarting")
    for build in ("b-1", "b-2"):
        keeper.keep(build)
    wait_for(lambda: min(server.renewed[lease(build)] for build in ("b-1", "b-2")) >= 3)
    assert sum(thread.name == "lease" for thread in threading.enumerate()) == 1


def test_nobody_renews_the_lease_of_a_build_that_ended(server: Server, keeper: RemoteHost) -> None:
    server.ended.add(lease("b-1"))
    server.broken[lease("b-2")] = NotFound("it has no lease")
    for build in ("b-1", "b-2", "b-3"):
        keeper.keep(build)
    wait_for(lambda: server.renewed[lease("b-3")] >= 5)
    assert server.renewed[lease("b-1")] == server.renewed[lease("b-2")] == 1
