"""What a cloud may be like: how fast, how truthful, and what it does by itself."""

from __future__ import annotations

from random import Random

from tests.faults.world import World
from vmrunner.model import Kind

_DAY = 86_400.0


def draw_nature(world: World, draw: Random) -> None:
    """Let the seed say what this world's cloud is like."""
    cloud = world.cloud
    cloud.boot_seconds = draw.choice((2.0, 20.0, 60.0))
    cloud.delete_seconds = draw.choice((0.0, 2.0, 40.0))
    cloud.tombstone = draw.choice((0.0, 3600.0, 3600.0))
    cloud.visibility_lag = draw.choice((0.0, 0.0, 5.0, 30.0))
    cloud.unsteady = draw.choice((0.0, 0.0, 5.0, 25.0))
    cloud.chance = Random(draw.random())
    cloud.disks = draw.random() < 0.2
    every = tuple(kind for kind in Kind if kind is not Kind.INSTANCE)
    cloud.belongings = draw.choice(((Kind.DISK,), every))
    cloud.disks_stay = draw.random() < 0.5
    cloud.poweroff_kills = draw.random() < 0.7
    cloud.guest_timer = 0.0 if draw.random() < 0.2 else None
    cloud.native_deadline = draw.random() < 0.1
    cloud.skew = draw.choice((0.0, 0.0, 3.0, -3.0, _DAY, -_DAY))
    cloud.arms = draw.choice((None, None, 60.0, 600.0))
    cloud.seals = draw.random() < 0.5
    cloud.hears = draw.random() < 0.5
    cloud.timeout = draw.choice((0.0, 30.0)) if world.airborne else 0.0
