"""A sandbox in the supervisor's own program, without a VM, and commands for it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.guest import Guest, booted, job
from tests.support.sshd import wait_for
from vmrunner.model import CommandEnd, StreamName
from vmrunner.session.command_protocol import CommandDecoder, OutputFrame


class Sandbox:
    """A sandbox that was started, and commands for it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        order = job(sandbox=True)
        argv = [guest.supervisor, "start", "--epoch", "1", "0", "0"]
        nowhere = subprocess.DEVNULL
        self._follower = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere
        )
        assert self._follower.stdin is not None
        self._follower.stdin.write(order)
        self._follower.stdin.close()
        wait_for((guest.run / "box" / "sandbox").exists)
        wait_for(lambda: guest.docker.process is not None)

    def order(self, name: str, *argv: str, **changes: Any) -> bytes:
        order = {
            "id": name,
            "argv": list(argv),
            "title": " ".join(argv),
            "env": {},
            "cwd": str(self.guest.work),
            "user": None,
            "timeout": None,
            "stdin": False,
        }
        return json.dumps({**order, **changes}).encode()

    def run(self, name: str, script: str, **changes: Any) -> Ran:
        order = self.order(name, "/bin/sh", "-c", script, **changes)
        done = self.guest.call("exec", "0", "0", stdin=order)
        assert done.returncode == 0, (done.stderr, self.guest.errors)
        return Ran(done.stdout)

    def file(
        self, do: str, path: object, data: bytes = b"", *, whole: bool = True
    ) -> subprocess.CompletedProcess:
        head = json.dumps({"do": do, "path": str(path)}).encode() + b"\n"
        piece = b"%d\n%s" % (len(data), data) if data else b""
        return self.guest.call("file", stdin=head + piece + (b"0\n" if whole else b""))

    def close(self) -> None:
        self.guest.call("cancel", "user")
        self._follower.wait(timeout=30)


class Ran:
    def __init__(self, frames: bytes, stdout: int = 0, stderr: int = 0) -> None:
        found = list(CommandDecoder(stdout, stderr).feed(frames))
        self.end = next(outcome for outcome in found if isinstance(outcome, CommandEnd))
        self.out, self.err = (
            b"".join(f.data for f in found if isinstance(f, OutputFrame) and f.stream is stream)
            for stream in (StreamName.STDOUT, StreamName.STDERR)
        )


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with booted(tmp_path / "vm") as guest:
        sandbox = Sandbox(guest)
        yield sandbox
        sandbox.close()
