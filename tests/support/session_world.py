"""One VM behind a proxy, and sessions on it: without a VM, by a real sshd and the supervisor's real
program behind it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_sessions import Recorder, Running, make_job
from tests.support.guest import Guest, booted
from tests.support.sshd import Proxy, Sshd, running
from vmrunner.session import End, supervisor_calls
from vmrunner.session.session import Session
from vmrunner.session.ssh import client


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(tmp_path_factory.mktemp("sshd")) as server:
        yield server


class World:
    """One VM behind a proxy, and sessions on it."""

    def __init__(
        self, sshd: Sshd, guest: Guest, proxy: Proxy, directory: Path, patch: pytest.MonkeyPatch
    ) -> None:
        self.sshd, self.guest, self.proxy = sshd, guest, proxy
        self._directory, self._patch = directory, patch
        self.artifacts = directory / "artifacts"
        self.record = Recorder()

    def session(self, *scripts: str, **options: Any) -> Session:
        address = options.pop("address", self.proxy.address)
        job = make_job(address, self.sshd.access, self.artifacts, *scripts, **options)
        return Session(job, self.record.at())

    def run(self, *scripts: str, **options: Any) -> End:
        return Running(self.session(*scripts, **options)).wait()

    def lie(self, script: str) -> None:
        """Put a script in the supervisor's place, as root in a VM may; `$REAL` is that one."""
        liar = self._directory / "liar"
        liar.write_text(f"#!/bin/sh\nREAL={supervisor_calls.SUPERVISOR}\n{script}\n")
        liar.chmod(0o755)
        self._patch.setattr(supervisor_calls, "SUPERVISOR", str(liar))

    def lie_about_artifacts(self, *names: str) -> None:
        """Send empty files of these names, whatever is asked for."""
        evil = self._directory / "evil.tar"
        with tarfile.open(evil, mode="w") as tar:
            for name in names:
                tar.addfile(tarfile.TarInfo(name))
        self.lie(f"[ $1 = collect ] || exec $REAL \"$@\"\necho '[1]'; cat {evil}")

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
        yield World(sshd, guest, proxy, tmp_path, monkeypatch)
        proxy.close()


def _as(user: str, init: Any) -> Any:
    """Sessions log in as root; here root may be somebody else."""
    return lambda self, access, **rest: init(self, access, user=user, **rest)


@pytest.fixture
def resident(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """One whose supervisor is there before any build."""
    monkeypatch.setattr(supervisor_calls, "SUPERVISOR", "/nonexistent/supervisor")
    monkeypatch.setattr(supervisor_calls, "SOCKET", str(world.guest.run / "socket"))
    world.guest.start_resident()
    return world
