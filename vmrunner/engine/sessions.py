"""Sessions: one thread a build, from the first handshake to the verdict.

What a session reports is written at the epoch that it was started with. Once another engine owns
the build, every report raises Fenced, and the session drops all and ends without a verdict.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, KeysView
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from vmrunner.core import trace_context
from vmrunner.core.lifecycle import End, InstanceSign, end_of_container
from vmrunner.engine.context import EngineContext, log
from vmrunner.engine.reporter import LedgerReporter
from vmrunner.errors import CredentialsRefused, Fenced, ProviderError, StoreError
from vmrunner.model import TRACES, BuildRecord, ContainerEnd, EventKind, Instance, Reason, Result
from vmrunner.providers import TellsContainer, TellsUsage, registry
from vmrunner.store.build_artifacts import directory_of

if TYPE_CHECKING:
    from vmrunner.session.job import Reporter, SessionJob
    from vmrunner.session.ssh.client import Connection

#: So long a build whose VM is there waits for a store that is out of reach, and between two tries.
STORE_PATIENCE: Final = 300.0
STORE_RETRY: Final = 5.0
#: Questions to a system how a container ended, and seconds between them: it may hear of it later.
CONTAINER_QUESTIONS: Final = 20
CONTAINER_PAUSE: Final = 1.0
TELL_AGAIN: Final = 60.0  # seconds; that threads or memory are short is told again then
LEAST_LOG: Final = 64 * 1024  # bytes that an attempt may say, whatever those before it said


class RunsSession(Protocol):
    """A session, as `vmrunner.session.session.Session` is one to an engine."""

    def run(self) -> End:
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
    connection: Connection | None = None
    session: RunsSession | None = None
    stopped: Reason | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    stopped_at: float | None = None  # monotonic
    sign: InstanceSign | None = None  # what was seen of its VM, when that is why it was stopped

    @property
    def epoch(self) -> int:
        return self.build.epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionEnd:
    """The end of a session. `end` is None when it lost its build to another owner."""

    active: ActiveSession
    end: End | None


class SessionManager:
    """All sessions of one engine."""

    def __init__(
        self,
        context: EngineContext,
        sessions: Sessions,
        spawn: Spawn = thread,
        load: Callable[[], None] | None = None,
    ) -> None:
        """`load` loads, once, what sessions need, which takes longer than some VMs take to come."""
        self._load = load
        self._context = context
        self._sessions = sessions
        self._spawn = spawn
        self._warned_at = float("-inf")  # monotonic; that there are no more threads
        self._lock = threading.Lock()
        self._all: dict[str, ActiveSession] = {}
        self._touched: set[str] = set()
        self._ends: queue.SimpleQueue[SessionEnd] = queue.SimpleQueue()

    def of(self, build: str) -> ActiveSession | None:
        """The session that drives this build here."""
        return self._all.get(build)

    def all(self) -> list[ActiveSession]:
        return list(self._all.values())

    def builds(self) -> KeysView[str]:
        """Return the ids of the builds that have one."""
        return self._all.keys()

    def expect(self) -> None:
        """Load what sessions need, beside all else: a VM is on its way."""
        load, self._load = self._load, None
        if load is not None:
            with self._context.guard("load sessions"):
                self._spawn("load sessions", load)

    def touched(self) -> set[str]:
        """Return the builds whose sessions were started, stopped or ended since the last call."""
        touched, self._touched = self._touched, set()
        return touched

    def start(
        self, build: BuildRecord, instance: Instance, connection: Connection | None = None
    ) -> None:
        """Drive this build; one session a build. `connection`: open to that instance already. Where
        this host starts no more threads, it has none, and the next tick comes back to it."""
        reporter = LedgerReporter(self._context, build, instance)
        active = ActiveSession(build, instance, reporter, connection)
        self._all[build.id] = active
        self._touched.add(build.id)
        try:
            self._spawn(f"session {build.id}", lambda: self._run(active))
        except RuntimeError as error:
            self._tell_scarcity(build.id, error)
            del self._all[build.id]
            reporter.close()
            if connection is not None:
                connection.close()

    def stop(self, build: str, reason: Reason, sign: InstanceSign | None = None) -> None:
        """Tell its session to end; only the first reason counts, and a later DEADLINE."""
        active = self._all.get(build)
        if active is None:
            return
        self._touched.add(build)
        with self._lock:
            if active.stopped is None or (
                reason is Reason.DEADLINE and active.stopped is not reason
            ):
                active.stopped = reason
                active.stopping.set()
                active.stopped_at = active.stopped_at or self._context.monotonic()
                active.sign = active.sign or sign
                if active.session is not None:
                    active.session.stop(reason)

    def drop(self, build: str) -> None:
        """Let go: another owns the build, or its verdict came from elsewhere."""
        active = self._all.pop(build, None)
        if active is not None:
            self._touched.add(build)
            active.reporter.close()
            with self._lock:
                if active.session is not None:
                    active.session.stop(Reason.VM_LOST)

    def ends(self) -> list[SessionEnd]:
        """The sessions that ended since the last call, without those that were dropped."""
        found: list[SessionEnd] = []
        while True:
            try:
                ended = self._ends.get_nowait()
            except queue.Empty:
                return found
            if self._all.get(ended.active.build.id) is ended.active:
                del self._all[ended.active.build.id]
                self._touched.add(ended.active.build.id)
                found.append(ended)

    def _run(self, active: ActiveSession) -> None:
        end: End | None
        started = time.monotonic()
        try:
            end = self._drive(active)
        except Fenced as error:
            log.info("%s", error)
            end = None
        except StoreError as error:
            end = End(result=Result.ERROR, reason=Reason.INTERNAL, message=str(error), lost=True)
        except CredentialsRefused as error:
            end = End(result=Result.ERROR, reason=Reason.CREDENTIALS, message=str(error))
        except MemoryError as error:
            # As where no thread is had: that says nothing of the build, whose VM goes on. The next
            # tick takes it up again, until its deadline.
            self._tell_scarcity(active.build.id, error)
            active.reporter.close()
            end = None
        except Exception as error:  # noqa: BLE001 - a session may not take the engine with it
            log.exception("session of %s", active.build.id)
            end = End(
                result=Result.ERROR,
                reason=Reason.INTERNAL,
                message=f"{type(error).__name__}: {error}",
                lost=True,
            )
        log.debug("session of %s: %.1f s", active.build.id, time.monotonic() - started)
        self._ends.put(SessionEnd(active=active, end=end))
        self._context.wake()

    def _tell_scarcity(self, build: str, error: Exception) -> None:
        """Log, now and then, that this host has too little for a session."""
        now = self._context.monotonic()
        if now >= self._warned_at + TELL_AGAIN:
            self._warned_at = now
            text = str(error) or type(error).__name__
            log.warning("session of %s: %s; all such are tried again", build, text)

    def _drive(self, active: ActiveSession) -> End:
        # A ledger that is out of reach for a moment costs no build that its VM goes on with.
        job = active.reporter.patiently(lambda: self._job(active))
        session = self._sessions(job, active.reporter)
        with self._lock:
            active.session = session
            stopped = active.stopped
        if stopped is not None:
            session.stop(stopped)
        end = session.run()
        if end.asks_container:
            end = end_of_container(end, self._container_end(active))
        return self._measured(end, active.instance)

    def _job(self, active: ActiveSession) -> SessionJob:
        # Only now: a caller with sessions of its own needs no SSH library.
        from vmrunner.session.job import SessionJob

        context, build, instance = self._context, active.build, active.instance
        former = (
            context.ledger.logs.size(build.id, before=build.attempt) if build.attempt > 1 else 0
        )
        return SessionJob(
            build=build,
            instance=instance,
            access=context.ledger.instances.access(instance.id),
            channel=context.channel_to(instance),
            box=context.box_of(instance),
            secrets=context.ledger.builds.secrets(build.id),
            source=self._source(active),
            artifacts=directory_of(context.paths.artifacts, build.id, build.epoch),
            log_bytes=max(LEAST_LOG, context.limits.log_bytes - former),
            artifact_bytes=context.limits.artifact_bytes,
            caches=context.caches_of(build) if build.spec.caches else None,
            connection=active.connection,
            guest_due=_guest_due(active.instance),
            traceparent=self._traceparent(build),
        )

    def _container_end(self, active: ActiveSession) -> ContainerEnd | None:
        """The end of its container as its provider knows it; None: it does not."""
        instance = active.instance
        for _ in range(CONTAINER_QUESTIONS):
            try:
                provider = self._context.provider_of(instance)
                if not isinstance(provider, TellsContainer) or instance.ref is None:
                    return None
                if (found := provider.ended(instance.ref)) is not None:
                    return found
            except ProviderError as error:
                log.warning("%s: how its container ended: %s", instance.id, error)
            if active.stopping.wait(CONTAINER_PAUSE):
                return None
        return None

    def _measured(self, end: End, instance: Instance) -> End:
        """The end, with what who runs the VM saw that it used."""
        seen = None
        try:
            provider = self._context.provider_of(instance)
            if isinstance(provider, TellsUsage) and instance.ref is not None:
                seen = provider.used(instance.ref)
        except Exception as error:  # noqa: BLE001 - a figure that is missing costs no verdict
            log.warning("%s: what it used is not known: %s", instance.id, error)
        if seen is None:
            return end
        usage = replace(end.usage, vm_cpu_seconds=seen.cpu_seconds, vm_disk=seen.disk)
        return replace(end, usage=usage)

    def _traceparent(self, build: BuildRecord) -> str:
        """The parent of the steps' spans: the build's span, where one will be exported, else its
        submitter's."""
        ledger = self._context.ledger
        event = ledger.events.first(build.id, EventKind.TRACE)
        parent = trace_context.told_by(event)
        if ledger.outbox.names(TRACES, self._context.clock()):
            return str(trace_context.of_build(ledger.installation, build.id, parent))
        return str(parent or "")

    def _source(self, active: ActiveSession) -> Path | None:
        """The packed source. A store that is out of reach is waited for a while, in the build's own
        thread: what ends the build and its VM goes on meanwhile."""
        context, build = self._context, active.build
        until = context.monotonic() + STORE_PATIENCE
        while True:
            try:
                return context.source_of(build)
            except StoreError as error:
                if active.stopped is not None:
                    return None  # the session ends before it wants it
                if context.monotonic() >= until:
                    raise
                context.ledger.events.add(
                    build.id, EventKind.TROUBLE, context.clock(), doing="source", error=str(error)
                )
            active.stopping.wait(STORE_RETRY)


def _guest_due(instance: Instance) -> float | None:
    """Time at which the guest ends itself, where its build came after it was told another."""
    driver = registry.find(instance.scope.kind)
    delay = driver.guest_timer_delay if driver is not None else 0.0
    return None if instance.due is None else instance.due + delay
