"""What a cloud may be like: how fast, how truthful, and what it does by itself."""

from __future__ import annotations

from random import Random
from typing import Final

from tests.faults.world import World
from vmrunner.model import Kind
from vmrunner.providers.fake import Fault

_DAY = 86_400.0

#: What may become of a call.
FAULTS: Final = {
    "offers": (Fault.LOST_REQUEST, Fault.LOST_RESPONSE, Fault.SERVER_ERROR, Fault.THROTTLE),
    "create": (
        Fault.LOST_REQUEST,
        Fault.LOST_RESPONSE,
        Fault.SERVER_ERROR,
        Fault.THROTTLE,
        Fault.LATE,
        Fault.NO_CAPACITY,
        Fault.QUOTA,
    ),
    "arm": (Fault.LOST_REQUEST, Fault.LOST_RESPONSE, Fault.THROTTLE, Fault.CREDENTIALS),
    "seal": (Fault.LOST_REQUEST, Fault.LOST_RESPONSE, Fault.SERVER_ERROR, Fault.THROTTLE),
    "delete": (Fault.LOST_REQUEST, Fault.LOST_RESPONSE, Fault.SERVER_ERROR, Fault.THROTTLE),
    "look": (Fault.LOST_REQUEST, Fault.LOST_RESPONSE, Fault.SERVER_ERROR, Fault.THROTTLE),
    "sweep": (Fault.LOST_REQUEST, Fault.THROTTLE, Fault.PARTIAL_PAGE),
}
#: The longest that an answer of these is on its way, where calls are in the air. A driver gives a
#: listing up before long.
LONGEST: Final = {
    "offers": 60.0, "create": 120.0, "delete": 30.0, "look": 60.0, "sweep": 10.0
}  # fmt: skip


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
    every = tuple(kind for kind in Kind if kind not in (Kind.INSTANCE, Kind.DEFINITION))
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


def draw_foreign(draw: Random, installation: str, tags: dict[str, str]) -> dict[str, str]:
    """Tags of another's machine, which look like those of ours."""
    return draw.choice(
        (
            {},
            {"vmrunner:installation": installation[:-1]},
            {"vmrunner:installation": installation + "0"},
            {"vmrunner:installation": installation.upper() + " "},
            {"vmrunner:installation": ""},
            {"vmrunner:instance": tags.get("vmrunner:instance", "vm-1")},
            tags | {"vmrunner:installation": "another"},
            tags | {"vmrunner:role": "guard"},
            tags | {"vmrunner:role": ""},
        )
    )
