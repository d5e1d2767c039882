"""Requests that ask a cloud or the store, which hang, and the others meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

import pytest

import vmrunner
from tests.support.http_service import Service
from tests.support.ledger_builds import running
from tests.support.scripted_app import wait_until
from vmrunner.errors import LedgerError
from vmrunner.ledger.submitter_leases import SubmitterLeases
from vmrunner.services.client import host

API = "/api/v1"
ROUTES: Final = "vmrunner.server.routes"
PROVIDERS: Final = "vmrunner.runtime.provider_set.ProviderSet"
ARTIFACTS: Final = "vmrunner.services.artifacts.Artifacts"
LOG: Final = "vmrunner.store.build_log.BuildLog"


@pytest.mark.parametrize(
    ("method", "path", "asks"),
    [
        ("POST", f"{API}/builds", f"{ROUTES}.builds.admission.submit"),
        ("POST", f"{API}/builds?dry_run=true", f"{ROUTES}.builds.admission.check"),
        ("POST", f"{API}/builds/b-1/extend", f"{PROVIDERS}.time_at"),
        ("POST", f"{API}/instances/vm-1/destroy", f"{ROUTES}.instances.destroy"),
        ("POST", f"{API}/reap", f"{ROUTES}.operations.reaping.reap"),
        ("GET", "/builds/b-1", f"{ARTIFACTS}.files"),
        ("GET", f"{API}/builds/b-1", f"{ARTIFACTS}.files"),
        ("GET", f"{API}/builds/b-1/artifacts", f"{ARTIFACTS}.files"),
        ("GET", f"{API}/builds/b-1/artifacts/a", f"{ARTIFACTS}.files"),
        ("GET", f"{API}/builds/b-1/logs", f"{LOG}.sized"),
        ("GET", f"{API}/builds/b-1/chunks", f"{LOG}.read"),
        ("PUT", f"{API}/sources", "vmrunner.services.uploads.Upload.finish"),
    ],
)
def test_what_hangs_holds_up_no_other_request(
    http: Service, monkeypatch: pytest.MonkeyPatch, method: str, path: str, asks: str
) -> None:
    """Else the clients of foreground builds cannot say either that they are there."""
    running(http.app.ledger, "b-1", "vm-1")
    go, calls = threading.Event(), list[int]()

    def hang(*_: object, **__: object) -> None:
        calls.append(1)
        go.wait(20)
        raise LedgerError("away")

    monkeypatch.setattr(asks, hang)
    bodies = {"builds": {"steps": ["x"]}, "extend": {"by": "1m"}}
    body = bodies.get(path.partition("?")[0].rpartition("/")[2], {})

    def ask() -> None:
        http.client(timeout=30).request(method, path, json=body)

    asking = [threading.Thread(target=ask) for _ in range(60)]
    for thread in asking:
        thread.start()
    try:
        wait_until(lambda: len(calls) == 40)
        assert http.client(timeout=5).get(f"{API}/caches").status_code == 200
    finally:
        go.set()
        for thread in asking:
            thread.join()


def test_a_renewal_that_hangs_keeps_none_from_the_next(
    http: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind one address are several nodes, and one that is sick answers nothing."""
    monkeypatch.setattr(host, "RENEW", 0.02)
    monkeypatch.setattr(host, "RENEW_TIMEOUT", 0.2)
    go, calls, renew = threading.Event(), list[str](), SubmitterLeases.renew

    def hang(self: SubmitterLeases, build: str, until: float) -> None:
        calls.append(build)
        if len(calls) == 1:
            go.wait(20)
        renew(self, build, until)

    monkeypatch.setattr(SubmitterLeases, "renew", hang)
    http.runner._host.ensure("fake")
    with vmrunner.Runner(url=http.url, token=http.token()) as runner:
        running = threading.Thread(target=lambda: runner.run(f"until {tmp_path}/go"))
        running.start()
        try:
            wait_until(lambda: len(calls) > 1)
        finally:
            go.set()
            (tmp_path / "go").touch()
            running.join()
