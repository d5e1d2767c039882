"""Being there while a build runs: its log on stdout, its phases on stderr, Ctrl-C and SIGTERM."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, BinaryIO, Final

from vmrunner import terminal, units
from vmrunner.cli import exits, output
from vmrunner.cli.groups import Groups
from vmrunner.model import Build, BuildState, Chunk, Reason
from vmrunner.reading import PAUSE, Reader, ended

if TYPE_CHECKING:
    from vmrunner.help import Help
    from vmrunner.ledger import Ledger

#: So long a foreground run waits for its VM to be seen gone; the reaper has the rest.
_LINGER: Final = 60.0
_SPIN: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Signals:
    """Ctrl-C and SIGTERM, counted: while this is on, neither ends the process by itself. What was
    ignored before (by `nohup`, or in a script's background) stays so."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self.count = 0
        self._came = threading.Event()

    @contextlib.contextmanager
    def on(self) -> Iterator[Signals]:
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        heard = [number for number in caught if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._caught) for number in heard}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def code(self) -> int:
        """The exit code that the first of them asks for."""
        return exits.INTERRUPTED if self.first is signal.SIGINT else exits.TERMINATED

    def sleep(self, seconds: float) -> None:
        """Wait; a signal ends it early."""
        self._came.wait(seconds)
        self._came.clear()

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        self.first = self.first or signal.Signals(number)
        self.count += 1
        self._came.set()


class LogSink:
    """Where the build's output goes: its own bytes into a pipe or file; what a terminal or a CI
    system would obey is taken out first."""

    def __init__(self, stream: BinaryIO, *, tty: bool, timestamps: bool) -> None:
        self._stream = stream
        self._filter = terminal.for_display(tty=tty, environ=os.environ)
        self._timestamps = timestamps
        self._open_line = False  # with timestamps: in the middle of a line
        self.at_start = True  # nothing, or a newline, was written last

    def write(self, chunk: Chunk) -> None:
        data = self._stamped(chunk) if self._timestamps else chunk.data
        self._put(self._filter.feed(data))

    def finish(self) -> None:
        self._put(self._filter.finish())

    def mark(self, text: str) -> None:
        """A line of ours, for a CI system to obey."""
        self._put(self._filter.finish())
        self._put(b"" if self.at_start else b"\n")
        self._put(text.encode())

    def _put(self, data: bytes) -> None:
        if data:
            self._stream.write(data)
            self._stream.flush()
            self.at_start = data.endswith(b"\n")

    def _stamped(self, chunk: Chunk) -> bytes:
        stamp = datetime.fromtimestamp(chunk.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ ").encode()
        head = b"" if self._open_line else stamp
        self._open_line = not chunk.data.endswith(b"\n")
        body = chunk.data if self._open_line else chunk.data[:-1]
        tail = b"" if self._open_line else b"\n"
        return head + body.replace(b"\n", b"\n" + stamp) + tail


class Status:
    """The phases on stderr: one live line on a terminal, a line for each in a pipe."""

    def __init__(self, *, live: bool, may_draw: Callable[[], bool], now: Callable[[], float]):
        self._live = live
        self._may_draw = may_draw
        self._now = now
        self._told = 0  # phases
        self._ticks = 0

    def update(self, build: Build, deadline: float | None) -> None:
        if self._live:
            self._ticks += 1
            if self._may_draw():
                output.live(self._line(build, deadline))
        else:
            self._plain(build)

    def _plain(self, build: Build) -> None:
        """A line for each phase since the last call, however short it was."""
        for phase in build.phases[self._told :]:
            if phase.state is not BuildState.FINISHED:
                since = units.span(phase.started - build.created_at)
                again = phase.state is BuildState.PROVISIONING and build.attempt > 1
                attempt = f" (attempt {build.attempt})" if again else ""
                output.say(f"[{since:>6}] {phase.state.value}{attempt}")
        self._told = len(build.phases)

    def _line(self, build: Build, deadline: float | None) -> str:
        now = self._now()
        done = [
            f"{phase.state.value} {units.span(phase.seconds(now))}"
            for phase in build.phases
            if phase.ended is not None and phase.seconds(now) >= 0.05
        ]
        spin = _SPIN[self._ticks % len(_SPIN)]
        current = f"{build.state.value} {spin} {units.span(now - build.state_since)}"
        left = "" if deadline is None else f"   {units.span(deadline - now)} left"
        return " ─ ".join([build.id[:10], *done[-4:], current]) + left


class Attendant:
    """Follows one build to its end. `own`: it is this process's, and ends with it."""

    def __init__(
        self,
        ledger: Ledger,
        helper: Help,
        sink: LogSink,
        signals: Signals,
        *,
        own: bool,
        talk: bool = True,
        live: bool = False,
    ) -> None:
        self._ledger = ledger
        self._help = helper
        self._sink = sink
        self._signals = signals
        self._own = own
        self._talk = talk
        self._status = Status(live=live and talk, may_draw=lambda: sink.at_start, now=time.time)
        self._cancelled = False
        self._why = ""
        self._deadline: float | None = None

    def follow(self, build: str, *, after: int = 0) -> Build:
        """Until it has ended, and with `own` until its VM is gone. Raises `exits.Leave` when the
        user leaves before that."""
        reader = Reader(self._ledger, build, after=after)
        groups = Groups(self._ledger, self._ledger.builds.get(build))
        while True:
            row = self._ledger.builds.get(build)
            over = ended(row)
            self._look(row)
            for chunk in reader.fresh():
                output.clear_live()
                for mark in groups.before(chunk.offset):
                    self._sink.mark(mark)
                self._sink.write(chunk)
            if over:
                break
            self._wait(row)
        self._sink.finish()
        for mark in groups.before(math.inf):
            self._sink.mark(mark)
        output.clear_live()
        if self._own:
            self._linger(build)
        return self._ledger.builds.get(build)

    def _look(self, row: Build) -> None:
        if self._deadline is None and row.instance is not None:
            self._deadline = self._ledger.instances.get(row.instance).deadline
        if self._talk:
            self._status.update(row, self._deadline)
            why = self._help.waiting(row.id) if row.state is BuildState.QUEUED else ""
            if why and why != self._why:
                output.say(f"it waits: {why}")
            self._why = why or self._why

    def _wait(self, row: Build) -> None:
        self._help.ensure(row.spec.provider)
        if self._signals.count:
            self._signalled(row)
        self._signals.sleep(PAUSE)

    def _signalled(self, row: Build) -> None:
        if not self._own:
            output.clear_live()
            raise exits.Leave(self._signals.code)
        if self._signals.count > 1:
            output.clear_live()
            output.say(f"leaving {row.id}: {self._last_resort()}")
            raise exits.Leave(self._signals.code)
        if not self._cancelled:
            self._cancelled = True
            output.clear_live()
            self._ledger.builds.request_cancel(row.id, Reason.USER, time.time())
            self._help.wake()
            output.say(f"cancelling {row.id} and destroying its VM; once more leaves at once")

    def _last_resort(self) -> str:
        if self._deadline is None:
            return "no VM was asked for yet"
        at = datetime.fromtimestamp(self._deadline, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"its VM ends with the next `vmrunner reap`, at the latest at {at}"

    def _linger(self, build: str) -> None:
        """Our engine ends with us: see the VM gone first."""
        end = time.monotonic() + _LINGER
        while time.monotonic() < end:
            row = self._ledger.builds.get(build)
            alive = self._ledger.instances.list(build=build, active=True)
            if not alive or row.state is BuildState.HELD:
                return
            if self._signals.count > (1 if self._cancelled else 0):
                output.say(f"leaving {build}: {self._last_resort()}")
                raise exits.Leave(self._signals.code)
            self._help.ensure(row.spec.provider)
            self._signals.sleep(PAUSE)
        output.say(f"the VM of {build} is not seen gone yet: {self._last_resort()}")
