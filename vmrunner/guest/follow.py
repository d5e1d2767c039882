"""`supervisor follow`: log and events of the build, from an offset on, framed on stdout.

    L <offset> <length>\n<bytes>        what stands at that offset of the log
    E <length>\n<json>                  an event; all of the log before its offset came before it

Ends with 0 after the event `ended`. The kernel says when something was written; who else speaks to
this VM, and whether `run` lives, is looked at now and then.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from .state import EventLog, Stale, clock

if TYPE_CHECKING:
    from .command_io import Output, Request
    from .state import Place


PIECE = 256 * 1024
LOOK = 0.2  # seconds between looks while nothing is written
PACE = 0.05  # the same while much is written, or where the kernel cannot be asked for news
PROMPT = 8  # pieces that are sent as soon as they are written, before it is much
DEAD_AFTER = 30.0  # seconds without a living `run`

SHRUNK = 4
DEAD = 5


class Follower:
    """One follower, on one connection."""

    def __init__(
        self,
        place: Place,
        *,
        epoch: int,
        offset: int,
        seen: int,
        out: Output,
        written: int | None = None,
    ) -> None:
        """`offset` and `seen` are the bytes and events that the other side has. `written`: a
        descriptor that is readable once something was written to the spool."""
        self._place = place
        self._epoch = epoch
        self._offset = offset
        self._seen = seen
        self._out = out
        self._events = EventLog(place.events)
        self._fd = os.open(place.log, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._written = written
        self._prompt = PROMPT
        self._dead_since: float | None = None

    def run(self, opening: Iterator[None] | None = None) -> int:
        """The exit code. `opening`: what this process does for the build itself, step by step."""
        if os.fstat(self._fd).st_size < self._offset:
            return SHRUNK
        past = list(self._events.past)
        while True:
            self._forget_written()
            # The size first: an event is written before any byte that follows it.
            size = os.fstat(self._fd).st_size
            sent = False
            for event in (*past, *self._events.new()):
                if event["seq"] < self._seen:
                    continue
                self._log(event["offset"])
                self._event(event)
                sent = True
                if event["kind"] == "ended":
                    return 0
            past = []
            sent = self._log(size) or sent
            if opening and next(opening, True) is None:
                continue
            self._prompt = max(0, self._prompt - 1) if sent else PROMPT
            if self._gone():
                return 0
            if self._place.epoch() > self._epoch:
                raise Stale("stale epoch")
            if not sent and self._run_is_dead():
                return DEAD

    def _log(self, upto: int) -> bool:
        """Send the log up to there; whether there was any."""
        begin = self._offset
        while self._offset < upto:
            data = os.pread(self._fd, min(PIECE, upto - self._offset), self._offset)
            if not data:
                break
            self._out.write(b"L %d %d\n" % (self._offset, len(data)), data)
            self._offset += len(data)
        return self._offset > begin

    def _event(self, event: dict[str, object]) -> None:
        data = json.dumps(event, separators=(",", ":")).encode()
        self._out.write(b"E %d\n" % len(data), data)

    def _forget_written(self) -> None:
        """Forget the news so far: what was written is read next."""
        if self._written is not None:
            with suppress(BlockingIOError):
                os.read(self._written, 4096)

    def _gone(self) -> bool:
        """Wait for news; True when the reader has left, which a quiet build would never
        tell."""
        poll = select.poll()
        poll.register(self._out.fd, 0)  # only errors
        pause = PACE
        if self._written is not None and self._prompt:
            poll.register(self._written, select.POLLIN)
            pause = LOOK
        return any(fd == self._out.fd for fd, _ in poll.poll(pause * 1000))

    def _run_is_dead(self) -> bool:
        """True if `run` has not lived for a while; systemd starts it again if it can."""
        lock = self._place.alive()
        if lock is None:
            self._dead_since = None
            return False
        os.close(lock)
        if self._dead_since is None:
            self._dead_since = clock()
        return clock() - self._dead_since > DEAD_AFTER


def follow(request: Request, opening: Iterator[None] | None = None) -> int:
    if not request.place.job():
        request.out.complain("not started")
        return 1
    offset, seen = map(int, request.arguments)
    written = None
    with suppress(ModuleNotFoundError):  # in a stock image, whose user-data has no room
        from .syscalls import watch

        written = watch(request.place.spool)
    return Follower(
        request.place,
        epoch=request.epoch,
        offset=offset,
        seen=seen,
        out=request.out,
        written=written,
    ).run(opening)
