"""A process whose host's clock is wrong, and whose cloud has said nothing yet: `vmrunner reap`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.gce_side import GceSide
from tests.faults.node import Node
from tests.faults.world import LIMITS, World

WINDOWS = replace(
    LIMITS, max_ttl=14400, newborn=900, requested=900, booting=900, ready=600, deleting=900,
    sighting_gap=60,
)  # fmt: skip


def part(node: Node) -> Any:
    """The driver of Compute Engine in it."""
    return node.engine.context.providers["google"]._part  # type: ignore[attr-defined]


def host_clock(world: World, node: Node, wrong: float) -> None:
    part(node).clock._host = lambda: world.clock() + wrong


@pytest.mark.parametrize("wrong", [0.0, 1200.0, 86_400.0, -1200.0, -86_400.0])
def test_a_sweep_begins_by_the_clouds_clock(make_world: Callable[..., World], wrong: float) -> None:
    """No list shows the newborn yet, and each sweep is made by a process of its own."""
    w = make_world(cloud=GceSide, limits=WINDOWS)
    w.cloud.local.visibility_lag = 240.0
    build = w.submit(ttl=3000, timeout=1000)
    host_clock(w, w.node(reaps=False), wrong)
    for _ in range(4):
        w.run(60)
        cron = w.node(drives=False)
        host_clock(w, cron, wrong)
        cron.reaping.run()
        cron.close()
    rows = w.truth.instances.list(build=build.id)
    assert [row.death for row in rows] == [None]
    assert len(list(w.ours())) == 1


def test_a_sweep_whose_time_nobody_verified_concludes_nothing(
    make_world: Callable[..., World],
) -> None:
    """The account cannot be asked who it is, and all lists answer."""
    w = make_world(cloud=GceSide, limits=WINDOWS)
    node = w.node()
    host_clock(w, node, 86_400.0)
    provider = part(node)
    provider.identity.quietly = lambda: None
    w.cloud.plant(
        w.cloud.scope,
        {
            "vmrunner:installation": w.truth.installation,
            "vmrunner:generation": w.truth.generation,
            "vmrunner:role": "build",
            "vmrunner:instance": "vm-ghost",
            "vmrunner:expires-at": str(int(w.clock() + 9000)),
        },
    )
    for _ in range(2):
        node.reaping.run()
        assert not w.truth.sightings.list(w.cloud.name, map(str, w.cloud.scopes))
        w.clock.advance(100)
