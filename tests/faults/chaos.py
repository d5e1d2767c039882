"""One episode of random trouble: builds of all sorts, processes that die and come back, clouds that
lie, of one or several providers and scopes, clocks and dates that are wrong, limits that are
lowered, providers that are renamed, and others' machines with our ids in the same account.

A function of its seed alone. What no layer could survive is not drawn: a cloud that refuses every
delete for ever. While the cloud cannot be reached at all, G does not run.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from tests.faults.broken import Broken
from tests.faults.chaos_failovers import drawn_failovers
from tests.faults.chaos_forges import drawn_trouble
from tests.faults.chaos_hosts import drawn_hosts
from tests.faults.chaos_nature import FAULTS, LONGEST, draw_foreign, draw_nature
from tests.faults.chaos_sandboxes import SANDBOXES, draw_sandbox, ends_of
from tests.faults.cloud_side import CloudResource, CloudSide, InMemory, drawn_layout
from tests.faults.github_side import GithubWorld
from tests.faults.node import Node
from tests.faults.pool_worlds import drawn_pools
from tests.faults.store_side import StoreFault, check_objects, settle_store
from tests.faults.world import World
from vmrunner.errors import Conflict
from vmrunner.model import BuildRecord, BuildState, Kind, Limits, Reason, Scope
from vmrunner.providers.fake import Call, Clock, Fault, Plan

EACH: Final = 100  # builds of an episode
STEP: Final = 5.0  # seconds between ticks; in production they are closer
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
OVER: Final = 4 * HOUR  # so long after the trouble all must have ended


class Episode:
    """`play` it; raises Broken when a promise does not hold."""

    #: What may befall a VM.
    strikes: Sequence[str] = ("die", "preempt", "power off", "hang", "protect", "revert")
    #: What of others' stands beside it.
    plants: Sequence[Kind] = tuple(kind for kind in Kind if kind is not Kind.DEFINITION)
    span = 1200.0  # seconds in which builds are submitted
    #: The share of episodes whose calls, and passes of a reaper, are in the air.
    aloft = 0.3
    #: … with jobs of GitHub.
    forges = 0.15
    #: … whose ledger is at a server that fails over.
    failovers = 0.15
    #: … with several hosts, each with its own local VMs.
    hosts = 0.15

    def __init__(
        self,
        template: Path,
        root: Path,
        seed: str,
        builds: int,
        *,
        cloud: Callable[[Clock], CloudSide] | None = None,
    ) -> None:
        """`cloud`: which; None: one in memory, with scopes and providers as the seed has it."""
        self.random = Random(seed)
        self.happened: Counter[str] = Counter()
        self.builds: list[BuildRecord] = []
        self._wanted = builds
        layout = drawn_layout(draw := self.random)
        local = cloud is None
        self._jobs = drawn_trouble(seed, self.happened, self.forges) if local else None
        self._failovers = drawn_failovers(
            seed, self.happened, self.failovers, lags=self._jobs is None
        )
        # A standby that lags may lack the only beat that tells another host's time.
        plain = local and self._jobs is None and not (self._failovers and self._failovers.lags)
        self._hosts = drawn_hosts(seed, self.happened, self.hosts) if plain else None
        made = self._hosts.cloud if self._hosts else partial(InMemory, layout=layout)
        self.world = (World if self._jobs is None else GithubWorld)(
            template,
            root,
            cloud=cloud or made,
            limits=Limits(),
            max_instances=40,
            pass_seconds=30.0,
            sweep_seconds=300.0,
            many_hosts=draw.random() < 0.5 or self._hosts is not None,
            airborne=cloud is None and draw.random() < self.aloft,
            served=self._failovers is not None,
        )
        self._lowers = cloud is None and draw.random() < 0.2
        self._renames = cloud is None and draw.random() < 0.1 and self._hosts is None
        self._pooled = cloud is None and draw.random() < 0.4
        self._faulty = draw.choice((0.0, 0.02, 0.1, 0.25))
        self._lies = draw.random() < 0.3  # some dates of answers are wrong
        self._deadly = draw.choice((0.0, 0.001, 0.005, 0.02))
        self._loses_ledger = draw.random() < 0.1
        self._stores = draw.random() < 0.5
        self.world.store.skew = Random(f"{seed}:store").choice((0.0, 0.0, DAY, -DAY))
        # Each is a process, or when it comes back.
        self._slots: list[Node | float] = self._hosts.slots if self._hosts else [0.0, 0.0]
        self._renamed, self._numbers = False, itertools.count(1001)
        self._out_until: dict[Scope, float] = {}
        self._full_until: dict[Scope | None, float] = {}
        self._fills = draw.random() < 0.4
        self._down_until = 0.0
        self._theirs: list[CloudResource] = []
        if self._hosts is not None:
            self._hosts.begin(self.world)
        self._nature()
        if self._jobs is not None:
            self._jobs.begin(self.world, span=self.span)
        if self._failovers is not None:
            self._failovers.begin(self.world)

    def play(self) -> None:
        """The trouble, and then its end."""
        world, draw = self.world, self.random
        world.dice = self._dice
        world.judge = self._judge
        world.store.judge = self._store_fault
        world.drops = lambda: draw.random() < self._faulty / 4
        start, span = world.clock(), self.span
        submits = sorted(draw.random() * span for _ in range(self._wanted))
        once = [
            (start + draw.uniform(earliest, latest) * span, happens)
            for drawn, earliest, latest, happens in (
                (self._loses_ledger, 0.3, 1.0, self._lose_ledger),
                (self._lowers, 0.2, 0.8, self._lower_limits),
                (self._renames, 0.2, 0.8, self._rename),
            )
            if drawn
        ]
        while world.clock() < start + span + 300:
            while submits and world.clock() >= start + submits[0] and not world.away:
                submits.pop(0)
                self._submit()
            for event in [event for event in once if world.clock() >= event[0]]:
                once.remove(event)
                event[1]()
            self._befall()
            self._staff()
            if self._hosts is not None:
                self._hosts.step()
            if self._jobs is not None:
                self._jobs.step()
            self._cancel_hopeless()
            world.run(STEP, step=STEP)
        self._heal()
        world.run(OVER, until=self._quiet, step=STEP)
        world.nothing_left()
        self.happened += ends_of(world)
        if self._jobs is not None:
            self._jobs.check()
        if self._stores:
            check_objects(world)
            settle_store(world)
        for build in self.builds:
            if build.id in {b.id for b in world.truth.builds.list()}:
                world.check_log(build)
        if not all(machine.alive for machine in self._theirs):
            raise Broken("2 no murder: another's machine is gone")

    # --- the world ---

    def _nature(self) -> None:
        if self._hosts is not None:
            self._hosts.nature()
        else:
            draw_nature(self.world, self.random)

    def _dice(self, node: Node, _point: str) -> bool:
        """Does this process die here?"""
        dies = self.random.random() < self._deadly
        return dies and not (self._hosts is not None and self._hosts.is_steady(node))

    def _judge(self, call: Call) -> Plan | None:
        """What becomes of one call."""
        longest = LONGEST.get(call.method) if self.world.airborne else None
        if longest is not None and self.random.random() < self._faulty / 4:
            self.happened["late answers"] += 1
            return Plan(Fault.DELAY, self.random.uniform(1, longest))
        if call.method == "create" and self.world.clock() < self._full_until.get(call.scope, 0.0):
            self.happened["refusals of a full place"] += 1
            return Plan(Fault.NO_CAPACITY)
        if self._lies and self.random.random() < 0.002:
            self.happened["wrong dates"] += 1
            return Plan(Fault.WRONG_DATE, self.random.uniform(-2 * DAY, 2 * DAY))
        faults = FAULTS.get(call.method)
        # A driver reads a page that failed once more; this one's pages fail as often as both do.
        often = self._faulty**2 if call.method == "sweep" else self._faulty
        if faults is None or self.random.random() >= often:
            return None
        fault = self.random.choice(faults)
        self.happened["failed calls"] += 1
        return Plan(fault, self.random.uniform(1, 300) if fault is Fault.LATE else 0.0)

    def _store_fault(self) -> StoreFault | None:
        """What becomes of one call of the store."""
        if self.random.random() >= self._faulty:
            return None
        self.happened["failed calls of the store"] += 1
        return self.random.choice(tuple(StoreFault))

    def _befall(self) -> None:
        """What happens in this moment, to the cloud and to guests."""
        world, draw = self.world, self.random
        self._outages()
        if self._failovers is not None:
            self._failovers.step()
        alive = [m for m in world.standing() if m.order is not None and m.alive]
        if alive and draw.random() < 0.05:
            self._strike(draw.choice(alive))
        if alive and draw.random() < 0.01:
            self._plant(draw.choice(alive))
        if world.living and draw.random() < 0.02:
            world.living.discard(draw.choice(sorted(world.living)))
            self.happened["dead submitters"] += 1
        if draw.random() < 0.08 and not world.away:
            self._wish()

    def _outages(self) -> None:
        """Of all scopes at once, or of one of them; and of the ledger, for one process."""
        world, draw = self.world, self.random
        now, cloud = world.clock(), world.cloud
        for scope in list(cloud.unreachable):
            if now < self._out_until[scope]:
                world.out[scope] = now + STEP
            else:
                cloud.unreachable.discard(scope)
        if draw.random() < 0.002:
            scopes = cloud.scopes if draw.random() < 0.5 else [draw.choice(cloud.scopes)]
            until = now + draw.uniform(10, 400)
            for scope in scopes:
                cloud.unreachable.add(scope)
                self._out_until[scope] = until
                world.out[scope] = now + STEP
            self.happened["outages"] += 1
        if self._fills and draw.random() < 0.01:
            self._full_until[draw.choice(cloud.scopes)] = now + draw.uniform(600, 5400)
            self.happened["places full for long"] += 1
        if now >= self._down_until:
            down = draw.random() < 0.001
            self._down_until = now + draw.uniform(10, 200) if down else 0.0
            world.untold = max(world.untold, self._down_until)
            for node in world.nodes:
                node.ledger_down = down
            self.happened["ledgers out of reach"] += down

    def _strike(self, machine: CloudResource) -> None:
        cloud = self.world.cloud
        what = self.random.choice(self.strikes)
        self.happened[f"VMs: {what}"] += 1
        if what == "die":
            cloud.die(machine)
        elif what == "preempt":
            cloud.preempt(machine)
        elif what == "power off":
            cloud.power_off(machine)
        elif what == "hang":
            machine.hung = True
        elif what == "protect":
            machine.protected = True
        else:
            machine.reverts = 1

    def _plant(self, machine: CloudResource) -> None:
        """Another's machine, whose tags look like ours."""
        tags = draw_foreign(self.random, self.world.truth.installation, machine.tags)
        expired = {**tags, "vmrunner:expires-at": "1"}
        kind = self.random.choice(self.plants)
        cloud = self.world.cloud
        # An older one than ours, too: whoever looks by the id alone takes it for ours.
        created_at = self.world.cloud.now() - self.random.choice((0.0, HOUR))
        scope = self.random.choice((machine.ref.scope, *cloud.scopes))
        self._theirs.append(cloud.plant(scope, expired, kind=kind, created_at=created_at))
        self.happened["foreign machines"] += 1

    def _wish(self) -> None:
        """A user cancels something, or extends it."""
        world, draw = self.world, self.random
        if not (active := world.truth.builds.list(active=True)):
            return
        build = draw.choice(active)
        if (build.state is BuildState.HELD or build.was_ready) and draw.random() < 0.5:
            try:
                world.truth.builds.extend(build.id, 600.0, world.clock())
            except Conflict:
                return
            self.happened["extends"] += 1
        else:
            world.truth.builds.request_cancel(build.id, Reason.USER, world.clock())
            world.user_cancelled.add(build.id)
            self.happened["cancels"] += 1

    # --- builds and processes ---

    def _submit(self) -> None:
        draw, world = self.random, self.world
        if draw.random() < SANDBOXES:
            self.builds.append(
                draw_sandbox(world, draw, self.world.cloud.names, next(self._numbers))
            )
            return
        timeout = draw.choice((30, 120, 300))
        longer = self._hosts.more_time() if self._hosts is not None else 0
        build = world.submit(
            provider=draw.choice(self.world.cloud.names),
            submitter=next(self._numbers) if draw.random() < 0.2 else None,
            timeout=timeout,
            ttl=timeout + draw.choice((300, 600)) + longer,
            spot=draw.random() < 0.2,
            retry_on_loss=draw.random() < 0.2,
            keep_on_failure=draw.choice((None, None, 60, 600)),
            queue_timeout=draw.choice((None, None, 120, 3600)),
            source=draw.choice((None, b"one", b"two")) if self._stores else None,
        )
        never = draw.random() < 0.12
        world.seconds[build.id] = 1e9 if never else draw.expovariate(1 / 60)
        world.codes[build.id] = draw.choice((0, 0, 0, 3))
        self.builds.append(build)

    def _staff(self) -> None:
        """Who died is started again some time; who sleeps is woken."""
        world, draw = self.world, self.random
        now = world.clock()
        for place, slot in enumerate(self._slots):
            if isinstance(slot, float):
                if now >= slot and not world.away:
                    self._start(place)
            elif slot.dead:
                self.happened["crashes"] += 1
                world.nodes.remove(slot)
                pause = draw.choice((1.0, 10.0, 100.0, 900.0))
                self._slots[place] = now + draw.random() * pause
            elif self._hosts is None or not self._hosts.is_steady(slot):
                self._shake(slot)

    def _shake(self, node: Node) -> None:
        """What may befall a process that lives, and its host."""
        draw, world = self.random, self.world
        if node.asleep:
            node.asleep = draw.random() > 0.02
            if not node.asleep:
                node.awake_since = world.clock()
        elif draw.random() < 0.001:
            node.asleep = True
            self.happened["processes put to sleep"] += 1
        elif node.threadless:
            node.threadless = draw.random() > 0.05
        elif draw.random() < 0.002:
            node.threadless = True
            self.happened["hosts without a thread left"] += 1
        elif draw.random() < 0.004:
            step = draw.choice((-DAY, -HOUR, -60.0, 60.0, HOUR, DAY))
            if self._hosts is not None:
                self._hosts.set_clock(node.host, step)
                return
            node.skew += step
            self.happened[f"clocks set {'back' if step < 0 else 'forward'}"] += 1

    def _start(self, place: int) -> None:
        draw, world = self.random, self.world
        host = self._hosts.home(place) if self._hosts is not None else None
        if self._hosts is not None and host is None:
            return
        clock = draw.choice((0.0, 0.0, DAY, -DAY, -HOUR))
        pools = self._pooled and drawn_pools(draw, world.cloud.names)
        if host is None:
            clock = clock if world.many_hosts else world.clock_at_start(world.host, clock)
        self._slots[place] = world.node(
            far=world.many_hosts,
            host=host,
            skew=None if host is not None else clock,
            stores=self._stores,
            pools=pools,
        )

    def _lose_ledger(self) -> None:
        world = self.world
        for node in world.nodes:
            node.kill()
        world.nodes.clear()
        world.lose_ledger()
        self.builds.clear()
        soon = world.clock() + self.random.uniform(0, 300)
        self._slots = [soon] + [world.clock() + 900 for _ in self._slots[1:]]
        self.happened["lost ledgers"] += 1

    def _lower_limits(self) -> None:
        """From now on VMs may live for less; what was promised more is there. All processes are
        started anew, as after any change of the configuration."""
        world = self.world
        lower = replace(world.limits.limits, max_ttl=400)
        world.limits = replace(world.limits, limits=lower)
        self._restart()
        self.happened["limits lowered"] += 1

    def _rename(self) -> None:
        """A provider has another name in the configuration."""
        world = self.world
        assert isinstance(world.cloud, InMemory)
        self._renamed = True
        world.cloud.layout = {f"new-{name}": of for name, of in world.cloud.layout.items()}
        self._restart()
        self.happened["providers renamed"] += 1

    def _cancel_hopeless(self) -> None:
        """What never had a VM may wait for a provider's former name as long as its user likes: this
        one does not. What had one is ours to end."""
        world = self.world
        for build in world.truth.builds.queued() if self._renamed else ():
            unborn = world.truth.instances.first_birth(build.id) is None
            unknown = build.spec.provider not in self.world.cloud.names
            if build.cancel is None and unknown and unborn:
                world.truth.builds.request_cancel(build.id, Reason.USER, world.clock())
                world.user_cancelled.add(build.id)

    def _restart(self) -> None:
        for node in self.world.nodes:
            node.kill()
        self.world.nodes.clear()
        self._slots = [self.world.clock() + self.random.uniform(0, 60) for _ in self._slots]

    def _heal(self) -> None:
        """No further trouble; one process at least lives."""
        world = self.world
        world.dice = world.judge = world.drops = world.store.judge = None
        if world.servers is not None:
            world.servers.judge = None
        world.out |= dict.fromkeys(world.cloud.unreachable, world.clock())
        world.cloud.unreachable.clear()
        for pool in world.truth.pools.all():
            world.truth.pools.drain(pool.name, "test", world.clock())
        if self._jobs is not None:
            self._jobs.heal()
        engines = [slot for slot in self._slots if isinstance(slot, Node)]
        for node in engines:
            node.ledger_down = node.threadless = False
            node.engine.context.pools = {}
            if node.asleep:
                node.asleep, node.awake_since = False, world.clock()
        if all(node.dead for node in engines):
            host = self._hosts.heal() if self._hosts is not None else None
            world.node(far=world.many_hosts, host=host, stores=self._stores)

    def _quiet(self) -> bool:
        self._cancel_hopeless()
        over = self._jobs is None or self._jobs.over  # asked each time: it calls programs
        back = self._hosts is None or self._hosts.over
        return over and back and self.world.quiet()
