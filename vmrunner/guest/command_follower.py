"""The output of one command of a sandbox, from two offsets on, framed on stdout.

    O <offset> <length>\\n<bytes>       what stands at that offset of its stdout
    R <offset> <length>\\n<bytes>       … of its stderr
    E <length>\\n<json>                 how it ended; all of both came before

Ends with 0 after the last.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import suppress

from .command_io import Output, Request
from .follow import DEAD, DEAD_AFTER, LOOK, PIECE, SHRUNK
from .state import Stale, clock


def follow(request: Request, path: str) -> int:
    """Follow the command of this directory, from the offsets in the arguments on."""
    return CommandFollower(request, path).run()


class OutputFrames:
    """Frames of what a command wrote, from two offsets on."""

    def __init__(self, path: str, out: int, err: int) -> None:
        self._streams = {b"O": _open(path, "out"), b"R": _open(path, "err")}
        self._offsets = {b"O": out, b"R": err}

    @property
    def shrunk(self) -> bool:
        """True if there is less than was read before."""
        return any(size < self._offsets[kind] for kind, size in self._sizes())

    @property
    def behind(self) -> bool:
        """True if there is more than was read."""
        return any(size > self._offsets[kind] for kind, size in self._sizes())

    def next(self) -> bytes:
        """Return the next frame; nothing where nothing is new."""
        for kind, fd in self._streams.items():
            if data := os.pread(fd, PIECE, self._offsets[kind]):
                head = b"%s %d %d\n" % (kind, self._offsets[kind], len(data))
                self._offsets[kind] += len(data)
                return head + data
        return b""

    def _sizes(self) -> Iterator[tuple[bytes, int]]:
        return ((kind, os.fstat(fd).st_size) for kind, fd in self._streams.items())


def _open(path: str, name: str) -> int:
    return os.open(f"{path}/{name}", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)


def end_frame(state: bytes) -> bytes:
    """The frame that says how a command ended."""
    return b"E %d\n" % len(state) + state


class CallerSink:
    """The caller of a command that its own process follows: what it does not take yet waits in the
    files, so that nothing of the command waits for it."""

    def __init__(self, out: Output, path: str, offsets: tuple[int, int]) -> None:
        self.fd = out.fd
        self._out = out
        self._framed = getattr(out, "framed", bytes)  # on a process's own stdout it is as it is
        self._frames = OutputFrames(path, *offsets)
        self._pending = b""
        self.lost = False
        os.set_blocking(self.fd, False)

    @property
    def waits(self) -> bool:
        """True if the caller has to take something first."""
        return bool(self._pending)

    def pump(self) -> None:
        """Send what the caller takes now."""
        while not self.lost:
            if not self._pending:
                frame = self._frames.next()
                if not frame:
                    return
                self._pending = self._framed(frame)
            try:
                self._pending = self._pending[os.write(self.fd, self._pending) :]
            except BlockingIOError:
                return
            except OSError:
                self.lost = True

    def finish(self, state: bytes) -> None:
        """Send the rest and the end, however long the caller takes."""
        os.set_blocking(self.fd, True)
        self.pump()
        if not self.lost:
            with suppress(OSError):
                self._out.write(end_frame(state))


class CommandFollower:
    """One follower, on one connection."""

    def __init__(self, request: Request, path: str) -> None:
        from .syscalls import watch

        out, err = map(int, request.arguments)
        self._ask = request
        self._path = path
        self._written = watch(path)  # first: what comes after it is told
        self._frames = OutputFrames(path, out, err)
        self._dead_since: float | None = None

    def run(self) -> int:
        """The exit code."""
        if self._frames.shrunk:
            return SHRUNK
        while True:
            with suppress(BlockingIOError):
                os.read(self._written, 4096)
            end = self._read_end()  # first: what it wrote is whole by then
            if frame := self._frames.next():
                self._ask.out.write(frame)
                continue
            if end is not None:
                self._ask.out.write(end_frame(end))
                return 0
            if self._gone():
                return 0
            if self._ask.place.epoch() > self._ask.epoch:
                raise Stale("a caller with a higher epoch speaks here")
            if self._is_dead():
                return DEAD

    def _read_end(self) -> bytes | None:
        """The command's end, or None."""
        try:
            with open(f"{self._path}/state", "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _gone(self) -> bool:
        """Wait for news; True when the reader has left."""
        poll = select.poll()
        poll.register(self._ask.out.fd, 0)  # only errors
        poll.register(self._written, select.POLLIN)
        return any(fd == self._ask.out.fd for fd, _ in poll.poll(LOOK * 1000))

    def _is_dead(self) -> bool:
        """True if the command's process has not lived for a while."""
        from .command_records import lives

        if lives(self._path):
            self._dead_since = None
            return False
        self._dead_since = self._dead_since or clock()
        return clock() - self._dead_since > DEAD_AFTER
