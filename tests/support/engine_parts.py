"""What an engine's parts are wired to in their own tests: a ledger, the fake cloud, a clock.

Time passes when a test says so, and every call is over when it returns (`Inline`), unless a test
puts `pool` in its place. Each part is made by the test that is about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.inline_pool import Inline, prepared
from tests.support.ledger_builds import PROCESS, SCOPE, orders, spec
from vmrunner.core.scheduling import PlannedStart
from vmrunner.engine.context import EngineContext, EngineLimits
from vmrunner.engine.engine import Engine
from vmrunner.engine.launcher import Launcher
from vmrunner.engine.provider_answers import ProviderAnswers
from vmrunner.ledger import Ledger
from vmrunner.lib.process import current
from vmrunner.lib.threads import WorkerPool
from vmrunner.model import BuildRecord, BuildState, Death, Instance, InstanceState, Process, Spec
from vmrunner.providers.fake import Clock, Cloud, FakeMachine, FakeProvider
from vmrunner.session.session import Session

T = TypeVar("T")

ENGINE = "e-1"
#: A build's states up to its steps, and what its instance becomes in each.
TO_STEPS = (
    (BuildState.CONNECTING, None),
    (BuildState.PREPARING, InstanceState.READY),
    (BuildState.RUNNING, InstanceState.BUSY),
)


class Later(Inline):
    """A pool whose calls happen when `run` is called."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def submit(self, work: Callable[[], T]) -> Future[T]:
        future, call = prepared(work)
        self._waiting.append(call)
        return future

    def run(self) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()


@dataclass
class Paths:
    """The directories of an engine."""

    root: Path

    @property
    def sources(self) -> Path:
        return self.root

    @property
    def artifacts(self) -> Path:
        return self.root

    @property
    def wake(self) -> Path:
        return self.root / "wake"


@dataclass
class EngineParts:
    """The context of one engine. `wakes` counts how often somebody woke it."""

    root: Path
    ledger: Ledger
    clock: Clock = field(default_factory=Clock)
    pool: WorkerPool = field(default_factory=Inline)
    wakes: int = 0

    def __post_init__(self) -> None:
        self.cloud = Cloud(self.clock)
        self.reopen()
        self.join(ENGINE, PROCESS)

    def reopen(self) -> None:
        """Open the provider anew, as one that can what the cloud can now."""
        self.provider = FakeProvider(
            "local", self.cloud, scopes=(SCOPE,), machine_types=("small", "large")
        )
        self.context = self.context_of(ENGINE)

    def engine(self, **options: Any) -> Engine:
        """A whole engine of this ledger and provider, which listens to nobody."""
        return Engine(
            self.ledger,
            {"local": self.provider},
            Session,
            EngineLimits(),
            process=current(),
            kind="serve",
            paths=self.context.paths,
            orders=self.context.orders,
            listen=False,
            **options,
        )

    def context_of(self, name: str) -> EngineContext:
        """The context of an engine of this name, at the same ledger and cloud."""

        def pool(_provider: str) -> WorkerPool:
            return self.pool

        def answers(provider: str) -> ProviderAnswers:
            return ProviderAnswers(provider, lambda: self.pool, self.clock, self._wake)

        return EngineContext(
            id=name,
            answers=cache(answers),
            ledger=self.ledger,
            providers={"local": self.provider},
            limits=EngineLimits(),
            paths=Paths(self.root),
            orders=orders(self.ledger),
            create_threads=pool,
            change_threads=pool,
            delete_threads=pool,
            reap_threads=pool,
            wake=self._wake,
            clock=self.clock,
            monotonic=self.clock,
        )

    def join(self, name: str, process: Process) -> None:
        """Let an engine be in the ledger's list."""
        self.ledger.engines.join(name, process, "serve", self.clock(), ["local"])

    def _wake(self) -> None:
        self.wakes += 1

    # --- builds, as far as a test wants them ---

    def submit(self, build: str = "b-1", **changes: Any) -> BuildRecord:
        """One that is queued."""
        return self.ledger.builds.submit(spec(**changes), id=build, now=self.clock())[0]

    def planned(self, build: BuildRecord) -> PlannedStart:
        """The start of it, with two offers."""
        return PlannedStart(build=build, offers=tuple(self.provider.offers(Spec())))

    def booting(self, build: str = "b-1", **changes: Any) -> tuple[BuildRecord, Instance]:
        """A new build whose VM was asked for and is there."""
        self.submit(build, **changes)
        return self.launch(build)

    def launch(self, build: str = "b-1") -> tuple[BuildRecord, Instance]:
        """A queued build whose VM is asked for."""
        launcher = Launcher(self.context)
        launcher.start([self.planned(self.build(build))])
        launcher.collect()
        return self.rows(build)

    def running(self, build: str = "b-1", **changes: Any) -> tuple[BuildRecord, Instance]:
        """A new build whose steps run."""
        instance, _ = self.booting(build, **changes)
        for state, instance_to in TO_STEPS:
            self.ledger.builds.advance(
                build, epoch=instance.epoch, to=state, now=self.clock(), instance_to=instance_to
            )
        self.ledger.builds.steps_started(build, epoch=instance.epoch)
        return self.rows(build)

    def dying(self, build: str = "b-1") -> Instance:
        """The row of a VM that is there and must die."""
        _, row = self.booting(build)
        return self.mark_deleting(row)

    def mark_deleting(self, row: Instance) -> Instance:
        """The row, as it is when its VM must die."""
        dying = self.ledger.instances.mark_deleting(
            row.id, seen_epoch=row.epoch, death=Death.DONE, now=self.clock()
        )
        assert dying is not None
        return dying

    # --- what came of it ---

    def build(self, build: str = "b-1") -> BuildRecord:
        return self.ledger.builds.get(build)

    def rows(self, build: str = "b-1") -> tuple[BuildRecord, Instance]:
        """The build and the row of its last VM, as the ledger has them now."""
        found = self.ledger.builds.get(build)
        return found, self.ledger.instances.get(found.instance or "")

    def machine(self, row: Instance) -> FakeMachine:
        """The VM of a row."""
        assert row.ref is not None
        return self.cloud.machines[row.ref]

    def event_count(self, kind: str, build: str = "b-1") -> int:
        """How many events of this kind the build has."""
        return sum(event.kind == kind for event in self.ledger.events.list(build))


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[EngineParts]:
    root = tmp_path / "data"
    ledger = Ledger.open(f"sqlite:///{root}/ledger.db", data_dir=root)
    yield EngineParts(root, ledger)
    ledger.close()
