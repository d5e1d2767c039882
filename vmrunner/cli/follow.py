"""Being there while a build runs: its log on stdout, its phases on stderr, Ctrl-C and SIGTERM."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from vmrunner.cli import exit_codes, output
from vmrunner.cli.ci_groups import CiGroups
from vmrunner.cli.last_times import LastTimes
from vmrunner.cli.log_sink import LogSink
from vmrunner.cli.signals import Signals
from vmrunner.errors import LedgerError
from vmrunner.lib import units
from vmrunner.model import BuildEvent, BuildRecord, BuildState, Chunk, EventKind
from vmrunner.services.cancel import cancel
from vmrunner.services.follow import BuildFollower, ended

if TYPE_CHECKING:
    from vmrunner.services.protocols import Service, ServingHost

_SPIN: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class StatusLine:
    """The phases on stderr: one live line on a terminal, a line for each in a pipe."""

    def __init__(self, *, live: bool, may_draw: Callable[[], bool], now: Callable[[], float]):
        self._live = live
        self._may_draw = may_draw
        self._now = now
        self._printed = 0  # phases
        self._progress = ""
        self._ticks = 0

    def update(
        self, build: BuildRecord, deadline: float | None, *, hint: str = "", progress: str = ""
    ) -> None:
        """Show it. `hint`: what is known of the present phase from before; `progress`: how far it
        is."""
        if self._live:
            self._ticks += 1
            if self._may_draw():
                details = f"{hint}{', ' if progress else ''}{progress}"
                output.live(lambda room: self._line(build, deadline, details, room))
        else:
            self._plain(build, hint)
            if progress and progress != self._progress:
                self._progress = progress
                output.say(progress)

    def _plain(self, build: BuildRecord, hint: str) -> None:
        """A line for each phase since the last call, however short it was."""
        for phase in build.phases[self._printed :]:
            if phase.state is not BuildState.FINISHED:
                since = units.span(phase.started - build.created_at)
                again = phase.state is BuildState.PROVISIONING and build.attempt > 1
                attempt = f" (attempt {build.attempt})" if again else ""
                present = hint if phase is build.phases[-1] else ""
                output.say(f"[{since:>6}] {phase.state.value}{attempt}{present}")
        self._printed = len(build.phases)

    def _line(self, build: BuildRecord, deadline: float | None, details: str, room: int) -> str:
        """The present phase and the time that remains; of phases before, what there is room
        for."""
        now = self._now()
        done = [
            f"{phase.state.value} {units.span(phase.seconds(now))}"
            for phase in build.phases
            if phase.ended is not None and phase.seconds(now) >= 0.05
        ]
        spin = _SPIN[self._ticks % len(_SPIN)]
        current = f"{build.state.value} {spin} {units.span(now - build.state_since)}{details}"
        ending = "" if deadline is None else f"   VM ends in {units.span(deadline - now)}"
        parts = [build.id[:10], *done[-4:], current]
        while len(line := " ─ ".join(parts) + ending) > room and len(parts) > 1:
            del parts[1 if len(parts) > 2 else 0]
        return line


class PullNotice:
    """A word when the steps wait for the container's image, which may take minutes: with how long
    that took the last time."""

    def __init__(self, times: LastTimes) -> None:
        self._times = times
        self._began: dict[int, float] = {}  # attempt -> epoch seconds
        self._begun = 0  # the attempt whose container is there

    def may_come(self, build: BuildRecord) -> bool:
        """True while the attempt's container is not there."""
        return build.state is BuildState.RUNNING and self._begun != build.attempt

    def tell(self, build: BuildRecord, events: Iterable[BuildEvent]) -> None:
        """Tell of the pull that new events of the attempt show; or keep how long it took."""
        step = f"pull: {build.spec.container}"
        at = {event.kind: event.time for event in events}
        if EventKind.PULLING in at:
            self._began[build.attempt] = at[EventKind.PULLING]
        ready = [at[kind] for kind in (EventKind.CONTAINER, EventKind.STEP_STARTED) if kind in at]
        if ready:
            self._begun = build.attempt
            self._times.note(step, ready[0] - self._began.get(build.attempt, ready[0]))
        elif EventKind.PULLING in at:
            text = f"pulling container image {build.spec.container}: it is not in the VM image"
            output.say(f"{text}{self._times.hint(step)}")


class TerminalFollower:
    """Shows one build to its end. `own`: it is this process's, and ends with it."""

    def __init__(
        self,
        service: Service,
        host: ServingHost,
        build: str,
        sink: LogSink,
        signals: Signals,
        *,
        own: bool,
        after: int = 0,
        talk: bool = True,
        live: bool = False,
    ) -> None:
        self._ledger = service.ledger
        self._host = host
        self._build = build
        self._sink = sink
        self._signals = signals
        self._own = own
        self._talk = talk
        self._follower = BuildFollower(
            service.ledger,
            host,
            build,
            log=service.log(build),
            after=after,
            leave=self._leave_if_told,
            sleep=signals.sleep,
            ledger_away=self._tell_of_ledger,
            interval=service.follow_interval,
        )
        self._status = StatusLine(live=live and talk, may_draw=lambda: sink.at_start, now=time.time)
        self._cancelled = False
        self._over = False
        self._why = ""
        self._heard = 0  # events
        self._deadline: float | None = None
        self._times = LastTimes()
        self._pull = PullNotice(self._times)
        self._hint: str | None = None  # how long artifacts took the last time, once it was read
        self._arrived = ""  # how much of them

    def follow(self) -> BuildRecord:
        """Follow a build until it has ended, and with `own` until its VM is gone. Raises `ExitNow`
        when the user leaves before that, and LedgerError when the ledger is out of reach for too
        long."""
        row = self._follower.read()
        groups = CiGroups(self._ledger, row)
        self._sink.held_up = lambda: self._mind(row)
        for row, chunks in self._follower.rounds():
            self._look(row)
            for chunk in chunks:
                self._show(chunk, groups)
            if not ended(row):
                self._obey()
        self._sink.finish()
        self._mark(groups, math.inf, math.inf)
        self._sink.wait()
        output.clear_live()
        if self._own:  # our engine ends with us: see the VM gone first
            self._over = True
            if not self._follower.settle():
                text = f"the VM of {self._build} is not seen gone yet"
                output.say(f"{text}: {self._last_resort()}")
        return self._follower.read()

    def _show(self, chunk: Chunk, groups: CiGroups) -> None:
        self._sink.wait()
        output.clear_live()
        self._mark(groups, chunk.attempt, chunk.offset)
        self._sink.write(chunk)

    def _mark(self, groups: CiGroups, attempt: float, offset: float) -> None:
        if groups.talks and not self._talk:
            return
        for mark in self._follower.patiently(lambda: groups.before(attempt, offset)):
            (output.say if groups.talks else self._sink.mark)(mark)

    def _look(self, row: BuildRecord) -> None:
        if self._deadline is None and row.instance is not None:
            instance, instances = row.instance, self._ledger.instances
            self._deadline = self._follower.patiently(lambda: instances.get(instance)).end
        if self._talk:
            pulling = self._pull.may_come(row)
            events = self._events(row) if pulling or row.state is BuildState.COLLECTING else []
            hint, progress = self._collecting(row, events)
            self._status.update(row, self._deadline, hint=hint, progress=progress)
            why = self._host.waiting(row.id) if row.state is BuildState.QUEUED else ""
            if why and why != self._why:
                output.say(f"it waits: {why}")
            self._why = why or self._why
            if pulling:
                self._pull.tell(row, events)

    def _collecting(self, row: BuildRecord, events: Iterable[BuildEvent]) -> tuple[str, str]:
        """Progress of the collecting of artifacts: how long it took the last time, for
        a build of this name, and how much has come. `events`: the new ones, which may be younger
        than the row."""
        step = f"artifacts: {row.spec.name}"
        for event in events:
            size = event.data.get("bytes")
            if event.kind == EventKind.COLLECTING and isinstance(size, int):
                self._arrived = f"{units.amount(size)} of artifacts have come"
        if row.state is not BuildState.COLLECTING:
            for phase in row.phases if row.spec.name and ended(row) else ():
                if phase.state is BuildState.COLLECTING and phase.ended is not None:
                    self._times.note(step, phase.ended - phase.started)
            return "", ""
        if self._hint is None:
            self._hint = self._times.hint(step) if row.spec.name else ""
        return self._hint, self._arrived

    def _events(self, row: BuildRecord) -> list[BuildEvent]:
        """Return the new events of the attempt."""
        events = self._follower.patiently(
            lambda: self._ledger.events.list(row.id, after=self._heard)
        )
        self._heard = events[-1].seq if events else self._heard
        return [event for event in events if event.data.get("attempt") == row.attempt]

    def _tell_of_ledger(self, error: LedgerError) -> None:
        output.say(f"waiting for the ledger: {error}")

    def _mind(self, row: BuildRecord) -> None:
        """While our output is not read: see to it that the build is served all the same."""
        self._follower.ensure_served(row)
        self._obey()

    def _obey(self) -> None:
        """Do what the user asked for by signals."""
        self._leave_if_told()
        if self._signals.count and not self._cancelled:
            self._follower.patiently(lambda: cancel(self._ledger, self._build))
            self._cancelled = True
            self._host.wake()
            self._say(f"cancelling {self._build} and destroying its VM; once more leaves at once")

    def _leave_if_told(self) -> None:
        """The first signal ends a build of our own, and the second leaves it; the first leaves
        one that is another's, or has ended by itself."""
        spared = self._cancelled if self._over else self._own
        if self._signals.count > (1 if spared else 0):
            if output.ready(sys.stderr, 0):
                output.clear_live()  # the shell's prompt comes where it stood
                if self._own:
                    output.say(f"leaving {self._build}: {self._last_resort()}")
            raise exit_codes.ExitNow(self._signals.code)

    def _say(self, text: str) -> None:
        """Say it, as soon as stderr takes it."""
        while not output.ready(sys.stderr):
            self._leave_if_told()
        output.say(text)

    def _last_resort(self) -> str:
        if self._deadline is None:
            return "no VM was asked for yet"
        at = datetime.fromtimestamp(self._deadline, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"its VM ends with the next `vmrunner reap`, at the latest at {at}"
