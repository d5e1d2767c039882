"""Sessions: one thread a build, from the first handshake to the verdict.

What a session reports is written at the epoch that it was started with. Once somebody else owns
the build, every report raises Fenced, and the session drops all and ends without a verdict.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from vmrunner.core.lifecycle import End, InstanceSign
from vmrunner.engine.context import EngineContext, log
from vmrunner.errors import CredentialsRefused, Fenced, LedgerError, Throttled, Uncertain
from vmrunner.model import BuildRecord, BuildState, Instance, InstanceState, Reason, Result
from vmrunner.providers import Seals

if TYPE_CHECKING:
    from vmrunner.session import Reporter, SessionJob, Verdict

T = TypeVar("T")

#: What an instance is while its build is there.
INSTANCE_IN: Final[Mapping[BuildState, InstanceState]] = {
    BuildState.PREPARING: InstanceState.READY,
    BuildState.RUNNING: InstanceState.BUSY,
}
_ORDER: Final = {state: place for place, state in enumerate(BuildState)}
LEAST_LOG: Final = 64 * 1024  # bytes that an attempt may say, whatever those before it said
RETRY: Final = 1.0  # seconds between tries while the ledger, or the cloud, is out of reach
SEALING: Final = 60.0  # seconds that a VM waits for its metadata service to be switched off


class RunsSession(Protocol):
    """What `vmrunner.session.Session` is to an engine."""

    def run(self) -> Verdict:
        """Drive the build on its instance; blocks until it is over."""

    def stop(self, reason: Reason) -> None:
        """End it, from any thread."""


Sessions = Callable[["SessionJob", "Reporter"], RunsSession]
Spawn = Callable[[str, Callable[[], None]], None]


def thread(name: str, work: Callable[[], None]) -> None:
    """Run `work` in a daemon thread."""
    threading.Thread(target=work, name=name, daemon=True).start()


@dataclass(slots=True)
class ActiveSession:
    """One session and what was said to it."""

    build: BuildRecord
    instance: Instance
    reporter: LedgerReporter
    session: RunsSession | None = None
    stopped: Reason | None = None
    stopped_at: float | None = None  # monotonic
    sign: InstanceSign | None = None  # what was seen of its VM, when that is why it was stopped

    @property
    def epoch(self) -> int:
        return self.build.epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionEnd:
    """A session's last word. `end` is None when it lost its build to another owner."""

    following: ActiveSession
    end: End | None


class LedgerReporter:
    """The reporter of one session: all that it writes, at its own epoch."""

    def __init__(self, context: EngineContext, build: BuildRecord, instance: Instance) -> None:
        self._context = context
        self._build = build
        self._instance = instance
        self._state = build.state
        self._closed = threading.Event()
        self._sealed = False

    def close(self) -> None:
        """From now on every report raises Fenced: the engine lets go of the build."""
        self._closed.set()

    def state(self, to: BuildState) -> None:
        """Move on. Where the build is already, or was before a take-over, is not said again."""
        if _ORDER[to] <= _ORDER[self._state]:
            return
        self._move(to, INSTANCE_IN.get(to))
        self._state = to
        self._context.wake()

    def _move(self, to: BuildState, instance_to: InstanceState | None) -> None:
        self._patiently(
            lambda: self._context.ledger.builds.advance(
                self._build.id,
                epoch=self._build.epoch,
                to=to,
                now=self._context.now(self._instance),
                instance_to=instance_to,
            )
        )

    def busy(self) -> None:
        """A large source may be longer on its way than a VM may be ready and unused."""
        if self._state is BuildState.PREPARING:
            self._move(self._state, InstanceState.BUSY)

    def log(self, offset: int, data: bytes) -> None:
        """Store log bytes; `offset` is where their raw bytes end. Never stores them twice."""
        logs, build = self._context.ledger.logs, self._build

        def append() -> None:
            logs.append(
                build.id,
                build.attempt,
                build.epoch,
                offset=offset,
                data=data,
                now=self._context.now(self._instance),
            )

        # When the database failed, it may have been stored all the same.
        self._patiently(append, unless=lambda: self.stored() >= offset)

    def event(self, kind: str, **data: str | int | float | bool | None) -> None:
        """Tell what happened."""
        now, build = self._context.now(self._instance), self._build
        data["attempt"] = build.attempt
        self._patiently(lambda: self._context.ledger.events.add(build.id, kind, now, **data))

    def stored(self) -> int:
        """The raw offset up to which this attempt's log is stored."""
        build = self._build
        return self._patiently(lambda: self._context.ledger.logs.offset(build.id, build.attempt))

    def steps_started(self) -> None:
        """The attempt's steps may have run from here on: no retry without a wish for it. Before
        that, what they must not reach is switched off."""
        build = self._build
        if not (build.steps_started or self._sealed):
            self._seal()
        self._patiently(
            lambda: self._context.ledger.builds.steps_started(build.id, epoch=build.epoch)
        )

    def _seal(self) -> None:
        """Switch the VM's metadata service off; no step runs where that is refused."""
        context, instance = self._context, self._instance
        provider = context.provider_of(instance)
        until = context.monotonic() + SEALING
        while isinstance(provider, Seals) and instance.ref is not None:
            try:
                provider.seal(instance.ref)
                break
            except (Throttled, Uncertain) as error:
                if context.monotonic() >= until:
                    raise
                log.warning("%s: its metadata service is not off yet: %s", instance.id, error)
            if self._closed.wait(RETRY):
                raise Fenced(f"this engine let go of {self._build.id}")
        self._sealed = True

    def _patiently(self, work: Callable[[], T], unless: Callable[[], bool] | None = None) -> T:
        """Do it; while the ledger is out of reach, wait and do it again, until the deadline."""
        failed = False
        while True:
            if self._closed.is_set():
                raise Fenced(f"this engine let go of {self._build.id}")
            try:
                if failed and unless is not None and unless():
                    return None  # type: ignore[return-value]  # only `log` asks, and takes nothing
                return work()
            except LedgerError as error:
                if self._context.now(self._instance) >= self._instance.deadline:
                    raise
                log.warning("%s waits for the ledger: %s", self._build.id, error)
                failed = True
                self._closed.wait(RETRY)


class SessionManager:
    """All sessions of one engine."""

    def __init__(self, context: EngineContext, sessions: Sessions, spawn: Spawn = thread) -> None:
        self._context = context
        self._sessions = sessions
        self._spawn = spawn
        self._lock = threading.Lock()
        self._all: dict[str, ActiveSession] = {}
        self._words: queue.SimpleQueue[SessionEnd] = queue.SimpleQueue()

    def of(self, build: str) -> ActiveSession | None:
        """The session that drives this build here."""
        return self._all.get(build)

    def all(self) -> list[ActiveSession]:
        return list(self._all.values())

    def start(self, build: BuildRecord, instance: Instance) -> None:
        """Drive this build; one session a build."""
        following = ActiveSession(build, instance, LedgerReporter(self._context, build, instance))
        self._all[build.id] = following
        self._spawn(f"session {build.id}", lambda: self._run(following))

    def stop(self, build: str, reason: Reason, sign: InstanceSign | None = None) -> None:
        """Tell its session to end; only the first reason counts, and a later DEADLINE."""
        following = self._all.get(build)
        if following is None:
            return
        with self._lock:
            if following.stopped is None or (
                reason is Reason.DEADLINE and following.stopped is not reason
            ):
                following.stopped = reason
                following.stopped_at = following.stopped_at or self._context.monotonic()
                following.sign = following.sign or sign
                if following.session is not None:
                    following.session.stop(reason)

    def drop(self, build: str) -> None:
        """Let go: another owns the build, or its verdict came from elsewhere."""
        following = self._all.pop(build, None)
        if following is not None:
            following.reporter.close()
            with self._lock:
                if following.session is not None:
                    following.session.stop(Reason.VM_LOST)

    def ends(self) -> list[SessionEnd]:
        """The last words since the last call, of sessions that were not dropped."""
        words: list[SessionEnd] = []
        while True:
            try:
                word = self._words.get_nowait()
            except queue.Empty:
                return words
            if self._all.get(word.following.build.id) is word.following:
                del self._all[word.following.build.id]
                words.append(word)

    def _run(self, following: ActiveSession) -> None:
        end: End | None
        started = time.monotonic()
        try:
            end = self._drive(following)
        except Fenced as error:
            log.info("%s", error)
            end = None
        except CredentialsRefused as error:
            end = End(result=Result.ERROR, reason=Reason.CREDENTIALS, message=str(error))
        except Exception as error:  # noqa: BLE001 - a session may not take the engine with it
            log.exception("session of %s", following.build.id)
            end = End(
                result=Result.ERROR,
                reason=Reason.INTERNAL,
                message=f"{type(error).__name__}: {error}",
                lost=True,
            )
        log.debug("session of %s: %.1f s", following.build.id, time.monotonic() - started)
        self._words.put(SessionEnd(following=following, end=end))
        self._context.wake()

    def _drive(self, following: ActiveSession) -> End:
        # Only now: whoever brings sessions of their own needs no SSH library.
        from vmrunner.session import SessionJob

        context, build, instance = self._context, following.build, following.instance
        former = (
            context.ledger.logs.size(build.id, before=build.attempt) if build.attempt > 1 else 0
        )
        job = SessionJob(
            build=build,
            instance=instance,
            access=context.ledger.instances.access(instance.id),
            secrets=context.ledger.builds.secrets(build.id),
            source=source_of(context, build),
            artifacts=context.places.artifacts / build.id,
            log_bytes=max(LEAST_LOG, context.limits.log_bytes - former),
            artifact_bytes=context.limits.artifact_bytes,
        )
        session = self._sessions(job, following.reporter)
        with self._lock:
            following.session = session
            stopped = following.stopped
        if stopped is not None:
            session.stop(stopped)
        verdict = session.run()
        return End(
            result=verdict.result,
            reason=verdict.reason,
            exit_code=verdict.exit_code,
            message=verdict.message,
            lost=verdict.lost,
        )


def source_of(context: EngineContext, build: BuildRecord) -> Path | None:
    """The packed source of a build, where there is one."""
    path = context.places.sources / f"{build.id}.tar"
    return path if path.exists() else None
