"""A pool at a provider that has no room for another VM: what it is there for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.pool_worlds import drained, filled, pools, waiting
from tests.faults.world import World
from vmrunner.errors import NoCapacity
from vmrunner.providers.fake import FakeProvider


def test_what_waits_needs_no_room_at_its_provider(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    world.node(pools=pools(size=1))
    filled(world, 1)
    (row,) = waiting(world)

    def dry(*_: object) -> None:
        raise NoCapacity("all pools were dry a moment ago")

    with monkeypatch.context() as patch:
        patch.setattr(FakeProvider, "offers", dry)
        build = world.submit()
        world.run(60, until=lambda: world.truth.builds.get(build.id).finished)
    assert world.truth.builds.get(build.id).instance == row.id
    drained(world)
