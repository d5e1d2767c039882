"""A VM of Compute Engine stops under a running build: by whom decides whose failure that is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from vmrunner_localclouds.gce import GceMachine

from tests.faults.world import World
from vmrunner.model import BuildState, Reason, Result

STOPS: dict[str, Callable[[GceMachine], object]] = {
    "host error": GceMachine.break_down,
    "maintenance": GceMachine.maintain,
    "operator": GceMachine.stop,
    "guest": GceMachine.power_off,
}


@pytest.mark.parametrize("retry", [True, False])
@pytest.mark.parametrize("how", STOPS)
def test_only_the_guest_that_ends_itself_fails_its_build(
    make_gce: Callable[..., World], how: str, *, retry: bool
) -> None:
    world = make_gce()
    world.cloud.options = {"machine_types": ("n2-standard-2",)}
    world.cloud.local.immovable.add("n2-standard-2")  # or maintenance would only move it
    world.build_seconds = 30
    build = world.submit(retry_on_loss=retry)
    world.node()
    builds = world.truth.builds
    world.run(120, until=lambda: builds.get(build.id).state is BuildState.RUNNING)
    (machine,) = world.ours()
    STOPS[how](machine.local)
    world.settle()
    done = builds.get(build.id)
    if how == "guest":
        assert (done.result, done.reason, done.attempt) == (Result.FAILURE, Reason.VM_LOST, 1)
    elif retry:
        assert (done.result, done.reason, done.attempt) == (Result.SUCCESS, Reason.EXIT_CODE, 2)
    else:
        assert (done.result, done.reason, done.attempt) == (Result.ERROR, Reason.VM_LOST, 1)
