"""Two engines and two reapers over one ledger and one cloud, in every order that Hypothesis thinks
of: one acts between two effects of another. And what must not depend on any order."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.faults.node import Node
from tests.faults.scenarios import reap
from tests.faults.world import World
from vmrunner.model import Reason, Ref
from vmrunner.providers.fake import Fault, Plan

Make = Callable[..., World]

WHO = st.integers(0, 3)  # 0 and 1: engines; 2 and 3: reapers
KINDS = st.sampled_from(
    [Fault.LOST_REQUEST, Fault.LOST_RESPONSE, Fault.SERVER_ERROR, Fault.THROTTLE]
)


class Interleaved(RuleBasedStateMachine):
    """Everybody acts when told to, and may be interrupted by another at any effect."""

    template: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="world-", dir=self.template.parent))
        self.world = World(self.template, self.root)
        self.world.build_seconds = 5.0
        self.nodes: list[Node] = []

    @initialize(lag=st.sampled_from([0.0, 0.0, 20.0]), tombstone=st.sampled_from([0.0, 3600.0]))
    def begin(self, lag: float, tombstone: float) -> None:
        self.world.cloud.visibility_lag = lag
        self.world.cloud.tombstone = tombstone
        self.nodes = [self._node(who) for who in range(4)]

    def _node(self, who: int) -> Node:
        return self.world.node(reaps=False) if who < 2 else self.world.node(drives=False)

    def _act(self, who: int, *, sweep: bool) -> None:
        node = self.nodes[who]
        if node.dead or node.asleep:
            return
        if who < 2:
            node.tick()
        else:
            node.reaping.run(sweep=sweep)

    @rule(
        submitter=st.sampled_from([None, None, 7]),
        retry=st.booleans(),
        keep=st.sampled_from([None, 10]),
        code=st.sampled_from([0, 0, 3]),
    )
    def submit(self, submitter: int | None, *, retry: bool, keep: int | None, code: int) -> None:
        build = self.world.submit(
            submitter=submitter, retry_on_loss=retry, keep_on_failure=keep, ttl=60, timeout=30
        )
        self.world.codes[build.id] = code

    @rule(who=WHO, sweep=st.booleans())
    def act(self, who: int, *, sweep: bool) -> None:
        self._act(who, sweep=sweep)

    @rule(who=WHO, other=WHO, after=st.integers(0, 12), sweep=st.booleans(), crash=st.booleans())
    def interrupted(self, who: int, other: int, after: int, *, sweep: bool, crash: bool) -> None:
        """`other` acts between two effects of `who`, who may then be killed there."""
        node = self.nodes[who]
        if who == other or node.dead:
            return

        def meanwhile(_node: Node) -> None:
            self._act(other, sweep=sweep)
            node.dead = crash and who < 2

        node.sleep_at, node.sleep = len(node.points) + after, meanwhile
        self._act(who, sweep=sweep)
        node.sleep = None

    @rule(seconds=st.sampled_from([1.0, 1.0, 5.0, 5.0, 20.0, 65.0]))
    def wait(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @rule(who=st.integers(0, 1))
    def kill(self, who: int) -> None:
        self.nodes[who].kill()

    @precondition(lambda self: any(node.dead for node in self.nodes))
    @rule()
    def restart(self) -> None:
        for who, node in enumerate(self.nodes):
            if node.dead:
                node.kill()
                self.nodes[who] = self._node(who)

    @rule(kind=KINDS)
    def fail(self, kind: Fault) -> None:
        self.world.next_call = [Plan(kind)]

    @rule()
    def guest_dies(self) -> None:
        for machine in [m for m in self.world.ours() if m.alive][:1]:
            self.world.cloud.die(machine)

    @rule(which=st.integers(0, 5))
    def cancel(self, which: int) -> None:
        active = self.world.truth.builds.list(active=True)
        if active:
            build = active[which % len(active)]
            self.world.truth.builds.request_cancel(build.id, Reason.USER, self.world.clock())

    @rule()
    def submitters_die(self) -> None:
        self.world.living.clear()

    @invariant()
    def promises(self) -> None:
        """All but the first, which is about time; here everybody may be idle for long."""
        self.world.check(survivors=False)

    def teardown(self) -> None:
        try:
            if self.nodes:
                self.world.next_call = []
                self.restart()
                for node in self.nodes[2:]:
                    node.awake_since = self.world.clock()
                self.world.settle()
        finally:
            self.world.close()
            shutil.rmtree(self.root)


def test_two_engines_and_two_reapers_in_any_order(template: Path) -> None:
    Interleaved.template = template
    machine = Interleaved.TestCase
    machine.settings = settings(
        max_examples=50,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    machine().runTest()


def _dying(world: World) -> set[Ref]:
    return {m.ref for m in world.standing() if m.delete_accepted is not None}


def test_a_second_sweep_and_a_second_reaper_change_nothing(make_world: Make) -> None:
    """sweep ∘ sweep = sweep, whoever sweeps."""
    ends = []
    for sweepers in ([0], [0, 0], [0, 1], [1, 0, 1]):
        world = make_world()
        reap(world)
        nodes = [world.node(drives=False), world.node(drives=False)]
        for who in sweepers:
            nodes[who].reaping.run()
        numbers = {ref.id for ref in _dying(world)}
        rows = sorted((r.state, r.death) for r in world.truth.instances.list())
        ends.append((numbers, rows))
    assert all(end == ends[0] for end in ends)
    assert len(ends[0][0]) > 1
