"""One VM behind a proxy, and sessions on it: without a VM, by a real sshd and the supervisor's real
program behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_sessions import Recorder, Running, make_job
from tests.support.guest import Guest, booted
from tests.support.sshd import Proxy, Sshd, running
from vmrunner.session import End, Session, supervisor_calls
from vmrunner.ssh import client


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(tmp_path_factory.mktemp("sshd")) as server:
        yield server


class World:
    """One VM behind a proxy, and sessions on it."""

    def __init__(self, sshd: Sshd, guest: Guest, proxy: Proxy, directory: Path) -> None:
        self.sshd, self.guest, self.proxy = sshd, guest, proxy
        self.artifacts = directory / "artifacts"
        self.record = Recorder()

    def session(self, *scripts: str, **options: Any) -> Session:
        address = options.pop("address", self.proxy.address)
        job = make_job(address, self.sshd.access, self.artifacts, *scripts, **options)
        return Session(job, self.record.at())

    def run(self, *scripts: str, **options: Any) -> End:
        return Running(self.session(*scripts, **options)).wait()

    @property
    def log(self) -> bytes:
        return bytes(self.record.log_bytes)


@pytest.fixture
def world(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with booted(tmp_path / "vm") as guest:
        proxy = Proxy(sshd.address)
        monkeypatch.setattr(supervisor_calls, "SUPERVISOR", guest.supervisor)
        monkeypatch.setattr(
            client.Dialer, "__init__", _as(sshd.user, client.Dialer.__init__), raising=True
        )
        yield World(sshd, guest, proxy, tmp_path)
        proxy.close()


def _as(user: str, init: Any) -> Any:
    """Sessions log in as root; here root may be somebody else."""
    return lambda self, access: init(self, access, user=user)
