"""A template ledger, made once and copied for each world, on a disk that is fast where there is
one: what a crash of a process leaves behind is the same in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.azure_side import AzureSide
from tests.faults.ec2_side import Ec2Side
from tests.faults.gce_side import GceSide
from tests.faults.github_side import GithubWorld
from tests.faults.http_side import HttpSide
from tests.faults.kube_side import KubeSide, PodSide
from tests.faults.scenarios import others
from tests.faults.world import World, make_template


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="vmrunner-test-", dir=fast if fast.is_dir() else None
    ) as name:
        yield make_template(Path(name) / "template")


@contextmanager
def _made(template: Path, kind: Callable[..., World]) -> Iterator[Callable[..., Any]]:
    worlds: list[World] = []

    def make(**options: Any) -> World:
        root = Path(tempfile.mkdtemp(prefix="world-", dir=template.parent))
        worlds.append(kind(template, root, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
        shutil.rmtree(world.root)


@pytest.fixture
def make_world(template: Path) -> Iterator[Callable[..., World]]:
    with _made(template, World) as make:
        yield make


@pytest.fixture
def make_github(template: Path) -> Iterator[Callable[..., GithubWorld]]:
    """Worlds with forges."""
    with _made(template, GithubWorld) as make:
        yield make


def _crowded(make_world: Callable[..., World], side: type[HttpSide]) -> Callable[..., World]:
    """Worlds whose cloud is over HTTP, in an account that others use as well."""

    def make(**options: Any) -> World:
        world = make_world(cloud=side, **options)
        others(world)
        return world

    return make


@pytest.fixture(
    params=[Ec2Side, GceSide, AzureSide, KubeSide, PodSide], ids=lambda side: side.driver
)
def side(request: pytest.FixtureRequest) -> type[HttpSide]:
    """Which cloud it is."""
    chosen: type[HttpSide] = request.param
    return chosen


@pytest.fixture
def make_http(make_world: Callable[..., World], side: type[HttpSide]) -> Callable[..., World]:
    return _crowded(make_world, side)


@pytest.fixture
def make_ec2(make_world: Callable[..., World]) -> Callable[..., World]:
    return _crowded(make_world, Ec2Side)


@pytest.fixture
def make_gce(make_world: Callable[..., World]) -> Callable[..., World]:
    return _crowded(make_world, GceSide)


@pytest.fixture(params=[KubeSide, PodSide], ids=lambda side: side.driver)
def make_kube(
    request: pytest.FixtureRequest, make_world: Callable[..., World]
) -> Callable[..., World]:
    return _crowded(make_world, request.param)


@pytest.fixture
def make_azure(make_world: Callable[..., World]) -> Callable[..., World]:
    return _crowded(make_world, AzureSide)
