"""A unit without a system that starts it: its supervisor's own process 1, and the build's driver as
process 1 of a PID namespace, with the two directories that they share."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.guest import ROOT, Followed
from tests.support.programs import INTERPRETER_LINE
from tests.support.sshd import wait_for

PROGRAM = """{line}import sys
sys.path.insert(0, {root!r})
from vmrunner.guest import beside, build, follow, unit
build.TERM_GRACE = 0.5
beside.KILL_GRACE = 1.0
unit.COME_WITHIN = {come_within!r}
follow.DEAD_AFTER = 3.0
place = beside.UnitPlace({run!r}, {lib!r}, box={box!r}, secrets={secrets!r})
if sys.argv[1] == "beside":
    sys.exit(unit.Init(place, {work!r}, {identity!r}).run())
sys.exit(unit.main(sys.argv[1:], place, {work!r}))
"""
#: The driver is process 1 of a namespace: what it is told to kill is killed there alone.
CONTAINED = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")


def job(*scripts: str, **changes: Any) -> bytes:
    """An order as a session sends it to a unit."""
    order = {
        "unit": True,
        "build": "b-1",
        "attempt": "b-1/1",
        "timeout": 60.0,
        "log_bytes": 4 << 20,
        "env": {},
        "secrets": {},
        "steps": [{"script": script, "env": {}, "timeout": None} for script in scripts],
    }
    return json.dumps({**order, **changes}).encode()


class UnitGuest:
    """One unit. `ttl`: seconds until its end. `come_within`: seconds that its driver may take."""

    def __init__(self, directory: Path, *, ttl: float = 600, come_within: float = 60) -> None:
        self.directory = directory
        self.run, self.box, self.work = directory / "run", directory / "box", directory / "work"
        self.secrets, identity = directory / "secrets", directory / "identity"
        for path in (self.box, self.work, self.secrets, identity):
            path.mkdir(parents=True)
        (identity / "deadline").write_text(f"{time.time() + ttl:.3f}\n")
        self.supervisor = directory / "supervisor"
        self.supervisor.write_text(
            PROGRAM.format(
                line=INTERPRETER_LINE,
                come_within=come_within,
                root=str(ROOT),
                run=str(self.run),
                lib=str(directory / "lib"),
                box=str(self.box),
                secrets=str(self.secrets),
                work=str(self.work),
                identity=str(identity),
            )
        )
        self.supervisor.chmod(0o755)
        self._errors = directory / "errors"
        self.call("lay")
        with self._errors.open("ab") as errors:
            self.init = subprocess.Popen([self.supervisor, "beside"], stderr=errors)
        wait_for(lambda: self.call("ready").returncode == 0)
        self.driver = self.start_driver()

    def start_driver(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*CONTAINED, "/bin/sh", f"{self.box}/driver.sh"],
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def call(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        plain = words[0] in {"lay", "ready"}
        argv = [*words] if plain else [words[0], "--epoch", "1", *words[1:]]
        return subprocess.run(
            [self.supervisor, *argv], input=stdin, capture_output=True, timeout=60, check=False
        )

    def start(self, order: bytes) -> Followed:
        """Start a build, and follow it to its end."""
        done = self.call("start", "0", "0", stdin=order)
        assert done.returncode == 0, (done.stderr, self.errors)
        return Followed(done.stdout)

    def events(self) -> str:
        events = self.run / "spool" / "events"
        return events.read_text() if events.exists() else ""

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def container(self) -> int:
        """Process 1 of the build's container, as we see it, once it has begun."""
        children = Path(f"/proc/{self.driver.pid}/task/{self.driver.pid}/children")
        wait_for(lambda: children.read_text().split())
        pid = int(children.read_text().split()[0])
        alive = (self.box / "alive").stat()
        wait_for(lambda: any(os.path.samestat(alive, file) for file in _open_files(pid)))
        return pid

    def close(self) -> None:
        print(f"unit's events: {self.events()}\nunit's errors: {self.errors}")
        self.driver.kill()
        self.driver.wait()
        self.init.terminate()
        self.init.wait(20)
        for process in living(self.directory):
            os.kill(process, 9)


def _open_files(pid: int) -> Iterator[os.stat_result]:
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            yield path.stat()


def living(directory: Path) -> list[int]:
    """Processes that have a file of that directory among their words."""
    found = []
    for path in Path("/proc").glob("[1-9]*/cmdline"):
        try:
            if bytes(directory) in path.read_bytes():
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@contextmanager
def unit_guest(
    directory: Path, *, ttl: float = 600, come_within: float = 60
) -> Iterator[UnitGuest]:
    guest = UnitGuest(directory, ttl=ttl, come_within=come_within)
    try:
        yield guest
    finally:
        guest.close()
