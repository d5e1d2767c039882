"""Images that no build finished, in whole lives over HTTP and with nothing but their own tags: no
row knows them. Beside them, in every account, are those that last (`scenarios.others`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.azure_side import AzureSide
from tests.faults.ec2_side import Ec2Side
from tests.faults.gce_side import GceSide
from tests.faults.http_side import HttpSide
from tests.faults.world import World
from vmrunner.model import Kind
from vmrunner.providers.fake import Call, Fault

Make = Callable[..., World]

#: The requests about one: those of a sweep, the look before its end, the end.
ARM = ("images.list", "images.get", "images.delete")
ABOUT = {"ec2": ("DescribeImages", "DeregisterImage"), "gce": ARM, "azure": ARM}
FATES = (Fault.SERVER_ERROR, Fault.THROTTLE, Fault.CREDENTIALS)
#: Azure has each fate for each request; the others one for each.
TROUBLES = [
    pytest.param(side, action, fate, id=f"{side.driver}-{action}-{fate}")
    for side in (Ec2Side, GceSide, AzureSide)
    for number, action in enumerate(ABOUT[side.driver])
    for fate in (FATES if side is AzureSide else (FATES[number],))
]


def marked(world: World, seconds: float) -> dict[str, str]:
    """The tags of one that is to end so many seconds from now."""
    return {
        "vmrunner:installation": world.truth.installation,
        "vmrunner:role": "image",
        "vmrunner:instance": "vm-builder",
        "vmrunner:expires-at": str(int(world.cloud.now() + seconds)),
    }


@pytest.mark.parametrize(("side", "action", "fate"), TROUBLES, indirect=["side"])
def test_an_unfinished_image_ends_and_no_other_does(
    make_http: Make, side: type[HttpSide], action: str, fate: Fault
) -> None:
    """Whatever the requests about it fare like."""
    world = make_http()
    tags, plant, scope = marked(world, 100), world.cloud.plant, world.cloud.scope
    unfinished = plant(scope, tags, kind=Kind.IMAGE)
    theirs = plant(scope, tags | {"vmrunner:installation": "theirs"}, kind=Kind.IMAGE)
    lasting = plant(scope, tags | {"vmrunner:role": "guard"}, kind=Kind.IMAGE)
    actions: list[str] = []

    def judge(call: Call) -> Any:
        actions.append(call.provider)
        return side.fates[fate] if call.provider == action else None

    world.judge, world.trouble = judge, math.inf
    world.node()
    world.run(300)
    assert unfinished.alive
    assert action in actions
    world.judge, world.trouble = None, world.clock()
    world.run(world.sweep_seconds + world.limits.limits.grace + 1)
    assert [image.alive for image in (unfinished, theirs, lasting)] == [False, True, True]


@pytest.mark.parametrize("side", [Ec2Side, GceSide, AzureSide], indirect=True)
def test_an_image_finished_after_the_sweep_lives_on(make_http: Make, side: type[HttpSide]) -> None:
    """The reaper knows its deadline by then, and looks once more before it deletes."""
    world = make_http(sweep_seconds=1e9)
    made = world.cloud.plant(world.cloud.scope, marked(world, 100), kind=Kind.IMAGE)
    world.node()
    world.run(50)
    world.cloud.finish(made)
    actions: list[str] = []
    world.judge = lambda call: actions.append(call.provider)
    world.run(100)
    assert made.alive
    look, end = ABOUT[side.driver][-2:]
    assert look in actions
    assert end not in actions
