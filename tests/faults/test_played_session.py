"""The played session knows what a real one would: a VM that fell silent tells nothing any more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.node import Node
from tests.faults.world import LOG, World
from vmrunner.model import BuildRecord, BuildState, Reason, Result


def ledger_away_at_the_end(world: World) -> tuple[BuildRecord, Node]:
    """A build whose steps end while its engine waits for the ledger."""
    build = world.submit()
    node = world.node()
    world.run(60, until=lambda: world.truth.builds.get(build.id).state is BuildState.RUNNING)
    node.ledger_down = True
    world.run(world.build_seconds + 5)
    return build, node


@pytest.mark.parametrize("silent", [False, True])
def test_a_silent_vm_tells_no_exit_code(make_world: Callable[..., World], *, silent: bool) -> None:
    """Neither it nor the log was fetched: the supervisor tells the exit code after the log."""
    world = make_world()
    build, node = ledger_away_at_the_end(world)
    if silent:
        for machine in world.ours():
            machine.hung = True  # no look tells
    node.ledger_down = False
    world.settle()
    done = world.truth.builds.get(build.id)
    log = b"".join(chunk.data for chunk in world.truth.logs.read(build.id))
    if silent:
        assert (done.result, done.reason, log) == (Result.ERROR, Reason.VM_LOST, b"")
    else:
        assert (done.result, log) == (Result.SUCCESS, LOG)
    world.check_log(build)
