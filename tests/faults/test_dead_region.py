"""A part of the cloud that does not answer, which delays nothing elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.faults.node import Paths
from tests.faults.world import LIMITS, World
from tests.support.ledger_builds import orders
from vmrunner.engine.context import EngineLimits
from vmrunner.engine.engine import Engine
from vmrunner.engine.membership import Membership
from vmrunner.lib.process import current
from vmrunner.model import Key, Kind, Page, Scope, Seen
from vmrunner.providers.fake import SCOPE, Clock, Cloud, FakeProvider
from vmrunner.reaper.reaper import Reaper
from vmrunner.session.session import Session

DEAD = Scope("fake", "account", "dead")
TIMEOUT = 30.0


class HalfDead(FakeProvider):
    """Each list of the other scope takes as long as a timeout, and says nothing."""

    def sweep(self) -> Iterator[Page]:
        yield from super().sweep()
        for kind in Kind:
            self.cloud.clock.sleep(2 * TIMEOUT)
            yield Page(scope=DEAD, kind=kind, error="Read timeout", time=self.now())


def ghost(world: World, cloud: Cloud, name: str, expires: float) -> Any:
    """A VM that no ledger knows."""
    tags = {
        "vmrunner:installation": world.truth.installation,
        "vmrunner:role": "build",
        "vmrunner:instance": name,
        "vmrunner:expires-at": str(int(expires)),
    }
    return cloud.plant(SCOPE, tags)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    limits = replace(LIMITS, max_ttl=14400, newborn=900)
    return make_world(limits=limits, pass_seconds=30.0, sweep_seconds=300.0)


def test_kills_elsewhere_keep_to_g(world: World) -> None:
    """One thread alone: it kills between two pages of a listing, and before the first."""
    node = world.node(drives=False)
    provider = HalfDead("fake", world.cloud)
    provider.scopes = (SCOPE, DEAD)
    node.engine.context.providers = {"fake": provider}
    ghosts = {
        ghost(world, world.cloud, f"vm-{n}", at).ref: at
        for n, at in enumerate(world.clock() + 400 + 67 * i for i in range(20))
    }
    delays: dict[Any, float] = {}

    def asked(call: Any) -> None:
        if call.method == "delete":
            for ref in call.about:
                delays.setdefault(ref, world.clock() - ghosts[ref])

    world.judge = asked
    world.run(4000, until=lambda: len(delays) == len(ghosts))
    assert len(delays) == len(ghosts)
    assert max(delays.values()) <= LIMITS.grace + TIMEOUT


def test_expired_vms_of_a_page_die_before_the_next_page(world: World) -> None:
    """A process of its own, as from cron, has nothing in mind."""
    node = world.node(drives=False)
    provider = HalfDead("fake", world.cloud)
    node.engine.context.providers = {"fake": provider}
    began = world.clock()
    vm = ghost(world, world.cloud, "vm-1", began - 1)
    report = node.reaping.run(sweep=True)
    assert vm.delete_accepted == began
    assert [(line.id, line.outcome) for line in report.lines] == [(vm.ref.id, "accepted")]


def test_a_dry_run_kills_nothing_on_the_way(world: World) -> None:
    node = world.node(drives=False)
    vm = ghost(world, world.cloud, "vm-1", world.clock() - 1)
    report = node.reaping.run(sweep=True, dry_run=True)
    assert [(line.id, line.outcome) for line in report.lines] == [(vm.ref.id, "")]
    assert vm.alive


def test_a_hole_that_stays_is_looked_at_ever_more_rarely(world: World) -> None:
    node = world.node(drives=False)
    sweeps: list[float] = []

    class Counting(FakeProvider):
        def sweep(self) -> Iterator[Page]:
            sweeps.append(world.clock())
            yield Page(scope=DEAD, kind=Kind.INSTANCE, error="gone for good", time=self.now())

    node.engine.context.providers = {"fake": Counting("fake", world.cloud)}
    node.sweeps = False
    node.reaping.run(sweep=True)
    world.run(86_400, step=60.0)
    gaps = [later - sooner for sooner, later in pairwise(sweeps)]
    assert gaps[0] <= 60  # it may have been the moment's
    assert len(sweeps) < 15
    assert max(gaps) > 10_000


# --- in threads --------------------------------------------------------------------------------


class Hanging(FakeProvider):
    """Its listing does not come back before somebody lets it."""

    def __init__(self, name: str, cloud: Cloud, gate: threading.Event) -> None:
        super().__init__(name, cloud)
        self.gate = gate
        self.sweeps = 0

    def sweep(self) -> Iterator[Page]:
        self.sweeps += 1
        self.gate.wait(60)
        yield from super().sweep()


def reaping(world: World, tmp_path: Path, providers: Sequence[FakeProvider]) -> Reaper:
    engine = Engine(
        world.truth,
        {provider.name: provider for provider in providers},
        Session,
        EngineLimits(limits=world.limits.limits),
        process=current(),
        kind="serve",
        paths=Paths(tmp_path),
        orders=orders(world.truth),
        listen=False,
    )
    return Reaper(engine.context, Membership(one_host=True), lambda: 0.0)


def test_a_provider_that_hangs_keeps_no_other_waiting(world: World, tmp_path: Path) -> None:
    gate = threading.Event()
    clock = Clock(world.clock())
    slow = Hanging("aws", Cloud(clock), gate)
    other = FakeProvider("google", Cloud(clock))
    slow_vm = ghost(world, slow.cloud, "vm-1", clock() - 1)
    other_vm = ghost(world, other.cloud, "vm-2", clock() - 1)
    pass_ = reaping(world, tmp_path, [slow, other])
    report = pass_.run(sweep=True, seconds=0.5)
    assert not other_vm.alive
    assert report.ongoing == ("aws",)
    assert any("aws: its sweep goes on" in text for text in report.unread)
    # It is not begun again beside itself, and the others have their turn meanwhile.
    later_vm = ghost(world, other.cloud, "vm-3", clock() - 1)
    pass_.run(sweep=True, seconds=0.5)
    assert not later_vm.alive
    assert slow.sweeps == 1
    gate.set()
    report = pass_.run(sweep=True)
    assert report.ongoing == ()
    assert not slow_vm.alive
    assert slow_vm.ref.id in {line.id for line in report.lines}


class Withholding(FakeProvider):
    """Its other scope cannot be listed, and keeps back what a look asks."""

    def __init__(self, name: str, cloud: Cloud, gate: threading.Event) -> None:
        super().__init__(name, cloud)
        self.scopes = (SCOPE, DEAD)
        self.gate = gate
        self.looking = threading.Event()

    def sweep(self) -> Iterator[Page]:
        yield from super().sweep()
        yield Page(scope=DEAD, kind=Kind.INSTANCE, error="Read timeout", time=self.now())

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        if any(key.scope == DEAD for key in ids):
            self.looking.set()
            self.gate.wait(60)
        return super().look(ids)


def test_a_scope_that_keeps_its_answers_back_holds_no_pass(world: World, tmp_path: Path) -> None:
    gate = threading.Event()
    provider = Withholding("aws", Cloud(Clock(world.clock())), gate)
    pass_ = reaping(world, tmp_path, [provider])
    pass_.run(sweep=True)
    assert pass_.run(sweep=False, seconds=5.0).ongoing == ()
    assert provider.looking.wait(30)
    assert pass_.run(sweep=False, seconds=5.0).ongoing == ()
    gate.set()
