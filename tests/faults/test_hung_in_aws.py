"""A VM that EC2 never finishes to shut down."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.ec2_side import Ec2Side
from tests.faults.world import World
from vmrunner.model import InstanceState

#: Older than the newborn window, so that absence from two sweeps would close its row.
LIFE = 100.0


def test_its_row_is_open_until_it_is_forced_dead(make_world: Callable[..., World]) -> None:
    world = make_world(cloud=Ec2Side, pass_seconds=30.0, sweep_seconds=60.0)
    world.build_seconds = LIFE
    build = world.submit(ttl=3 * LIFE)
    world.node()
    world.run(60, until=lambda: bool(world.started))
    (machine,) = world.ours()
    machine.local.stuck = True

    def closed() -> bool:
        (row,) = world.truth.instances.list(build=build.id)
        return row.state is InstanceState.GONE

    world.run(LIFE + 1500, until=closed, step=15.0)
    assert closed()
    assert machine.local.state == "terminated"
