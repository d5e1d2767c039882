"""A primary that dies while a reaper lists the cloud."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from tests.faults.world import SWEEP, World
from vmrunner.model import BuildState, Result
from vmrunner.providers.fake import Call, Fault, Plan


def test_a_failover_amid_a_sweep_ends_nothing_that_runs(make_world: Callable[..., World]) -> None:
    """The rows of one page were read, those of the next were not, and then the ledger is back."""
    world = make_world(served=True)
    servers, pages = world.servers, itertools.count(1)
    assert servers is not None
    servers.window = 3.0
    world.build_seconds = 3 * SWEEP
    builds = [world.submit().id for _ in range(2)]
    node = world.node()
    world.run(
        SWEEP,
        until=lambda: {world.truth.builds.get(b).state for b in builds} == {BuildState.RUNNING},
    )
    node.engine.context.providers["fake"]._part.page_size = 1  # type: ignore[attr-defined]

    def judge(call: Call) -> Plan | None:
        turn = next(pages) if call.method == "sweep" else 0
        if turn == 2:
            servers.fail_over()
        return Plan(Fault.DELAY, servers.window) if turn == 3 else None

    world.judge = judge
    world.run(2 * SWEEP)
    assert servers.number == 2
    world.settle()
    assert {world.truth.builds.get(b).result for b in builds} == {Result.SUCCESS}
