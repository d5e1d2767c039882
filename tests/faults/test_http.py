"""The whole over HTTP: the real engine, reaper and ledger with the real drivers of EC2, Compute
Engine and Azure, against local endpoints. Killed at every effect and in every request, each request
failing in every way; others' machines, disks and so on stand beside ours in every account.

VMRUNNER_FAULTS=all plays all scenarios at every place, and every kind of fault in each of them; a
change must pass a sample. What
goes wrong for longer than a request is in `test_http_trouble`."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vmrunner_localclouds.common.faults import LOST_ANSWER, LOST_REQUEST, RequestFate

from tests.faults.azure_side import AzureSide
from tests.faults.broken import Broken
from tests.faults.crash_points import (
    at_point,
    crash_points,
    crashed,
    finish_elsewhere,
    nothing_of_ours,
)
from tests.faults.ec2_side import Ec2Side
from tests.faults.gce_side import GceSide
from tests.faults.http_chaos import HttpEpisode
from tests.faults.http_side import HttpSide
from tests.faults.kube_side import KubeSide, PodSide
from tests.faults.scenarios import SCENARIOS, Scenario, begin
from tests.faults.world import TTL, World
from vmrunner.model import BuildRecord
from vmrunner.providers.fake import Call

Make = Callable[..., World]

ALL = os.environ.get("VMRUNNER_FAULTS") == "all"
SHORT = {"run", "failed_delete", "retry", "take_over_running", "reap"}
CHOSEN = [scenario for scenario in SCENARIOS if ALL or scenario.name in SHORT]
RUN = next(scenario for scenario in SCENARIOS if scenario.name == "run")
#: The fake plays every point of every scenario; here are played those at a request of `run`, some
#: of the others', and so thin a sample of the points between.
THIN = 18


def chosen(side: type[HttpSide], scenario: Scenario, at: int, place: str) -> bool:
    """Is this place played?"""
    asks = "cloud." in place and (scenario is RUN or at % 3 == 0)
    return ALL or asks or at % THIN == 0


TROUBLES = ("unheard", "heard", "5xx", "throttled", "garbage")
each_kind = pytest.mark.parametrize("kind", TROUBLES)


def fits(side: type[HttpSide], scenario: Scenario) -> bool:
    """Where nothing can be armed or sealed, there is no such scenario."""
    return side.seals or scenario.name != "armed"


LIVES = [
    pytest.param(side, scenario, id=f"{side.driver}-{scenario.name}")
    for side in (Ec2Side, GceSide, AzureSide, KubeSide, PodSide)
    for scenario in CHOSEN
    if fits(side, scenario)
]


@pytest.mark.parametrize(("side", "scenario"), LIVES, indirect=["side"])
def test_a_crash_at_any_place_loses_doubles_and_leaves_nothing(
    make_http: Make, side: type[HttpSide], scenario: Scenario
) -> None:
    """Promises 1 to 5 and 7: another process goes on at once."""
    for at, place in enumerate(crash_points(make_http, scenario)):
        if chosen(side, scenario, at, place):
            with at_point(place):
                world, build = crashed(make_http, scenario, at)
                finish_elsewhere(world, scenario, build)


def requests(make_http: Make, scenario: Scenario) -> list[str]:
    """What the scenario's process asks, in order."""
    world = make_http()
    actions: list[str] = []
    begin_late(world, scenario, lambda call: actions.append(call.provider))
    world.run(TTL + 100, until=world.quiet)
    world.close()
    return actions


def begin_late(world: World, scenario: Scenario, judge: Callable[[Call], Any]) -> BuildRecord:
    """Begin the scenario; what the enumerated process asks is judged, and nothing before."""
    build, _ = begin(world, scenario)
    world.judge = judge
    return build


def at_request(number: int, trouble: RequestFate) -> Callable[[Call], RequestFate | None]:
    """This request fares like that, and all others well."""
    count = 0

    def judge(_: Call) -> RequestFate | None:
        nonlocal count
        count += 1
        return trouble if count == number + 1 else None

    return judge


@pytest.mark.parametrize("heard", [False, True], ids=["unheard", "heard"])
def test_a_process_dies_while_a_request_is_on_its_way(
    make_http: Make, side: type[HttpSide], heard: bool
) -> None:
    """Also between two requests of one effect; what it asks after its death nobody hears."""
    for at, action in enumerate(requests(make_http, RUN)):
        if side.asks(action) and (heard or not (ALL or at % 3 == 0)):
            continue  # whether a question was heard, nobody can tell
        with at_point(f"{at}: {action}"):
            world = make_http()
            build, node = begin(world, RUN)
            fate_of = at_request(at, LOST_ANSWER if heard else LOST_REQUEST)

            def judge(call: Call, node: Any = node, fate_of: Any = fate_of) -> RequestFate | None:
                if node.dead:
                    return LOST_REQUEST
                fate: RequestFate | None = fate_of(call)
                node.dead = fate is not None
                return fate

            world.judge = judge
            world.run(TTL + 100, until=lambda node=node: node.dead)
            node.kill()
            world.judge = None
            finish_elsewhere(world, RUN, build)


@each_kind
def test_any_request_may_fail(make_http: Make, side: type[HttpSide], kind: str) -> None:
    """The build comes to the same end, and nothing is left or doubled. Each request meets one of
    the kinds, one trouble of it in turn; or with ALL all of them."""
    troubles, turn = side.troubles[kind], TROUBLES.index(kind)
    for scenario in (s for s in CHOSEN if fits(side, s)) if ALL else [RUN]:
        for at, action in enumerate(requests(make_http, scenario)):
            if not ALL and (at - turn) % len(TROUBLES):
                continue
            for trouble in troubles if ALL else [troubles[at % len(troubles)]]:
                with at_point(f"{scenario.name}, {at}: {action}, {trouble}"):
                    world = make_http()
                    build = begin_late(world, scenario, at_request(at, trouble))
                    world.settle()
                    done = world.truth.builds.get(build.id)
                    assert done.result in scenario.ends, done
                    nothing_of_ours(world)
                    world.close()


@pytest.mark.parametrize(
    "episodes",
    [
        pytest.param(range(2), id="two"),
        pytest.param(range(2, 200 if ALL else 16), id="more", marks=pytest.mark.long),
    ],
)
def test_builds_in_a_hostile_world_over_http(
    template: Path, side: type[HttpSide], episodes: range
) -> None:
    """Random trouble; `HttpEpisode` says which."""
    broken: Counter[str] = Counter()
    happened: Counter[str] = Counter()
    for number in episodes:
        with tempfile.TemporaryDirectory(prefix="world-", dir=template.parent) as root:
            episode = HttpEpisode(template, Path(root), f"http:{number}", 15, side)
            try:
                episode.play()
            except Broken as error:
                broken[str(error)[:1]] += 1
                print(f"episode {number}: {error}")
            happened += episode.happened
            episode.world.close()
    print(dict(happened))
    print(f"survivors={broken['1']} doubles={broken['3']} murders={broken['2']}")
    assert not broken
    assert happened["failed calls"]
    assert happened["crashes"]
