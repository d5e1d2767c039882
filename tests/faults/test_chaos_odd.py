"""Drawn builds in clouds that show no names, and in such as accept what they cannot place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.chaos import Episode
from tests.faults.chaos_nature import draw_nature
from vmrunner.model import Order, Reason
from vmrunner.providers.fake import FakeMachine


class Odd(Episode):
    """Short, on one cloud in memory. `unplaceable`: of so many cannot one be placed."""

    forges = failovers = hosts = 0.0
    span = 600.0
    names = True
    unplaceable = 0.0

    def _nature(self) -> None:
        draw_nature(self.world, self.random)
        cloud = self.world.cloud
        cloud.shows_names = self.names
        if not self.names:  # it shows no deadline either: such a cloud must keep that itself
            cloud.native_deadline, cloud.arms, cloud.disks = True, None, False
        make, draw = cloud.create, self.random

        def create(order: Order) -> FakeMachine:
            machine = make(order)
            if machine.alive and machine.unfit is None and draw.random() < self.unplaceable:
                machine.unfit = draw.choice((Reason.NO_CAPACITY, Reason.QUOTA, Reason.IMAGE))
                self.happened["never placed"] += 1
            return machine

        cloud.create = create


class Nameless(Odd):
    names = False


class Full(Odd):
    unplaceable = 0.3


@pytest.mark.parametrize("kind", [Nameless, Full])
@pytest.mark.parametrize("seed", range(3))
def test_drawn_builds_keep_the_promises_there(
    template: Path, tmp_path: Path, kind: type[Odd], seed: int
) -> None:
    episode = kind(template, tmp_path, f"{kind.__name__}-{seed}", 20)
    try:
        episode.play()
    finally:
        episode.world.close()
