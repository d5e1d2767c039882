"""Which of several processes reaps what."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from tests.support.engine_parts import EngineParts
from tests.support.inline_pool import Inline
from vmrunner.engine.membership import Membership
from vmrunner.lib.threads import DaemonThreadPool
from vmrunner.model import Process, Scope
from vmrunner.providers.fake import SCOPE, FakeProvider
from vmrunner.reaper import turns as module
from vmrunner.reaper.turns import FIRST_TURN, LONGEST_TURN, REAPER_LEASE, ReaperTurns

CHECK = 5.0


@dataclass
class Hosts:
    """Nodes on hosts of their own, each with a wall clock of its own. Time is played."""

    parts: EngineParts
    now: float = 1000.0
    skews: dict[str, float] = field(default_factory=dict)
    nodes: dict[str, ReaperTurns] = field(default_factory=dict)
    providers: dict[str, dict[str, Any]] = field(default_factory=dict)
    ours: dict[str, frozenset[str]] = field(default_factory=dict)
    seen_dead: set[str] = field(default_factory=set)  # hosts whose processes the kernel knows
    sweeps: list[str] = field(default_factory=list)  # who began anew with a provider

    def node(self, name: str, skew: float = 0.0, scopes: Collection[Scope] = (SCOPE,)) -> None:
        self.skews[name] = skew
        where = Process(machine=name, boot="b", pid_namespace="n", pid=1, started=1)
        self.parts.ledger.engines.join(name, where, "serve", self.now + skew)

        def alive(process: Process, *, one_host: bool) -> bool | None:
            return False if process.machine in self.seen_dead else None

        membership = Membership(one_host=False, alive=alive)
        self.providers[name] = {
            "fake": FakeProvider("fake", self.parts.cloud, scopes=tuple(scopes))
        }
        self.nodes[name] = ReaperTurns(
            self.parts.ledger, name, membership, lambda _: Inline(),
            clock=lambda: self.now + skew, monotonic=lambda: self.now + hash(name) % 1000,
        )  # fmt: skip

    def run(self, seconds: float, *, dead: Collection[str] = ()) -> list[dict[str, bool]]:
        """Let them look, each CHECK; return who reaped after each."""
        reapers = []
        end = self.now + seconds
        while self.now < end:
            for name in self.nodes.keys() - set(dead):
                self.parts.ledger.engines.beat(name, self.now + self.skews[name])
                self.nodes[name].learn(self.providers[name])
                turns = self.nodes[name].take(self.providers[name])
                self.ours[name] = turns.ours
                self.sweeps += [name] * len(turns.fresh)
            reapers.append({n: bool(self.ours[n]) for n in self.nodes if n not in dead})
            self.now += CHECK
        return reapers


@pytest.fixture
def hosts(parts: EngineParts) -> Hosts:
    return Hosts(parts)


@pytest.mark.parametrize("skew", [0.0, 31.0, -60.0, 3600.0, -86_400.0])
def test_one_reaps_however_far_clocks_are_apart(hosts: Hosts, skew: float) -> None:
    hosts.node("a")
    hosts.run(CHECK)
    hosts.node("b", skew)
    assert all(reapers == {"a": True, "b": False} for reapers in hosts.run(1200.0))
    assert hosts.sweeps == ["a"]


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_a_clock_that_is_set_moves_no_lease(hosts: Hosts, step: float) -> None:
    hosts.node("a")
    hosts.run(CHECK)
    hosts.node("b")
    hosts.run(60.0)
    hosts.nodes["a"]._taker._clock = lambda: hosts.now + step
    assert all(reapers == {"a": True, "b": False} for reapers in hosts.run(600.0))


@pytest.mark.parametrize("skew", [0.0, 3600.0, -3600.0])
def test_a_dead_ones_heir_comes_within_a_lease(hosts: Hosts, skew: float) -> None:
    hosts.node("a", skew)
    hosts.run(CHECK)
    hosts.node("b")
    hosts.run(60.0)
    reapers = hosts.run(REAPER_LEASE + 2 * CHECK, dead=["a"])
    assert not reapers[5]["b"], "not at once"
    assert reapers[-1]["b"]
    assert hosts.sweeps == ["a", "b"], "what the former knew went with it"


def test_who_is_known_to_be_dead_is_followed_at_once(hosts: Hosts) -> None:
    hosts.node("a")
    hosts.run(CHECK)
    hosts.node("b")
    hosts.run(60.0)
    hosts.seen_dead.add("a")
    assert hosts.run(CHECK, dead=["a"]) == [{"b": True}]


def test_who_is_shown_nothing_gives_up_the_lease(hosts: Hosts) -> None:
    hosts.node("a")
    hosts.run(CHECK)
    hosts.node("b")
    hosts.run(60.0)
    hosts.nodes["a"].blind(["fake"])
    reapers = hosts.run(2 * CHECK)
    assert reapers[-1] == {"a": False, "b": True}
    assert all(reapers == {"a": False, "b": True} for reapers in hosts.run(600.0))
    assert hosts.sweeps == ["a", "b"]


def test_where_nobody_takes_it_the_blind_go_on(hosts: Hosts) -> None:
    """However many are blind: each goes on by itself, and the lease does not fly to and fro."""
    hosts.node("a")
    for _ in range(200):
        hosts.nodes["a"].blind(["fake"])
        assert hosts.run(CHECK) == [{"a": True}]
    assert hosts.sweeps == ["a"]
    hosts.node("b")
    for _ in range(200):
        for name in hosts.nodes:
            hosts.nodes[name].blind(["fake"])
        assert any(hosts.run(CHECK)[0].values())
    assert len(hosts.sweeps) <= 4 + 2 * 200 * CHECK / LONGEST_TURN


def test_a_pause_grows_and_ends_with_an_answer(hosts: Hosts) -> None:
    hosts.node("a")
    hosts.run(CHECK)
    turn = hosts.nodes["a"]._turns["fake"]
    pauses = []
    for _ in range(7):
        before = hosts.now
        hosts.nodes["a"].blind(["fake", "a driver of former days"])
        pauses.append(turn.until - before - hash("a") % 1000)
        hosts.now += LONGEST_TURN
    assert pauses == pytest.approx([15.0, 30.0, 60.0, 120.0, 240.0, 300.0, 300.0])
    hosts.nodes["a"].well({"fake"})
    assert turn.pause == FIRST_TURN


def test_who_has_other_places_reaps_them(hosts: Hosts) -> None:
    """As hosts with local VMs: neither can see what the other has."""
    hosts.node("a")
    hosts.node("b", scopes=[Scope("fake", "account", "zone-b")])
    assert hosts.run(600.0)[-1] == {"a": True, "b": True}
    for node in hosts.nodes.values():
        node.release()
    assert hosts.parts.ledger.engines.holders() == {}


class DeadCloud(FakeProvider):
    """One that says nothing until the test is over."""

    over = threading.Event()
    waited_for: ClassVar[list[str]] = []

    @property
    def scopes(self) -> frozenset[Scope]:
        if not self.over.wait(20):
            self.waited_for.append(self.name)
        return super().scopes


def test_dead_clouds_are_no_silent_ledger(
    parts: EngineParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked beside each other, before the ledger is, and once."""
    monkeypatch.setattr(module, "SCOPES_PATIENCE", 0.1)
    calls: list[str] = []

    def pool(name: str) -> DaemonThreadPool:
        calls.append(name)
        return DaemonThreadPool(name, None)

    turns = ReaperTurns(parts.ledger, "a", Membership(one_host=True), pool)
    providers: dict[str, Any] = {
        f"dead-{number}": DeadCloud(f"dead-{number}", parts.cloud) for number in range(4)
    }
    providers["well"] = FakeProvider("well", parts.cloud)
    try:
        for _ in range(3):
            turns.learn(providers)
            assert turns.take(providers).ours == providers.keys()
        assert sorted(calls) == sorted(providers)
        assert DeadCloud.waited_for == []
        assert turns._lease("well") != turns._lease("dead-0").replace("dead-0", "well")
    finally:
        DeadCloud.over.set()
