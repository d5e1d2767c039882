"""A vmrunner with its HTTP API on loopback, whose clouds are fake and whose builds do what their
steps spell."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

import vmrunner
from tests.support import api_answers
from tests.support.fake_runner import PROVIDERS
from tests.support.scripted_app import CountedApp
from vmrunner.cli.commands.serve import server_parts
from vmrunner.config.settings import Settings
from vmrunner.model import Principal, TokenQuota, TokenScope
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.listener import HttpListener

ALL = frozenset(TokenScope)
TENANT = frozenset({TokenScope.SUBMIT, TokenScope.READ})
#: Tenants beside `team=a`: of another value of its label, and of another label.
OTHERS = ({"team": "b"}, {"repository": "b/app"})


class Service:
    """`parts.now()` is `clock[0]` where that is set."""

    def __init__(self, root: Path, everybody: Principal | None, settings: Settings) -> None:
        self.app = CountedApp(settings)
        self.app.ledgers.open(make=True)
        self.root = root
        self.clock: list[float] = []
        parts = server_parts(self.app.service_parts())
        self.parts: ServerParts = replace(
            parts, now=lambda: self.clock[0] if self.clock else parts.now()
        )
        self.listener = HttpListener(("127.0.0.1", 0), self.parts, everybody=everybody)
        self.url = self.listener.url
        self.runner = vmrunner.Runner(app=self.app)
        self._clients: list[httpx2.Client] = []

    def use(self, parts: ServerParts) -> None:
        """Serve these from now on, at another address."""
        self.listener.close()
        self.listener = HttpListener(("127.0.0.1", 0), parts)
        self.url = self.listener.url

    def token(self, scopes: frozenset[TokenScope] = ALL, **options: Any) -> str:
        labels, quota = options.pop("labels", {}), options.pop("quota", TokenQuota())
        secret, _ = self.app.ledger.tokens.create(
            "t", scopes, by="test", now=0.0, labels=labels, quota=quota, **options
        )
        return secret

    def client(self, token: str | None = None, **options: Any) -> httpx2.Client:
        """Without a token, one that may do all."""
        shown = self.token() if token is None else token
        headers = {"Authorization": f"Bearer {shown}"} if shown else {}
        hooks = {"response": [api_answers.check]}
        # No certificates are read, which took most of a client's time: the service is `http://`.
        values = {"timeout": 30, "verify": False, **options}
        client = httpx2.Client(base_url=self.url, headers=headers, event_hooks=hooks, **values)
        self._clients.append(client)
        return client

    def tenant(self, **labels: str) -> httpx2.Client:
        return self.client(self.token(TENANT, labels=labels))

    def ended(self, build: str) -> vmrunner.Build:
        """The build once it has ended: an engine of this process drives it."""
        return self.runner.wait(build, timeout=60)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.listener.close()
        self.runner.close()


@contextlib.contextmanager
def service(
    root: Path, *, everybody: Principal | None = None, **settings: Any
) -> Iterator[Service]:
    values = {"providers": PROVIDERS, **settings}
    found = Service(root, everybody, Settings.model_validate(values))
    try:
        yield found
    finally:
        found.close()


def only(answer: httpx2.Response) -> dict[str, Any]:
    """The one document of an answer."""
    assert answer.status_code < 300, answer.text
    (document,) = answer.json()["items"]
    found: dict[str, Any] = document
    return found
