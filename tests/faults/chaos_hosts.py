"""Hosts with local VMs in an episode. They sleep, lose their power, are cut off from the ledger or
burn; they come back with their VMs, without, or never; and each has a clock of its own, which
somebody sets. Each slot of an episode is a process at a host, two of them at the same one."""

from __future__ import annotations

import itertools
from collections import Counter
from random import Random
from typing import Final

from tests.faults.host_side import Host, Hosts, burn, lose_power
from tests.faults.node import Node
from tests.faults.world import World
from vmrunner.model import Scope
from vmrunner.providers.fake import Clock

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
STEP: Final = 5.0
BURNS: Final = 2  # of an episode, at most
#: A beat that is so much younger or older than its host's clock is from before that was set.
BEATS: Final = 60.0


def drawn_hosts(seed: str, happened: Counter[str], share: float) -> HostTrouble | None:
    """Let the seed say whether an episode has several hosts with local VMs."""
    draw = Random(f"{seed}:hosts")
    return HostTrouble(draw, happened) if draw.random() < share else None


class HostTrouble:
    """What befalls the hosts of an episode: `step` again and again, `come_back` after the end of
    the trouble."""

    def __init__(self, draw: Random, happened: Counter[str]) -> None:
        self._draw, self._happened = draw, happened
        self._until: dict[Host, float] = {}  # those that are away come back then
        self._steady: set[Host] = set()
        self._boots = itertools.count(1)
        self._burns = 0

    def cloud(self, clock: Clock) -> Hosts:
        draw, self._hosts = self._draw, Hosts(clock)
        first, second = (vms.host for vms in self._hosts.at.values())
        self._homes = [first, second, draw.choice((first, second))]
        self._set_back = dict.fromkeys((first, second), 0)
        for host in (first, second):
            host.skew = draw.choice((0.0, 0.0, 3.0, -3.0, HOUR, -HOUR, DAY, -DAY))
        return self._hosts

    @property
    def slots(self) -> list[Node | float]:
        return [0.0 for _ in self._homes]

    def nature(self) -> None:
        """What local VMs may be like: seen at once, and dead at E whoever lives."""
        draw = self._draw
        self._hosts.set(
            boot_seconds=draw.choice((2.0, 20.0, 60.0)),
            delete_seconds=draw.choice((0.0, 2.0, 40.0)),
            tombstone=draw.choice((0.0, 3600.0, 3600.0)),  # so long a host tells of them
            guest_timer=0.0 if draw.random() < 0.2 else None,
        )

    def begin(self, world: World) -> None:
        self._world = world

    def home(self, slot: int) -> Host | None:
        """Where a slot's process runs; None while nothing can be started there."""
        host = self._homes[slot]
        return None if host.off else host

    def more_time(self) -> int:
        """Seconds that a VM may live longer: some outlive what is taken for the end of a host."""
        return self._draw.choice((0, 0, 1800))

    def is_steady(self, node: Node) -> bool:
        """True if nothing may befall its host now: see `set_clock`."""
        return node.host in self._steady

    def step(self) -> None:
        self.come_back()
        self._steady = {host for host in self._steady if not self._beats(host)}
        for host in dict.fromkeys(self._homes):
            calm = host not in self._until and host not in self._steady and not host.gone
            if calm and self._draw.random() < 0.008:
                self._go_away(host)

    def come_back(self) -> None:
        """Those whose time has come."""
        world, now = self._world, self._world.clock()
        for host, until in list(self._until.items()):
            if now < until:
                if host.cut:
                    world.cut[_scope(host)] = now + STEP
                continue
            del self._until[host]
            if host.gone:
                self._replace(host)
                continue
            if not host.cut:  # what told the time meanwhile was not exact
                host.skew += self._draw.choice((0.0, 0.0, 60.0, -60.0))
            host.off = host.cut = False
            for node in world.nodes:
                if node.host is host:
                    node.awake_since = now
            self._happened["hosts that came back"] += 1

    @property
    def over(self) -> bool:
        """True if all are there again that are to come."""
        self.come_back()
        return not self._until

    def set_clock(self, host: Host, step: float) -> None:
        """Somebody sets it. What its VMs may live longer by when it is set back must not be more
        than this episode waits for; and who is on no other host's mind but by a beat from before
        that would be given up too early by more than `gone_hosts.DOUBT`, which is written down: so
        nothing befalls it before the next beat."""
        if step <= -HOUR:
            if self._set_back[host] or not self._minds_all(host):
                return
            self._set_back[host] += 1
            self._steady.add(host)
            step = -HOUR
        host.skew += step
        self._happened[f"clocks set {'back' if step < 0 else 'forward'}"] += 1

    def heal(self) -> Host:
        """No further trouble; those that are away come back in their time. One host at least is
        there or will be."""
        return next(host for host in self._homes if not host.gone)

    def _go_away(self, host: Host) -> None:
        draw, world = self._draw, self._world
        what = draw.choice(("sleep", "lose their power", "are cut off", "burn"))
        others = [other for other in self._homes if other is not host and not other.gone]
        if what == "burn" and (self._burns == BURNS or not others):
            what = "sleep"
        seconds = draw.random() * draw.choice((30.0, 300.0, 1500.0, 4000.0))
        self._until[host] = world.clock() + seconds
        self._happened[f"hosts that {what}"] += 1
        if what == "sleep":
            host.off = True
        elif what == "are cut off":
            host.cut = True
        elif what == "lose their power":
            lose_power(world, host)
            host.boot = f"b{next(self._boots)}"
        else:
            self._burns += 1
            burn(world, host)
            if draw.random() < 0.3:
                del self._until[host]  # nobody replaces it

    def _replace(self, gone: Host) -> None:
        """Another host does what the gone one did."""
        fresh = self._hosts.add()
        fresh.skew = self._draw.choice((0.0, 0.0, HOUR, -HOUR))
        self._set_back[fresh] = 0
        self._homes = [fresh if host is gone else host for host in self._homes]
        self._happened["hosts that replace one"] += 1

    def _living(self, host: Host) -> list[Node]:
        nodes = (node for node in self._world.nodes if node.host is host)
        return [n for n in nodes if not (n.dead or n.asleep or n.ledger_down)]

    def _minds_all(self, host: Host) -> bool:
        """True if the owner of each VM there lives and can say so."""
        living = {node.engine.id for node in self._living(host)}
        rows = self._world.truth.instances.open()
        owners = {row.owner for row in rows if row.scope == _scope(host)}
        return not self._world.away and bool(living) and owners <= living

    def _beats(self, host: Host) -> bool:
        """True if all that live there have told the time since it was set."""
        beats = {member.id: member.seen_at for member in self._world.truth.engines.list()}
        now = self._world.clock() + host.skew
        nodes = [n.engine.id for n in self._world.nodes if n.host is host and not n.dead]
        return all(abs(beats.get(name, 0.0) - now) < BEATS for name in nodes)


def _scope(host: Host) -> Scope:
    assert host.vms is not None
    return host.vms.scope
