"""Artifacts out of the VM."""

from __future__ import annotations

import io
import json
import os
import re
import select
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from vmrunner.errors import VmrunnerError
from vmrunner.lib.archive import files
from vmrunner.session.protocol import ProtocolViolation
from vmrunner.session.ssh.client import Connection, ConnectionLost

COUNTS: Final = 64 * 1024  # bytes of the line that says how many files each glob matched
DRAIN: Final = 1 << 20  # bytes of padding after a tar's end
LOOK: Final = 0.5  # seconds between two looks whether a caller still waits
PROGRESS: Final = 5.0  # seconds between two reports of what has come, at first

_SOCKET: Final = re.compile(r"tar: (?:\./)?(.+): socket ignored")


class Uncollected(VmrunnerError):
    """Artifacts that could not be brought, though the connection lives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """Artifacts that were brought, those left out and why, and how many names each glob matched."""

    total: files.ArchiveTotal
    omitted: tuple[str, ...]
    counts: tuple[int, ...]


def collect(
    connection: Connection,
    command: str,
    globs: Sequence[str],
    target: Path,
    *,
    most: int,
    gzip: bool,
    pulse: Callable[[], float],
    on_progress: Callable[[int], None],
) -> Collected:
    """Bring what the globs match into `target`, which is emptied first. `most` bounds the bytes,
    packed and unpacked. `on_progress`: hears now and then how many bytes have come, as they are
    sent. Raises Uncollected, Lie, Lost."""
    shutil.rmtree(target, ignore_errors=True)
    caps = files.ArchiveCaps(packed=most + (most >> 3) + (64 << 20), unpacked=most)
    into = _Extraction(target, caps, globs, gzip=gzip, pulse=pulse)
    arrival = Arrival(on_progress)

    def take(data: bytes) -> None:
        arrival.add(len(data))
        into.take(data)

    try:
        done = connection.stream(
            command, take, stdin=[json.dumps(list(globs)).encode()], pulse=pulse
        )
    except BrokenPipeError:
        done = None
    except BaseException:
        into.stop()
        raise
    finally:
        into.close()
    if into.error is not None:
        why = into.error
        text = (
            str(why)
            if isinstance(why, VmrunnerError)
            else f"artifacts: {type(why).__name__}: {why}"
        )
        raise Uncollected(text) from why
    if done is None or done.exit_code > 1:  # 1: a file changed while it was read
        complaint = done.complaint if done else "it ended early"
        raise Uncollected(f"artifacts: {complaint}")
    counts = into.counts(len(globs))
    assert into.total is not None
    omitted = into.total.omitted + tuple(_sockets(done.stderr))
    return Collected(total=into.total, omitted=omitted, counts=counts)


def shortfall(done: Collected, missing: Sequence[str]) -> str:
    """One line about artifacts that were asked for and did not come; "" where all came."""
    parts = []
    if missing:
        parts.append(f"{', '.join(map(repr, missing))} matched nothing in /work")
    if done.omitted:
        more = f" (and {len(done.omitted) - 1} more)" if done.omitted[1:] else ""
        parts.append(f"{done.omitted[0]}{more}: left out")
    return f"artifacts: {'; '.join(parts)}" if parts else ""


def _sockets(stderr: bytes) -> Iterator[str]:
    """Yield messages about files that tar left out by itself."""
    for line in stderr.decode("utf-8", "replace").splitlines():
        if found := _SOCKET.fullmatch(line):
            yield f"{found[1][:200]!r} is a socket"


class Arrival:
    """Count of the bytes that have come, reported each `PROGRESS` seconds, and after a minute the
    more rarely the longer it takes: a transfer of hours leaves few events."""

    def __init__(
        self, report: Callable[[int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock = clock
        self._size = 0
        self._began = self._reported = clock()

    def add(self, size: int) -> None:
        """Count so many more."""
        self._size += size
        now = self._clock()
        if now - self._reported >= max(PROGRESS, (now - self._began) / 12):
            self._reported = now
            self._report(self._size)


class _StoppableSource:
    """A source that ends once no caller waits for its result."""

    def __init__(self, source: BinaryIO, stopped: threading.Event) -> None:
        self._source = source
        self._stopped = stopped

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        if self._stopped.is_set():
            raise Uncollected("artifacts: no caller waits for them")
        return data


class _Extraction:
    """A thread that extracts what `take` is given. Between them is a pipe: bounded memory, and a
    slow disk slows the sender down."""

    def __init__(
        self,
        target: Path,
        caps: files.ArchiveCaps,
        globs: Sequence[str],
        *,
        gzip: bool,
        pulse: Callable[[], float],
    ) -> None:
        """`pulse`: called while the extraction takes nothing more; what it raises ends the wait.
        Raises ConnectionLost, so that it is tried again, where this host has no thread for it."""
        self._pulse = pulse
        self._stopped = threading.Event()
        self.total: files.ArchiveTotal | None = None
        self.error: Exception | None = None
        self._line: bytes | None = b""  # the first line, until it is whole
        self._counts = b""
        try:
            reading, self._writing = os.pipe()
        except OSError as error:
            raise ConnectionLost(f"artifacts: {error.strerror}") from error
        os.set_blocking(self._writing, False)

        def extract(stream: BinaryIO) -> files.ArchiveTotal:
            source = _StoppableSource(stream, self._stopped)
            return files.extract(source, target, caps, globs=globs, gzip=gzip)

        stream = os.fdopen(reading, "rb")
        self._thread = threading.Thread(target=self._run, args=(stream, extract), daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            stream.close()
            os.close(self._writing)
            raise ConnectionLost(f"artifacts: {error}") from error

    def take(self, data: bytes) -> None:
        """Raises BrokenPipeError when the extraction has ended."""
        if self._line is not None:
            self._line += data
            self._counts, newline, data = self._line.partition(b"\n")
            if not newline:
                if len(self._line) > COUNTS:
                    raise ProtocolViolation("the VM sent no list of artifacts")
                return
            self._line = None
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._writing, view) :]
            except BlockingIOError:  # the extraction is slower than what comes
                _, free, _ = select.select([], [self._writing], [], LOOK)
                if not free:
                    self._pulse()

    def stop(self) -> None:
        """Let the extraction end at the next entry: no caller waits for it."""
        self._stopped.set()

    def close(self) -> None:
        os.close(self._writing)
        self._thread.join()

    def counts(self, globs: int) -> tuple[int, ...]:
        try:
            counts = json.loads(self._counts)
        except (ValueError, RecursionError):
            counts = None
        if not isinstance(counts, list) or len(counts) != globs:
            raise ProtocolViolation("the VM sent no list of artifacts")
        return tuple(count if type(count) is int else 0 for count in counts)

    def _run(self, stream: BinaryIO, extract: Callable[[BinaryIO], files.ArchiveTotal]) -> None:
        with stream:
            try:
                self.total = extract(stream)
                drained = 0
                while drained < DRAIN and (data := stream.read(io.DEFAULT_BUFFER_SIZE)):
                    drained += len(data)
            except Exception as error:  # noqa: BLE001 - `collect` raises it
                self.error = error
