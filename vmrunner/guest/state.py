"""Files that the supervisor keeps: epoch, job, events, the log's spool.

RUN/epoch, job.json, cancel    0600; the job holds the build's secrets, so RUN is a tmpfs
RUN/lock                       held while one of them is read and written
RUN/alive                      locked by `run` as long as it lives
RUN/registry                   what the registry is told, until the container is made; 0600
RUN/starts                     how often it was started
RUN/spool/log, events          a tmpfs of their own: a full disk loses no line
RUN/box/                       what the container sees read-only at /vmrunner
RUN/shown/                     the same as a read-only mount, for gVisor
RUN/socket                     where the resident supervisor answers; root's alone
RUN/prestarted, deadline       the container that waits; this VM's own end
RUN/identified, answered       this VM has its identity; the host was told so
RUN/boot_id_shown              the first process of the container that sees its boot id
RUN/commands/                  of a sandbox: command.py
RUN/container                  the first process of the container, once a sandbox asked for it
RUN/secrets/                   what it sees read-only at /run/secrets
RUN/caches                     what came of the caches, a JSON line each
LIB/caches/N.in, N.out         a tar that came for the container; one that was packed of it
LIB/started                    on disk: a VM that reboots does not run an attempt twice; blank until
                               it is claimed where a container waits
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime import Runtime

TAIL = 256 * 1024  # of a log over its cap: how much of the end is kept
OTHER_ATTEMPT = 6  # exit code: this VM has started another one
MARK = 128  # room for the line that says what was cut


class ContainerError(Exception):
    """A no of who runs the container. `status`, where it speaks HTTP; 0: it did not answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Stale(Exception):
    """A higher epoch spoke to this VM before: the caller has lost the build."""


class Place:
    """The directories, and who runs the container. `run` is a tmpfs."""

    begin = "echo begin >&5"  # how the shell of a command says that it is there

    def __init__(self, run: str = "/run/vmrunner", lib: str = "/var/lib/vmrunner") -> None:
        from . import docker

        self.runtime: Runtime = docker
        self.commands: dict[str, Any] = {}  # those that are done in another way here
        self.run = run
        self.spool = f"{run}/spool"
        self.log = f"{run}/spool/log"
        self.events = f"{run}/spool/events"
        self.box = f"{run}/box"
        self.shown = f"{run}/shown"
        self.secrets = f"{run}/secrets"
        self.socket = f"{run}/socket"
        self.prestarting = f"{run}/prestarting"
        self.started = f"{lib}/started"
        self.caches = f"{lib}/caches"

    def make(self) -> None:
        os.makedirs(self.run, 0o700, exist_ok=True)
        for path in (self.spool, self.box, self.shown, self.secrets, os.path.dirname(self.started)):
            os.makedirs(path, 0o755, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        fd = os.open(f"{self.run}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def cache(self, number: int, *, packed: bool = False) -> str:
        """The tar of a cache: as it came, or as it was packed."""
        return f"{self.caches}/{number}.{'out' if packed else 'in'}"

    def fifo(self, name: str) -> int:
        """Open one of the box, both ways: it never ends, and opening it never waits."""
        return os.open(f"{self.box}/{name}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def ear(self, name: str) -> int:
        """Open one whose writer may be seen to be gone, where nothing else tells that."""
        return self.fifo(name)

    def has(self, name: str) -> bool:
        """True if the box has such a file."""
        return os.path.exists(f"{self.box}/{name}")

    def put(self, name: str, data: bytes) -> None:
        """Write a file of the box."""
        with open(f"{self.box}/{name}", "wb") as file:
            file.write(data)

    def make_fifo(self, name: str) -> None:
        """Have a FIFO in the box that everybody may use, once `umask` lets them."""
        if not self.has(name):
            os.mkfifo(f"{self.box}/{name}", 0o666)

    def make_directory(self, name: str) -> None:
        os.makedirs(f"{self.box}/{name}", 0o755, exist_ok=True)

    def rename(self, name: str, to: str) -> None:
        os.rename(f"{self.box}/{name}", f"{self.box}/{to}")

    def discard(self, name: str, files: tuple[str, ...]) -> None:
        """Remove a directory of the box, in which these were made."""
        shutil.rmtree(f"{self.box}/{name}", ignore_errors=True)

    def woke(self) -> bool:
        """True if this VM is a clone, whose kernel has the boot id of all clones."""
        return os.path.exists(f"{self.box}/boot_id")

    # --- who may speak ---------------------------------------------------------------------

    def epoch(self) -> int:
        return int(self.read("epoch") or 0)

    def admit(self, epoch: int) -> None:
        """Remember the highest epoch that spoke; refuse lower ones."""
        with self.locked():
            highest = self.epoch()
            if epoch < highest:
                raise Stale(f"epoch {epoch} is stale: {highest} spoke here")
            if epoch > highest:
                self.write("epoch", str(epoch))

    # --- small files -----------------------------------------------------------------------

    def read(self, name: str) -> str:
        """Empty when it is missing."""
        try:
            with open(f"{self.run}/{name}", encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def write(self, name: str, text: str, mode: int = 0o600) -> None:
        """Whole or not at all."""
        path = f"{self.run}/{name}"
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(f"{path}.new", path)

    def erase(self, name: str) -> None:
        """Have it no more."""
        with suppress(FileNotFoundError):
            os.unlink(f"{self.run}/{name}")

    def job(self) -> dict[str, Any]:
        """Empty before the first `start`."""
        return json.loads(self.read("job.json") or "{}")  # type: ignore[no-any-return]

    # --- steps start once ------------------------------------------------------------------

    def was_started(self) -> str:
        """The attempt whose steps this VM started, empty for none."""
        try:
            with open(self.started, encoding="utf-8") as file:
                return file.read().rstrip("\0")
        except FileNotFoundError:
            return ""

    def claim(self, attempt: str) -> bool:
        """True for exactly one caller in the life of this VM's disk. The claim is safe then; its
        claimer may have died before. Zeros claim nothing, but leave room."""
        fd = os.open(self.started, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if is_free := not os.read(fd, 1).strip(b"\0"):
                os.pwrite(fd, attempt.encode(), 0)
            os.fdatasync(fd)
            return is_free
        finally:
            os.close(fd)

    def alive(self) -> int | None:
        """Lock `alive`; None when another `run` holds it. The lock goes with the process."""
        fd = os.open(f"{self.run}/alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd


def clock() -> float:
    """Seconds since the VM booted, suspended time included: what timeouts are measured with."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class EventLog:
    """Numbered JSON lines. Each says at which offset of the log it happened."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._read = 0
        self.past = list(self.new())

    def add(self, kind: str, offset: int, **data: str | int | float | bool | None) -> None:
        event = {
            "seq": len(self.past),
            "kind": kind,
            "offset": offset,
            "time": time.time(),
            "clock": clock(),
            **data,
        }
        os.write(self._fd, json.dumps(event, separators=(",", ":")).encode() + b"\n")
        self.past.append(event)

    def new(self) -> Iterator[dict[str, Any]]:
        """Events that were written since the last call, by whichever process."""
        text = os.pread(self._fd, 1 << 20, self._read)
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            yield json.loads(line)

    def last(self, kind: str) -> dict[str, Any] | None:
        return next((event for event in reversed(self.past) if event["kind"] == kind), None)


class Spool:
    """The log, appended to one file up to a cap. Past the cap the end is kept in memory and
    written by `close`, after a line that says how much is missing in between."""

    def __init__(self, path: str, cap: int, *, full: bool = False) -> None:
        """`full`: an earlier supervisor had reached the cap; what it dropped is not known."""
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self._fd).st_size
        self._tail_bytes = min(TAIL, cap // 4)
        self._head = cap - self._tail_bytes - MARK
        self._inherited = full
        self.full = full
        self._tail = bytearray()
        self._past_head = 0

    def write(self, data: bytes) -> None:
        if not self.full:
            room = self._head - self.size
            if len(data) <= room:
                self._append(data)
                return
            # Cut after a whole line where there is one, so that no secret is cut in two.
            self.full = True
            cut = data.rfind(b"\n", 0, max(room, 0)) + 1 or max(room, 0)
            self._append(data[:cut])
            data = data[cut:]
        self._past_head += len(data)
        self._tail += data[-self._tail_bytes :]
        if len(self._tail) > 2 * self._tail_bytes:
            del self._tail[: -self._tail_bytes]

    def close(self) -> None:
        """Write what was kept of the end."""
        kept = bytes(self._tail[-self._tail_bytes :])
        if self._past_head > len(kept):
            kept = kept[kept.find(b"\n") + 1 :]
        dropped = self._past_head - len(kept)
        if dropped or self._inherited:
            least = "at least " if self._inherited else ""
            self._append(f"\n… truncated: {least}{dropped} bytes dropped\n".encode())
        self._append(kept)
        self._tail.clear()
        self._past_head = 0

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            self.size += written
            view = view[written:]
