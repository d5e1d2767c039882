"""A GitHub whose answers are odd: of other types, without fields, with others' status or time. It
costs no more requests than one that is away, never a second VM for a job, and no job for good."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import Any, Final

import pytest

from tests.faults.github_side import GithubWorld
from tests.support.fake_github import Answer, FakeGithub

ODD: Final = (
    None,
    True,
    -1,
    0,
    10**30,
    float("inf"),
    "",
    "x\n",
    "\ud800",
    [],
    [None],
    {},
    {"x": 1},
)
STATUS: Final = (200, 202, 204, 302, 400, 401, 403, 404, 409, 418, 422, 429, 500, 503)
DATES: Final = ("", "soon", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT")
WAITS: Final = ("", "0", "-1", "soon", "1e9", "7", "Fri, 31 Dec 9999 23:59:59 GMT")


def odd(draw: Random, found: Any) -> Any:
    """Return a document with one thing in it replaced or gone."""
    found = copy.deepcopy(found)
    if not isinstance(found, dict | list) or not found or draw.random() < 0.2:
        return draw.choice(ODD)
    key = draw.choice(list(found) if isinstance(found, dict) else range(len(found)))
    if draw.random() < 0.3:
        del found[key]
    else:
        found[key] = odd(draw, found[key])
    return found


def made_odd(github: FakeGithub, draw: Random, share: float) -> Callable[[], None]:
    """Let this share of all answers be odd. Returns what ends that."""
    ask = github.ask

    def answer(*args: Any) -> Answer:
        found = ask(*args)
        if draw.random() >= share:
            return found
        match draw.randrange(4):
            case 0:
                return Answer(draw.choice(STATUS), found.body, {"retry-after": draw.choice(WAITS)})
            case 1:
                return Answer(found.status, found.body, {"date": draw.choice(DATES)})
            case _:
                return Answer(found.status, odd(draw, found.body))

    github.ask = answer  # type: ignore[method-assign]
    return lambda: setattr(github, "ask", ask)


@pytest.mark.parametrize("seed", [*range(3), 8, 32])
def test_odd_answers_cost_no_second_vm_and_no_job(
    make_github: Callable[..., GithubWorld], seed: int
) -> None:
    world, draw = make_github(), Random(seed)
    world.node()
    healed = made_odd(world.github, draw, 0.3)
    process = world.forge()
    world.run(60)
    for _ in range(3):
        if len(world.github.sets) == 1:
            world.github.queue_job()
        world.run(60)
    before = len(world.github.requests)
    healed()
    world.run(4000, until=lambda: process.state.jobs.news is not None)
    world.run(400, until=world.all_done)
    assert process.state.jobs.news is not None
    assert before < 1500
    world.settle()
