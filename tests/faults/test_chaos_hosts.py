"""Drawn worlds with hosts of local VMs: the ones that notice what is planted in
`bench/planted_hosts.py`, and two nodes on one host that share its clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.faults import Hosted
from tests.faults.host_side import HOST_A, HOST_B, Hosts, on
from tests.faults.test_two_hosts import row_of, running_on_b, two_hosts
from tests.faults.world import TTL, World


def test_hosts_come_and_go_in_a_hostile_world(template: Path, tmp_path: Path) -> None:
    episode = Hosted(template, tmp_path, "7:1", 40)
    try:
        episode.play()
        assert episode.happened["hosts that came back"]
    finally:
        episode.world.close()


def test_nodes_of_one_host_share_its_clock(make_world: Callable[..., World]) -> None:
    world = make_world(cloud=Hosts, many_hosts=True)
    first, second, other = on(world, HOST_A), on(world, HOST_A), on(world, HOST_B)
    first.skew += 3600.0
    assert first.engine.context.clock() == second.engine.context.clock() == world.clock() + 3600.0
    assert other.engine.context.clock() == world.clock()


def test_a_keeper_goes_by_its_hosts_clock(make_world: Callable[..., World]) -> None:
    """A VM of a host that nobody reaches ends when that host thinks that its time is over."""
    world = two_hosts(make_world)
    _, b, build = running_on_b(world)
    ref = row_of(world, build).ref
    assert ref is not None
    machine = world.cloud.machines[ref]
    b.host.cut = True
    b.skew -= 30.0
    world.run(machine.created_at + TTL - world.clock() + 20)
    assert machine.alive
    world.run(20)
    assert not machine.alive
    b.host.cut = False
    world.settle()


def test_a_host_asleep_has_no_vm_in_the_world(make_world: Callable[..., World]) -> None:
    world = two_hosts(make_world)
    _, b, build = running_on_b(world, retry_on_loss=True)
    assert world.standing()
    b.host.off = True
    world.run(TTL + 30, step=5.0)
    assert not world.standing()
    b.host.off, b.awake_since = False, world.clock()
    world.seconds[build] = 1.0
    assert not world.standing(), "its keeper ends what is late as it wakes"
    world.settle()
