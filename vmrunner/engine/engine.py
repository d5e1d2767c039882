"""The shell: tick() = gather → take over → decide → apply → record.

One thread ticks. Whatever may take long runs elsewhere and is read at a later tick: creates
(`launcher`), deletes (`terminator`), looks (`poller`), sessions (`sessions`). What a tick decides
it decides on what it gathered; every effect then carries the epoch that was seen, so that a stale
view can do no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from vmrunner.core.lifecycle import End, cancelled
from vmrunner.core.scheduling import Offers, OffersAnswer, SchedulingPlan, plan
from vmrunner.engine import cloned_hosts
from vmrunner.engine.cloned_hosts import CloneWatch
from vmrunner.engine.completion import BuildCompletion
from vmrunner.engine.context import (
    CachesOf,
    EngineContext,
    EngineLimits,
    EnginePaths,
    MakesOrders,
    SourceOf,
    log,
    no_caches,
    no_source,
)
from vmrunner.engine.deadlines import DeadlineArmer
from vmrunner.engine.gone_hosts import GoneHosts
from vmrunner.engine.launcher import Launcher
from vmrunner.engine.membership import Membership
from vmrunner.engine.parker import Parker
from vmrunner.engine.poller import FAST_LOOK, InstancePoller
from vmrunner.engine.pool_warm_ups import WarmUps
from vmrunner.engine.pools import PoolManager
from vmrunner.engine.provider_answers import ASKS, ProviderAnswers
from vmrunner.engine.reconciler import Reconciler
from vmrunner.engine.sessions import SessionManager, Sessions, Spawn, thread
from vmrunner.engine.snapshot import Snapshot
from vmrunner.engine.terminator import Terminator
from vmrunner.errors import (
    BadOrder,
    ConfigError,
    CredentialsRefused,
    LedgerError,
    NoCapacity,
    ProviderError,
    QuotaExceeded,
)
from vmrunner.lib import ids
from vmrunner.lib.backoff import backoff
from vmrunner.lib.rare_messages import RareMessage
from vmrunner.lib.threads import DaemonThreadPool, WorkerPool
from vmrunner.lib.wakeup import Listener
from vmrunner.model import (
    BuildRecord,
    BuildState,
    Instance,
    InstanceState,
    PoolSpec,
    Process,
    Reason,
    Spec,
)
from vmrunner.providers import Provider, capabilities
from vmrunner.providers.retired_providers import present

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

#: Seconds from one tick that a hint asked for to the next: what came meanwhile is taken in at once.
MIN_TICK: Final = 0.05
BUSY_TICK: Final = 1.0  # seconds between ticks while builds run: everything urgent wakes us
IDLE_TICK: Final = 2.0
HEARTBEAT: Final = 5.0
TROUBLE: Final = 60.0  # the longest pause after ticks that failed for no known reason
FORGET: Final = 86_400.0  # so long the row of a dead engine is kept, in seconds
QUEUE: Final = 1000  # builds of the queue that a tick looks at
LOOKS: Final = 32  # threads a provider at most: a place that is dead holds a few for long

_SOON: Final = (
    InstanceState.REQUESTED,
    InstanceState.BOOTING,
    InstanceState.PARKING,
    InstanceState.WAKING,
    InstanceState.DELETING,
)


class BuildQueue:
    """The queue of one engine. Builds of providers that it does not have end here when their time
    is over, but never stand in the way of its own. Used by the tick's thread alone."""

    def __init__(self, ledger: Ledger, launches: Callable[[], frozenset[str]]) -> None:
        self._ledger = ledger
        self._launches = launches
        self._first: list[BuildRecord] = []
        self._walked = ""  # of a long queue, the last build that was looked at

    def read(self, *, changed: bool) -> list[BuildRecord]:
        """The builds that wait. `changed`: any build may be another than at the last call. Of a
        long queue its head, and the rest by turns: some of those may be out of time too."""
        if changed:
            self._first = self._ledger.builds.queued(QUEUE)
        if len(self._first) < QUEUE:
            return self._first
        builds, queued = self._ledger.builds, list(self._first)
        for name in self._launches():
            queued += builds.queued(QUEUE, provider=name)
        rest = builds.queued_after(self._walked, QUEUE)
        self._walked = rest[-1].id if rest else ""
        return list({build.id: build for build in (*queued, *rest)}.values())


class Engine:
    """Starts and drives builds, until it is closed."""

    def __init__(
        self,
        ledger: Ledger,
        providers: Mapping[str, Provider],
        sessions: Sessions,
        limits: EngineLimits,
        *,
        process: Process,
        kind: str,
        paths: EnginePaths,
        orders: MakesOrders,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        membership: Membership | None = None,
        pool: Callable[[str, int | None], WorkerPool] = DaemonThreadPool,
        spawn: Spawn = thread,
        listen: bool = True,
        warm_ups: WarmUps | None = None,
        pools: Mapping[str, PoolSpec] | None = None,
        source_of: SourceOf = no_source,
        caches_of: CachesOf = no_caches,
        load_sessions: Callable[[], None] | None = None,
    ) -> None:
        """`kind` says what sort of process this is ("serve", "run", …), for people. `orders` makes
        each instance's order. `pools`: to be filled, with `warm_ups`. `source_of` gives a build's
        packed source, `caches_of` its caches. `load_sessions` is called once a VM is on its way.
        The rest is for tests with a virtual clock."""
        self.id = ids.engine_id()
        self._process = process
        self._kind = kind
        self._pools: dict[str, WorkerPool] = {}
        self._make_pool = pool
        self._provider_answers: dict[str, ProviderAnswers] = {}
        self._listener = Listener(paths.wake if listen else None, self.id)
        self._context = EngineContext(
            id=self.id,
            ledger=ledger,
            providers=providers,
            limits=limits,
            paths=paths,
            orders=orders,
            create_threads=lambda name: self._pool(f"create-{name}", self._creates(name)),
            change_threads=lambda name: self._pool(f"change-{name}", self._creates(name)),
            delete_threads=lambda name: self._pool(f"look-{name}", LOOKS),
            reap_threads=lambda name: self._pool(f"reap-{name}", None),
            answers=self._answers,
            wake=self._listener.set,
            clock=clock,
            monotonic=monotonic,
            pools=pools or {},
            source_of=source_of,
            caches_of=caches_of,
        )
        self._one_host = ledger.url.startswith("sqlite")
        self._membership = membership or Membership(one_host=self._one_host)
        self._launcher = Launcher(self._context)
        self._completion = BuildCompletion(self._context)
        self._terminator = Terminator(self._context)
        self._poller = InstancePoller(self._context)
        self._deadlines = DeadlineArmer(self._context)
        self._sessions = SessionManager(self._context, sessions, spawn, load_sessions)
        self._pool_manager = PoolManager(
            self._context, self._membership, self._launcher, self._sessions, warm_ups, spawn
        )
        self._parker = Parker(self._context, self._completion, self._pool_manager.unparkable)
        self._reconciler = Reconciler(
            self._context,
            self._membership,
            self._launcher,
            self._sessions,
            self._completion,
            self._terminator,
            self._poller,
            self._pool_manager,
            self._deadlines,
        )
        self._clones = CloneWatch(process)
        self.refused: ConfigError | None = None  # why it neither launches nor drives anything
        self._gone_hosts = GoneHosts(self._context, self._membership)
        self._beaten: float | None = None
        self._joined = False
        self._closed = False
        self._away = RareMessage(BUSY_TICK, TROUBLE)  # that the ledger is out of reach
        self._queue = BuildQueue(ledger, lambda: self.launches)
        self.draining = False  # start nothing more; what runs goes on
        self.idle = False  # after a tick: nothing is queued, runs or dies
        self.waiting: Mapping[str, str] = {}  # build → why it is still queued
        self._rows: Mapping[str, Instance] = {}  # of its VMs, as they were read last

    # --- its life ---

    def run(self, until: Callable[[], bool]) -> None:
        """Tick until `until()` is true, which is asked between ticks. A ledger that is out of reach
        is waited for: its instances have their deadlines elsewhere too. Nor does any other error
        end it, since nothing would mind the builds then; it slows down."""
        troubles, hinted = 0, float("-inf")
        while not until():
            try:
                pause = self.tick()
                troubles = 0
                if self._away.reset():
                    log.info("the ledger can be reached again")
            except LedgerError as error:
                self._log_away(error)
                pause = BUSY_TICK
            except Exception:  # noqa: BLE001 - whatever it is, the other builds are minded
                log.exception("a tick failed")
                pause = backoff(BUSY_TICK, troubles, TROUBLE)
                troubles += 1
            if not until() and self._listener.wait(pause):
                time.sleep(max(0.0, hinted + MIN_TICK - self._context.monotonic()))
                hinted = self._context.monotonic()
        if self._closed:  # while a tick ran, which may have joined again
            self._leave()

    def wake(self) -> None:
        """Tick at once; from any thread."""
        self._listener.set()

    def close(self) -> None:
        """Let go of everything. What belongs to the ledger goes on in its VM, and the next engine
        takes it over at once; nothing is cancelled here."""
        if self._closed:
            return
        self._closed = True
        for active in self._sessions.all():
            active.reporter.close()
        self._pool_manager.close()
        self._leave()
        for pool in self._pools.values():
            pool.close()
        self._listener.close()

    def retire(self) -> bool:
        """Leave for good, unless there is work for us. Who submits looks for engines after that,
        we look for work after leaving: one of the two sees the other. False: go on ticking."""
        builds = self._context.ledger.builds
        if self.is_abandoned():
            log.error("the ledger was deleted: this engine ends, and so do builds that waited")
            return True
        try:
            if self._joined:
                self._context.ledger.engines.leave(self.id)
                self._joined, self._beaten = False, None
            waits = not self.launches.isdisjoint(builds.awaited())
            return not (waits or any(map(self._concerns, builds.driven())))
        except LedgerError as error:
            self._log_away(error)
            return False

    def is_abandoned(self) -> bool:
        """True when the ledger was deleted, and each VM that it told of is past its deadline."""
        if not self._context.ledger.is_removed():
            return False
        rows = (*self._rows.values(), *self._launcher.sent)
        return all(self._context.now(row) > row.end for row in rows)

    @property
    def launches(self) -> frozenset[str]:
        """The providers at which it starts builds."""
        providers = self._context.providers
        return frozenset(name for name in providers if present(providers[name]) is not None)

    @property
    def watching(self) -> float:
        """Seconds that this engine has watched without a break."""
        return self._reconciler.watching

    @property
    def context(self) -> EngineContext:
        """Return the engine's context, for a reaper in the same process."""
        return self._context

    # --- a tick ---

    def tick(self) -> float:
        """One round; returns how many seconds the next one may be away. It waits for no cloud."""
        if self.refused is not None:
            return IDLE_TICK
        with self._context.ticking():
            return self._tick()

    # --- within ---

    def _tick(self) -> float:
        self._beat()
        if not self._clones.over and not self._is_alone():
            return BUSY_TICK
        waiting = self._collect()
        with self._context.ledger.reading():
            snapshot = self._reconciler.gather()
            with self._context.guard("pools"):
                self._pool_manager.read()
        self._rows = snapshot.mine
        self._launcher.read()
        self._gone_hosts.update(snapshot)
        self._reconciler.take_over(snapshot)
        self._reconciler.collect_session_ends(snapshot)
        self._reconciler.advance(snapshot)
        self._reconciler.mark_deleting(snapshot)
        self._terminator.collect(snapshot.rows)
        self._terminator.send_deletes(snapshot.restless_rows())
        self._poller.poll(snapshot.mine, snapshot.restless, self._is_pending)
        self._reconciler.apply_observations(snapshot, self._poller.observations())
        if snapshot.is_new:
            self._poller.forget(snapshot.rows, snapshot.changed)
        with self._context.guard("park"):
            self._parker.update(snapshot)
        self._deadlines.update(snapshot.restless_rows(), snapshot.newly_open)
        offers = self._offers()
        queued, decided = self._launch(snapshot, offers)
        with self._context.guard("pools"):
            self._pool_manager.update(
                snapshot, decided, offers, paused=self._pool_manager.fills and self._paused
            )
        self._launcher.resend()
        waiting |= self._collect()
        minded = any(map(self._concerns, snapshot.builds.values()))
        # What waits in a pool is minded by the engine that fills it: none stays for it alone.
        rows = any(r.build or r.state is InstanceState.DELETING for r in snapshot.mine.values())
        self.idle = not (queued or minded or rows or waiting or self._deadlines.busy)
        self._reconciler.finish()
        if self._launcher.busy or any(row.state in _SOON for row in snapshot.restless_rows()):
            return FAST_LOOK
        return BUSY_TICK if snapshot.builds or queued else IDLE_TICK

    def _log_away(self, error: LedgerError) -> None:
        if self._away.is_due(self._context.monotonic()):
            log.error("the ledger is out of reach: %s", error)

    def _is_pending(self, instance: str) -> bool:
        return self._launcher.is_pending(instance) or self._terminator.is_pending(instance)

    def _creates(self, name: str) -> int:
        return self._context.providers[name].creates

    def _pool(self, name: str, size: int | None) -> WorkerPool:
        if name not in self._pools:
            self._pools[name] = self._make_pool(name, size)
        return self._pools[name]

    def _answers(self, name: str) -> ProviderAnswers:
        if name not in self._provider_answers:
            context = self._context
            self._provider_answers[name] = ProviderAnswers(
                name, lambda: self._pool(f"ask-{name}", ASKS), context.monotonic, context.wake
            )
        return self._provider_answers[name]

    def _concerns(self, build: BuildRecord) -> bool:
        """True if we can do anything for a build that is driven, or queued and to be ended."""
        return build.state is BuildState.QUEUED or build.spec.provider in self._context.providers

    def _leave(self) -> None:
        if self._joined:
            with self._context.guard("leave"):
                try:
                    self._context.ledger.engines.leave(self.id)
                    self._joined = False
                except LedgerError as error:
                    log.warning("could not say that we leave: %s", error)

    def _beat(self) -> None:
        """Say that we live, and see who else does."""
        context, now = self._context, self._context.monotonic()
        if self._beaten is not None and now - self._beaten < HEARTBEAT:
            return
        context.ledger.recognise()  # it may have been set back, or upgraded
        engines, at, launches = context.ledger.engines, context.clock(), self.launches
        if not self._joined or not engines.beat(self.id, at, launches):
            engines.join(self.id, self._process, self._kind, at, launches)
            self._joined = True
        self._membership.update(engines.list(), now)
        for member in self._membership.gone(before=at - FORGET):
            engines.leave(member)
        self._beaten = now

    def _is_alone(self) -> bool:
        """True if no other host has our machine id, as far as local VMs go; False until that is
        known, some seconds after a boot."""
        context = self._context
        # A ledger in a file is one host's; and whose a cloud's VM is no machine id tells.
        members = [] if self._one_host else context.ledger.engines.list()
        others = cloned_hosts.others_of(self._process, members)
        if others and any(map(context.place_of, context.providers)):
            self.refused = self._clones.look(members, context.monotonic())
        else:
            self._clones.over = True
        if self.refused is not None:
            log.critical("%s", self.refused)
            self._leave()
        return self._clones.over

    def _collect(self) -> bool:
        """Take in what came of the creates; True when something did."""
        landed = self._launcher.collect()
        for build, _, end in landed.ended:
            with self._context.guard("end", build.id):
                self._completion.finish(build, end)
        for build, _, end in landed.waiting:
            with self._context.guard("wait", build.id):
                self._completion.refused(build, end)
        for build in landed.created:
            self._completion.given(build)
        if landed.created:
            self._sessions.expect()
        self._pool_manager.refused(landed.unfilled)
        return bool(landed.booting or landed.ended or landed.waiting)

    @property
    def _paused(self) -> bool:
        """True if nothing is to be launched."""
        return self.draining or self._context.ledger.paused

    def _launch(self, snapshot: Snapshot, offers: Offers) -> tuple[bool, SchedulingPlan]:
        """Start what may start. Returns true if anything is queued that we can start, and the
        decisions."""
        context = self._context
        self._completion.renew()
        queued = []
        for build in self._queue.read(changed=snapshot.is_new):
            if self._membership.process_lives(build.submitter) is False:
                with context.guard("owner gone", build.id):
                    self._completion.finish(build, cancelled(Reason.OWNER_GONE))
            elif build.id not in snapshot.builds:
                with context.guard("too late", build.id):
                    if not self._completion.end_late(build):
                        queued.append(build)
        if not queued:
            self.waiting = {}
            return False, SchedulingPlan()
        decided = plan(
            context.clock(),
            queued,
            [(snapshot.builds.get(row.build or ""), row) for row in snapshot.everybody.values()],
            offers,
            context.limits.rooms,
            draining=self._paused,
            refusals=self._completion.pauses(),
            pooled=self._pool_manager.claimable(snapshot, offers),
        )
        self.waiting = decided.waiting
        for reject in decided.rejects:
            with context.guard("reject", reject.build.id):
                end = End(result=reject.result, reason=reject.reason, message=reject.message)
                self._completion.finish(reject.build, end)
        self._pool_manager.claim(decided.claims)
        with context.guard("launch"):
            starts = self._completion.fitting(decided.starts)
            self._launcher.start(starts)
            self._pool_manager.missed(start.build for start in starts)
        ours = any(build.spec.provider in self.launches for build in queued)
        return ours, decided

    def _offers(self) -> Offers:
        """The offers of providers, asked once for each spec in a tick."""
        answers: dict[tuple[str, Spec], OffersAnswer] = {}

        def offers(name: str, spec: Spec) -> OffersAnswer:
            if (name, spec) not in answers:
                answers[name, spec] = self._ask(name, spec)
            return answers[name, spec]

        return offers

    def _ask(self, name: str, spec: Spec) -> OffersAnswer:
        if name not in self.launches:
            return OffersAnswer(
                message=f"the engine that is here has no provider {name!r}", later=True
            )
        if not self._launcher.trusts(name):
            return OffersAnswer(message=f"{name} refused our credentials a moment ago", later=True)
        try:
            provider = self._context.providers[name]
            answers = self._context.answers(name)
            return OffersAnswer(
                offers=answers.ask(spec, lambda: tuple(capabilities.offers(provider, spec)))
            )
        except (BadOrder, CredentialsRefused) as error:
            why = Reason.IMAGE if isinstance(error, BadOrder) else Reason.CREDENTIALS
            return OffersAnswer(message=str(error), refused=why)
        except NoCapacity as error:
            return OffersAnswer(message=str(error))
        except QuotaExceeded as error:
            return OffersAnswer(message=str(error), scarce=Reason.QUOTA)
        except ProviderError as error:
            return OffersAnswer(message=str(error), later=True)
