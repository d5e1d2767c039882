"""Sandboxes of an episode, and the commands that are run in them."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final

from tests.faults.world import World
from vmrunner.model import BuildRecord

#: Their share of what is submitted.
SANDBOXES: Final = 0.15


def draw_sandbox(world: World, draw: Random, providers: list[str], submitter: int) -> BuildRecord:
    """Submit one that some callers use; to some `submitter` belongs."""
    seconds = draw.choice((60.0, 300.0, 600.0))
    build = world.sandbox(
        seconds=seconds,
        provider=draw.choice(providers),
        submitter=submitter if draw.random() < 0.3 else None,
        ttl=seconds + draw.choice((300, 600)),
        spot=draw.random() < 0.2,
        queue_timeout=draw.choice((None, 120, 3600)),
    )
    for caller in range(draw.randrange(3)):
        numbers = range(draw.randint(1, 3))
        commands = {f"c{caller}-{number}": draw.expovariate(1 / 60) for number in numbers}
        world.call(build, commands, polls=draw.random() < 0.5)
    return build


def ends_of(world: World) -> Counter[str]:
    """How commands ended."""
    ends = [end for caller in world.callers for end in caller.ends.values()]
    codes = sum(end is not None for end in ends)
    return Counter({"exit codes of commands": codes, "sandboxes over amid one": len(ends) - codes})
