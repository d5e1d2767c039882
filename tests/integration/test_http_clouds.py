"""Requests that ask a cloud, and the others meanwhile."""

from __future__ import annotations

import threading
from typing import Any, Final

import pytest

from tests.support.http_service import Service
from tests.support.ledger_builds import running
from tests.support.scripted_app import wait_until
from vmrunner.errors import LedgerError

API = "/api/v1"
ROUTES: Final = "vmrunner.server.routes"


@pytest.mark.parametrize(
    ("path", "body", "asks"),
    [
        ("builds", {"steps": ["x"]}, f"{ROUTES}.builds.remote_submit.submit"),
        ("sandboxes?dry_run=true", {}, f"{ROUTES}.builds.remote_submit.check"),
        ("builds/b-1/extend", {"by": "1m"}, "vmrunner.runtime.provider_set.ProviderSet.time_at"),
        ("instances/vm-1/destroy", {}, f"{ROUTES}.instances.destroy"),
        ("reap", {}, f"{ROUTES}.operations.reaping.reap"),
    ],
)
def test_a_cloud_that_hangs_holds_up_no_other_request(
    http: Service, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any], asks: str
) -> None:
    running(http.app.ledger, "b-1", "vm-1")
    token, go, asked = http.token(), threading.Event(), list[int]()

    def hang(*_: object, **__: object) -> None:
        asked.append(1)
        go.wait(20)
        raise LedgerError("away")

    monkeypatch.setattr(asks, hang)

    def ask() -> None:
        http.client(token, timeout=30).post(f"{API}/{path}", json=body)

    asking = [threading.Thread(target=ask) for _ in range(60)]
    for thread in asking:
        thread.start()
    try:
        wait_until(lambda: len(asked) == 40)
        assert http.client(timeout=5).get(f"{API}/caches").status_code == 200
    finally:
        go.set()
        for thread in asking:
            thread.join()
