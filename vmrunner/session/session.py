"""The session: drives one attempt, whatever happens to the connection.

Each step can be done again on another connection, by this process or, at a higher epoch, another:
unpacking replaces what was unpacked, starting starts once and then only follows, following goes on
at the first byte that is not stored, collecting replaces what was collected.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NoReturn

from vmrunner.core.lifecycle import End
from vmrunner.errors import ConfigError
from vmrunner.model import BuildState, EventKind, Reason, Result
from vmrunner.session.caches import BuildCaches
from vmrunner.session.collect import Uncollected, collect, shortfall
from vmrunner.session.job import OTHER, AttemptOver, Reporter, SessionJob, hidden, order
from vmrunner.session.log_relay import LogRelay
from vmrunner.session.prepare import Preparation
from vmrunner.session.protocol import (
    EndFrame,
    EventFrame,
    FrameDecoder,
    LogFrame,
    ProtocolViolation,
)
from vmrunner.session.ssh import client
from vmrunner.session.supervisor_calls import SupervisorCalls

#: Wishes that the build hears of: it gets time to end, and its artifacts are still wanted.
GENTLE: Final = frozenset({Reason.USER, Reason.OWNER_GONE, Reason.BUDGET})

CANCEL_TIMEOUT: Final = 10.0  # seconds for the VM to take note of a cancel
CANCEL_PATIENCE: Final = 30.0  # seconds until a cancelled build has ended
START_PATIENCE: Final = 300.0  # seconds from the order until the VM must say that it began
TIMEOUT_PATIENCE: Final = 120.0  # seconds past its timeout until the supervisor counts as broken
LAST_ARTIFACTS: Final = 60.0  # seconds for the artifacts of a cancelled build
OMISSIONS: Final = 20  # artifacts that were left out, told one by one
MISHAPS: Final = 3  # times that the supervisor may break off on a connection that lives
WORTH_BYTES: Final = 64 * 1024  # of log, that make the next connection no try in vain
WORTH_SECONDS: Final = 15.0  # that it lasted, which do too
#: Seconds before a connection, after so many in vain.
RECONNECT_PAUSES: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)

_STALE, _SHRUNK, _DEAD, _OTHER = 3, 4, 5, OTHER  # the supervisor's exit codes
_MISSING = 127


class _Stopped(Exception):
    """`stop` was called, and this is as far as it goes."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Session:
    """`run` blocks, in a thread of its own; `stop` may come from any."""

    def __init__(
        self, job: SessionJob, reporter: Reporter, *, now: Callable[[], float] = time.time
    ) -> None:
        """`now` is the clock of the deadline."""
        self._job = job
        self._reporter = reporter
        self._now = now
        self._dialer = client.Dialer(job.access, channel=job.channel)
        self._warm = job.connection
        self._connection: client.Connection | None = None
        self._supervisor: SupervisorCalls | None = None
        self._stop: Reason | None = None
        self._stopping = threading.Event()
        self._cancelled_at: float | None = None  # when the build was told, by `time.monotonic`
        self._until: float | None = None  # when the supervisor must have begun it, then ended it
        self._is_running = False
        self._can_end = job.build.state in (BuildState.RUNNING, BuildState.COLLECTING)  # if told
        self._last_try = False  # `stop` was called, and we connect once more to tell the build
        self._caches = BuildCaches(job, reporter)
        self._preparation = Preparation(job, reporter, self._caches)
        self._mishaps = 0
        self._ended: EndFrame | None = None
        offset = reporter.stored()
        self._relay = LogRelay(reporter, hidden(job), offset)
        self._frames = FrameDecoder(
            offset=offset,
            steps=len(job.build.spec.steps),
            log_bytes=job.log_bytes,
            caches=len(job.build.spec.caches),
        )

    def stop(self, reason: Reason) -> None:
        """End it. A gentle reason lets the build end and artifacts come; others do not wait."""
        if self._stop is None or (self._stop in GENTLE and reason not in GENTLE):
            self._stop = reason
            self._stopping.set()
            if (connection := self._connection) is not None:
                connection.wake()
            else:
                self._dialer.abort()

    def run(self) -> End:
        """Drive the attempt to its end. Raises Fenced when the build has another owner."""
        if ignored := self._relay.ignored:
            self._reporter.event(EventKind.SECRETS_TOO_SHORT, count=ignored)
        try:
            return self._run()
        except AttemptOver as over:
            return over.end
        except _Stopped as stopped:
            self._relay.abandon()
            return self._end_of_stop(stopped.reason)
        except ProtocolViolation as violation:
            self._relay.abandon()
            return End(result=Result.ERROR, reason=Reason.INTERNAL, message=str(violation))
        except ConfigError as error:
            return End(result=Result.ERROR, reason=Reason.INTERNAL, message=str(error))

    # --- connections -------------------------------------------------------------------------

    def _run(self) -> End:
        connected = False
        vain = 0
        while True:
            self._stopping.wait(RECONNECT_PAUSES[min(vain, len(RECONNECT_PAUSES) - 1)])
            self._check_stop()
            patience = [self._job.instance.end - self._now()]
            patience += [CANCEL_TIMEOUT] if self._last_try else []
            patience += [] if connected else [self._job.boot_seconds]
            try:
                self._connection = self._connect(max(min(patience), 1.0))
            except client.Aborted:
                if self._ended is None:
                    continue
                raise _Stopped(self._stop or Reason.VM_LOST) from None
            except client.Unreachable as error:
                if self._last_try:
                    self._check_stop()
                return self._unreachable(error, connected=connected)
            if connected:
                self._reporter.event(EventKind.RECONNECTED, offset=self._relay.offset)
            connected = True
            stored, seen, since = self._relay.offset, self._frames.seen, time.monotonic()
            try:
                return self._work(self._connection)
            except client.ConnectionLost as error:
                self._reporter.event(EventKind.CONNECTION_LOST, message=str(error)[:200])
                self._relay.flush()
                self._relay.resume(self._relay.offset)
                self._frames.resume(self._relay.offset)
                # A VM that hangs up each time gets no loop that is as fast as it likes.
                # Events are few, and each comes once.
                brought = self._relay.offset - stored >= WORTH_BYTES or self._frames.seen != seen
                lasted = time.monotonic() - since >= WORTH_SECONDS
                vain = 0 if brought or lasted else vain + 1
            finally:
                connection, self._connection = self._connection, None
                self._supervisor = None
                connection.close()

    def _connect(self, timeout: float) -> client.Connection:
        if self._warm is not None:
            connection, self._warm = self._warm, None
            return connection
        address = self._job.instance.address
        if address is None:
            raise ConfigError(f"instance {self._job.instance.id} has no address")
        return self._dialer.connect(address, timeout=timeout, on_greeting=self._greeted)

    def _greeted(self) -> None:
        """Report SSH's first word: until then the VM boots."""
        self._reporter.state(BuildState.CONNECTING)

    def _unreachable(self, error: client.Unreachable, *, connected: bool) -> End:
        self._relay.abandon()
        if self._ended is not None:
            return self._cut_off(self._ended, str(error))
        reason = Reason.CONNECTION_LOST if connected else Reason.BOOT_FAILED
        return End(result=Result.ERROR, reason=reason, message=str(error), lost=True)

    def _work(self, connection: client.Connection) -> End:
        """Do all that is left to do, on this connection. Raises Lost."""
        supervisor = self._supervisor = SupervisorCalls(connection, self._job.build.epoch)
        if self._ended is None:
            self._reporter.state(BuildState.PREPARING)
            self._preparation.run(supervisor, self._pulse, self._refused)
            while self._ended is None:
                self._follow(supervisor)
        end = self._collect(connection, supervisor, self._ended.end)
        if end.result is Result.SUCCESS:
            self._caches.bring(supervisor, lambda: self._stop)
        return end

    # --- run ---------------------------------------------------------------------------------

    def _follow(self, supervisor: SupervisorCalls) -> None:
        """Start the steps unless they were, and follow them. Raises Lost, Lie."""
        message = order(self._job, self._now(), self._caches.order())
        self._reporter.steps_started()
        if self._until is None:
            self._until = time.monotonic() + START_PATIENCE
        offset, seen = str(self._relay.offset), str(self._frames.seen)
        done = supervisor.ask_next(
            "start", offset, seen, on_bytes=self._receive, stdin=message, pulse=self._pulse
        )
        if self._ended is not None:
            return
        self._mishaps += 1
        if self._mishaps > MISHAPS or done.exit_code in (1, _STALE, _SHRUNK, _DEAD, _OTHER):
            self._refused(done, "supervisor")
        self._relay.flush()
        self._relay.resume(self._relay.offset)
        self._frames.resume(self._relay.offset)

    def _receive(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            match frame:
                case LogFrame(data=log):
                    self._relay.feed(log)
                case EventFrame():
                    self._tell(frame)
                case EndFrame():
                    self._believe(frame)

    def _tell(self, event: EventFrame) -> None:
        """An event of the build. What was written before it is stored before it."""
        self._running()
        self._relay.flush()
        if event.kind is EventKind.CACHE:
            error = self._relay.masked(str(event.data["error"]))  # it may name a file
            self._caches.heard({**event.data, "error": error})
        else:
            self._reporter.event(event.kind, offset=event.offset, **event.data)

    def _running(self) -> None:
        if not self._is_running:
            self._is_running = self._can_end = True
            timeout = self._job.build.spec.timeout + self._caches.patience
            self._until = time.monotonic() + timeout + TIMEOUT_PATIENCE
            self._reporter.state(BuildState.RUNNING)

    def _believe(self, ended: EndFrame) -> None:
        cancelled = self._stop or self._job.build.cancel
        if ended.reason in GENTLE and cancelled is None:
            raise ProtocolViolation(
                f"the VM says that {ended.reason.value} ended the build, and it was not cancelled"
            )
        self._relay.finish()  # now: the connection may be lost before it closes
        # A registry may repeat to Docker what it was sent.
        self._ended = replace(ended, message=self._relay.masked(ended.message))

    def _refused(self, done: client.Completed, what: str) -> NoReturn:
        """Raise for a command that the supervisor did not carry out."""
        self._relay.flush()
        if done.exit_code == _STALE:
            # True only if the ledger says so too: then this raises Fenced.
            self._reporter.event(EventKind.STALE_EPOCH)
            raise ProtocolViolation("the VM says that another owner spoke to it, and there is none")
        messages = {
            _SHRUNK: "the log in the VM is shorter than what came from it before",
            _DEAD: "the supervisor in the VM died",
            _OTHER: "the VM has run another attempt",
            _MISSING: "the VM has no supervisor: was --bootstrap forgotten for another's image?",
        }
        message = messages.get(done.exit_code, f"{what}: {done.complaint}")
        full = b"No space left on device" in done.stderr
        reason = Reason.DISK_FULL if full else Reason.INTERNAL
        raise AttemptOver(End(result=Result.ERROR, reason=reason, message=message))

    # --- collect -----------------------------------------------------------------------------

    def _collect(self, connection: client.Connection, supervisor: SupervisorCalls, end: End) -> End:
        """Bring the artifacts that are wanted after such an end."""
        globs = self._wanted(end)
        if not globs:
            return end
        self._reporter.state(BuildState.COLLECTING)
        until = time.monotonic() + LAST_ARTIFACTS if end.result is Result.CANCELLED else None

        def pulse() -> float:
            if self._stop is not None and self._stop not in GENTLE:
                raise _Stopped(self._stop)
            if until is not None and time.monotonic() > until:
                raise Uncollected("artifacts: the time for them ran out")
            return 5.0

        gzip = self._job.is_remote
        try:
            done = collect(
                connection,
                supervisor.line("collect", *(["--gzip"] if gzip else [])),
                globs,
                self._job.artifacts,
                most=self._job.artifact_bytes,
                gzip=gzip,
                pulse=pulse,
                on_progress=lambda size: self._reporter.event(EventKind.COLLECTING, bytes=size),
            )
        except (Uncollected, ProtocolViolation) as error:
            return self._without_artifacts(end, self._relay.masked(str(error)))
        except _Stopped as stopped:
            return self._without_artifacts(end, f"artifacts: cut off by {stopped.reason}")
        self._reporter.event(EventKind.ARTIFACTS, count=done.total.entries, bytes=done.total.size)
        missing = [glob for glob, count in zip(globs, done.counts, strict=True) if not count]
        for glob in missing:
            self._reporter.event(EventKind.ARTIFACT_MISSING, glob=glob)
        for why in done.omitted[:OMISSIONS]:
            self._reporter.event(EventKind.ARTIFACT_OMITTED, message=self._relay.masked(why))
        message = self._relay.masked(shortfall(done, missing))  # names are the build's own words
        return end if end.message else replace(end, message=message)

    def _wanted(self, end: End) -> list[str]:
        """The globs of what is to be brought after such an end. A build that never ran has none."""
        if end.reason is Reason.IMAGE or not self._is_running:
            return []
        succeeded = end.result is Result.SUCCESS
        return [rule.glob for rule in self._job.build.spec.artifacts if rule.always or succeeded]

    def _cut_off(self, ended: EndFrame, why: str) -> End:
        """Conclude that the build had ended, and nothing more can come."""
        end = ended.end
        return self._without_artifacts(end, why) if self._wanted(end) else end

    def _without_artifacts(self, end: End, why: str) -> End:
        """A build that asked for artifacts and got none has not succeeded; another end stays."""
        if end.result is not Result.SUCCESS:
            return replace(end, message="; ".join(filter(None, [end.message, why])))
        if self._stop in GENTLE:
            return replace(end, result=Result.CANCELLED, reason=self._stop, message=why)
        return End(
            result=Result.ERROR,
            reason=self._stop or Reason.INTERNAL,
            exit_code=end.exit_code,
            message=why,
            usage=end.usage,
            lost=self._stop is not None and self._stop is not Reason.DEADLINE,
        )

    # --- stopping ----------------------------------------------------------------------------

    def _check_stop(self) -> None:
        """Raise what stops us, once a build that runs had its try to be told: another owner may
        have driven it until now, or the connection be lost."""
        if self._stop is not None and self._ended is None:
            if self._last_try or self._stop not in GENTLE or not self._can_end:
                raise _Stopped(self._stop)
            self._last_try = True
            # `stop` aborted the one before.
            self._dialer = client.Dialer(self._job.access, channel=self._job.channel)

    def _pulse(self) -> float:
        """Do what is due, between pieces of output. Return the seconds until the next time."""
        wait = self._relay.wait()
        now = time.monotonic()
        if self._stop is not None:
            self._cancel(self._stop, now)
            wait = min(wait, 1.0)
        if self._until is not None:
            if now >= self._until:
                raise AttemptOver(self._overdue())
            wait = min(wait, self._until - now)
        return wait

    def _overdue(self) -> End:
        self._relay.abandon()
        if self._is_running:
            message = "the VM did not end the build at its timeout"
            return End(result=Result.TIMEOUT, reason=Reason.BUILD_TIMEOUT, message=message)
        message = f"the VM did not begin the steps in {START_PATIENCE:.0f} s"
        return End(result=Result.ERROR, reason=Reason.INTERNAL, message=message)

    def _cancel(self, reason: Reason, now: float) -> None:
        """Tell the build once; stop waiting for it after a while."""
        if reason not in GENTLE or not self._can_end or self._supervisor is None:
            raise _Stopped(reason)
        if self._cancelled_at is None:
            self._cancelled_at = now
            self._tell_to_end(self._supervisor, reason, until=now + CANCEL_TIMEOUT)
        elif now >= self._cancelled_at + CANCEL_PATIENCE:
            raise _Stopped(reason)

    def _tell_to_end(self, supervisor: SupervisorCalls, reason: Reason, *, until: float) -> None:
        def pulse() -> float:
            remaining = until - time.monotonic()
            if remaining <= 0:
                raise client.ConnectionLost("the VM does not take the cancellation")
            return remaining

        supervisor.ask("cancel", reason.value, pulse=pulse)

    def _end_of_stop(self, reason: Reason) -> End:
        if self._ended is not None:
            return self._cut_off(self._ended, f"cut off by {reason}")
        if reason in GENTLE:
            return End(result=Result.CANCELLED, reason=reason)
        if reason is Reason.DEADLINE:
            return End(result=Result.TIMEOUT, reason=reason)
        return End(result=Result.ERROR, reason=reason, lost=True)
