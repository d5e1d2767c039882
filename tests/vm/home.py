"""A vmrunner of a test's own: its data and config in one directory, the user's images shared."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VMRUNNER = Path(sys.prefix) / "bin" / "vmrunner"
# What would change how a build's output is shown, or which vmrunner is used.
FOREIGN = ("VMRUNNER_", "XDG_", "GITHUB_", "GITLAB_", "CI_", "TERM", "NO_COLOR", "FORCE_COLOR")
#: Of the VMs: `make test` makes the templates of such. Emulated, a second processor mostly waits
#: for the first, and costs a host's whole. The disk is larger than the image: it must grow.
SIZE = {
    "VMRUNNER_PROVIDERS__LOCAL__CPUS": "1",
    "VMRUNNER_PROVIDERS__LOCAL__MEMORY": "1GiB",
    "VMRUNNER_PROVIDERS__LOCAL__DISK": "9GiB",
}
CACHE = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))


def wait_until(true: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """Poll until `true()` is; return its value. Fails with `what` after `seconds`. A look that
    takes long, as a process does, is not taken often: the VMs need the time."""
    end = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        value = true()
        if value:
            return value
        now = time.monotonic()
        if now > end:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        time.sleep(min(2.0, max(0.2, 4 * (now - began))))


@dataclass(frozen=True)
class Home:
    """Runs the real command line as a user would, from a directory without a config file."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Home:
        for name in ("cwd", "tmp"):
            (root / name).mkdir(parents=True)
        return cls(root)

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        return kept | {
            "XDG_DATA_HOME": str(self.root / "data"),
            "XDG_CONFIG_HOME": str(self.root / "config"),
            "XDG_STATE_HOME": str(self.root / "state"),
            "XDG_CACHE_HOME": CACHE,
            "TMPDIR": str(self.root / "tmp"),
            **SIZE,
        }

    @property
    def data(self) -> Path:
        return self.root / "data" / "vmrunner"

    def start(
        self, *args: str, stdout: Any = subprocess.PIPE, stderr: Any = subprocess.PIPE, **env: str
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [VMRUNNER, *args],
            env=self.env | env,
            cwd=self.root / "cwd",
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )

    def run(
        self, *args: str, timeout: float = 500, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        process = self.start(*args, **env)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{args} took over {timeout} s:\n{text(err)}") from None
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def items(self, *args: str) -> list[dict[str, Any]]:
        """The items of a command's JSON output."""
        done = self.run(*args, "-o", "json", timeout=240)
        assert done.returncode == 0, text(done.stderr)
        items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        return items

    def builds(self) -> list[dict[str, Any]]:
        return self.items("ps", "-a")

    def instances(self) -> list[dict[str, Any]]:
        return self.items("vm", "ls", "-a")

    def processes(self) -> list[str]:
        """Processes that belong to this home: its directory or one of its instances is named in
        their command line or environment. As `pid command`."""
        with self._ledger() as ledger:
            ids = [row[0] for row in ledger.execute("SELECT id FROM instances")]
        return list(processes_with([str(self.root), *ids]))

    def open_builds(self) -> list[str]:
        """Those that are not over, read where they lie: a look costs no process."""
        return [row[0] for row in self.read("SELECT id FROM builds WHERE state != 'finished'")]

    def open_vms(self) -> list[str]:
        """… that are not gone."""
        return [row[0] for row in self.read("SELECT id FROM instances WHERE state != 'gone'")]

    def leftovers(self) -> list[str]:
        """All that a finished build must not leave: processes, ports, directories, files, keys,
        live rows. Once there is nothing of these: what the cloud has."""
        found = [f"process {line}" for line in self.processes()]
        found += [f"row {name}" for name in self.open_builds() + self.open_vms()]
        ids = [row[0] for row in self.read("SELECT id FROM instances")]
        for place in (self.root, Path("/run"), Path("/tmp"), Path("/dev/shm")):
            found += [f"path {path}" for path in paths_with(place, ids)]
        found += [f"source {path}" for path in (self.data / "sources").glob("*")]
        found += [f"temporary {path}" for path in (self.root / "tmp").iterdir()]
        found += [f"socket {name}" for name in listening(ids)]
        found += self.keys()
        return found or [f"cloud: {row}" for row in self.items("vm", "ls", "--cloud")]

    def keys(self) -> list[str]:
        """Keys and secrets that no row in a live state needs: sealed ones in the ledger, and files
        with a private key in them."""
        found = [f"key in {path}" for path in self.root.rglob("*") if has_key(path)]
        with self._ledger() as ledger:
            for column in ("access", "ordered"):
                rows = ledger.execute(f"SELECT id FROM instances WHERE {column} IS NOT NULL")
                found += [f"sealed {column} of {row[0]}" for row in rows]
            rows = ledger.execute("SELECT id FROM builds WHERE secrets IS NOT NULL")
            return found + [f"sealed secrets of {row[0]}" for row in rows]

    def installation(self) -> str:
        """Whose VMs they are; once there is a ledger."""
        with self._ledger() as ledger:
            return str(ledger.execute("SELECT installation FROM ledger").fetchone()[0])

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the ledger, once there is one, without a process for each look."""
        with self._ledger() as ledger:
            return ledger.execute(query).fetchall()

    def _ledger(self) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(f"file:{self.data}/ledger.db?mode=ro", uri=True))

    def assert_nothing_left(self, *, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        late = False  # the last look begins after `seconds`, however long each look takes
        while (leftovers := self.leftovers()) and not late:
            late = time.monotonic() > end
            time.sleep(0.5)
        assert leftovers == [], leftovers
        audit = self.run("audit", timeout=180)
        assert audit.returncode == 0, text(audit.stdout + audit.stderr)


def processes_with(marks: Sequence[str]) -> Iterator[str]:
    mine = os.getpid()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == mine:
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            text_of = command + b"\0" + (entry / "environ").read_bytes()
        except OSError:
            continue  # it ended, or it is a kernel thread
        if any(mark.encode() in text_of for mark in marks):
            yield entry.name + " " + text(command.replace(b"\0", b" "))


def has_key(path: Path) -> bool:
    try:
        return path.is_file() and b"PRIVATE KEY" in path.read_bytes()
    except OSError:
        return False  # it vanished


def listening(instances: Iterable[str]) -> Iterator[str]:
    """Sockets of these VMs that somebody listens on, wherever their path is."""
    for line in Path("/proc/net/unix").read_text().splitlines():
        if any(instance in line for instance in instances):
            yield line.split()[-1]


def paths_with(place: Path, ids: Sequence[str]) -> Iterator[Path]:
    """Paths of at most four levels under `place` whose name carries one of our instance ids."""
    for depth in ("*", "*/*", "*/*/*", "*/*/*/*"):
        for path in place.glob(depth):
            if any(each in path.name for each in ids) and "artifacts" not in path.parts:
                yield path


def text(data: bytes) -> str:
    return data.decode(errors="replace")
