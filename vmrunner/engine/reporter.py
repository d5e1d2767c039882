"""Reports of a session, written to the ledger at the epoch that the session was started with.

Once another owns the build, or the engine lets go of it, every report raises Fenced.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from vmrunner.engine import lifecycle_log
from vmrunner.engine.context import EngineContext, log
from vmrunner.errors import Fenced, LedgerError, Throttled, Uncertain
from vmrunner.model import BuildRecord, BuildState, EventKind, Instance, InstanceState
from vmrunner.providers import LowersDeadline, Seals

T = TypeVar("T")

#: What an instance is while its build is there.
INSTANCE_IN: Final[Mapping[BuildState, InstanceState]] = {
    BuildState.PREPARING: InstanceState.READY,
    BuildState.RUNNING: InstanceState.BUSY,
}
_ORDER: Final = {state: place for place, state in enumerate(BuildState)}
WRITE_RETRY: Final = 1.0  # seconds between tries while the ledger, or the cloud, is out of reach
SEALING: Final = 60.0  # seconds that a build waits for its provider to secure its VM


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
        """Let go of the build: from now on every report raises Fenced."""
        self._closed.set()

    def state(self, to: BuildState) -> None:
        """Move on. Where the build is already, or was before a take-over, is not said again."""
        if _ORDER[to] <= _ORDER[self._state]:
            return
        self._move(to, INSTANCE_IN.get(to))
        self._state = to  # the tick sees it in its turn: now it would hinder this session
        if to is BuildState.RUNNING:
            lifecycle_log.began(self._build, self._instance)

    def _move(self, to: BuildState, instance_to: InstanceState | None) -> None:
        ttl = self._build.spec.sandbox_ttl if to is BuildState.RUNNING else None

        def advance() -> BuildRecord:
            now = self._context.now(self._instance)
            return self._context.ledger.builds.advance(
                self._build.id,
                epoch=self._build.epoch,
                to=to,
                now=now,
                instance_to=instance_to,
                hold_until=None if ttl is None else now + ttl,
            )

        self.patiently(advance)

    def busy(self) -> None:
        """A large source may be longer on its way than a VM may be ready and unused."""
        if self._state is BuildState.PREPARING:
            self._move(self._state, InstanceState.BUSY)

    def log(self, offset: int, data: bytes) -> None:
        """Store log bytes; `offset` is where their raw bytes end. Never stores them twice."""
        logs, build = self._context.ledger.logs, self._build
        self._once(
            lambda again: logs.append(
                build.id,
                build.attempt,
                build.epoch,
                offset=offset,
                data=data,
                now=self._context.now(self._instance),
                again=again,
            )
        )

    def event(self, kind: EventKind, **data: str | int | float | bool | None) -> None:
        """Tell what happened, once."""
        now, build = self._context.now(self._instance), self._build
        data["attempt"] = build.attempt
        events = self._context.ledger.events
        self._once(
            lambda again: (events.repeat if again else events.add)(build.id, kind, now, **data)
        )

    def _once(self, work: Callable[[bool], None]) -> None:
        """Do it patiently. It hears whether it may be done: the ledger may have failed after it."""
        tries = itertools.count()
        self.patiently(lambda: work(next(tries) > 0))

    def stored(self) -> int:
        """The raw offset up to which this attempt's log is stored."""
        build = self._build
        return self.patiently(lambda: self._context.ledger.logs.offset(build.id, build.attempt))

    def steps_started(self) -> None:
        """The attempt's steps may have run from here on: no retry unless it was asked for. Before
        that, what they must not reach is switched off."""
        build = self._build
        self._lower_deadline()
        if not (build.steps_started or self._sealed):
            self._seal()
        self.patiently(
            lambda: self._context.ledger.builds.steps_started(build.id, epoch=build.epoch)
        )

    def _lower_deadline(self) -> None:
        """Lower the VM's deadline in its cloud, where its build's end comes first."""
        instance, provider = self._instance, self._context.provider_of(self._instance)
        if instance.due is None or instance.ref is None:
            return
        if isinstance(provider, LowersDeadline):
            due, ref = instance.due, instance.ref
            self._insist(lambda: provider.lower(ref, due), "its deadline is not lowered yet")

    def _seal(self) -> None:
        """Switch the VM's metadata service off; no step runs where that is refused."""
        provider, ref = self._context.provider_of(self._instance), self._instance.ref
        if isinstance(provider, Seals) and ref is not None:
            self._insist(lambda: provider.seal(ref), "its metadata service is not off yet")
        self._sealed = True

    def _insist(self, work: Callable[[], None], trouble: str) -> None:
        """Do it; while the provider is out of reach, again, for a while."""
        until = self._context.monotonic() + SEALING
        while True:
            try:
                return work()
            except (Throttled, Uncertain) as error:
                if self._context.monotonic() >= until:
                    raise
                log.warning("%s: %s: %s", self._instance.id, trouble, error)
            if self._closed.wait(WRITE_RETRY):
                raise Fenced(f"this engine let go of {self._build.id}")

    def patiently(self, work: Callable[[], T]) -> T:
        """Do it; while the ledger is out of reach, wait and do it again, until the deadline."""
        while True:
            if self._closed.is_set():
                raise Fenced(f"this engine let go of {self._build.id}")
            try:
                return work()
            except LedgerError as error:
                if self._context.now(self._instance) >= self._instance.end:
                    raise
                log.warning("%s waits for the ledger: %s", self._build.id, error)
                self._closed.wait(WRITE_RETRY)
