"""What one pass says it does."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.world import World
from vmrunner.model import BuildState, Reason


def test_asking_again_for_a_dying_vms_death_is_told(
    make_world: Callable[..., World],
) -> None:
    """It was asked for already, and takes its time."""
    world = make_world()
    world.cloud.delete_seconds = 1e6
    world.build_seconds = 1e9
    build = world.submit()
    node = world.node(reaps=False)
    world.run(60, until=lambda: world.truth.builds.get(build.id).state is BuildState.RUNNING)
    world.truth.builds.request_cancel(build.id, Reason.USER, world.clock())
    world.run(10)
    node.kill()
    (row,) = world.truth.instances.open()
    world.clock.advance(40)
    other = world.node(drives=False, reaps=False)
    (planned,) = other.reaping.run(dry_run=True).lines
    assert (planned.what, planned.id, planned.reason, planned.outcome) == (
        "delete", row.id, row.death, "",
    )  # fmt: skip
    (line,) = other.reaping.run().lines
    assert (line.id, line.outcome) == (row.id, "accepted")
