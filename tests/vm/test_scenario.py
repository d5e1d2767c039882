"""One job on every provider, with real VMs and real pods: whatever runs it, what comes back is the
same, and nothing of it is left in the cloud."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.support.ec2 import credentials
from tests.vm.home import Home, text, wait_until
from tests.vm.local_azure import LocalAzure
from tests.vm.local_cloud import Local, newcomer
from tests.vm.local_ec2 import BY_USER, LocalEc2
from tests.vm.local_gce import LocalGce
from tests.vm.local_kube import LocalGvisor, LocalKube

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

SCENARIO: Final = Path(__file__).parents[2] / "examples/scenario"
#: Beside `qemu`. In `make test` Azure's VMs boot, build and end in `test_local_azure.py`.
CLOUDS: Final = [
    pytest.param((LocalEc2, LocalGce), id="ec2, gce"),
    pytest.param((LocalKube, LocalGvisor), id="kubernetes, gvisor"),
    pytest.param((LocalAzure,), id="azure", marks=pytest.mark.long),
]


class Outcome(NamedTuple):
    """All that a build gives its caller. Artifacts: path → mode, content."""

    code: int
    out: bytes
    artifacts: dict[str, tuple[int, bytes]]


@pytest.fixture
def clouds(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Local]]:
    with credentials():
        clouds = [kind.start(tmp_path / kind.NAME) for kind in request.param]
        yield clouds
        for cloud in clouds:
            cloud.end()


@pytest.fixture
def home(clouds: list[Local], tmp_path: Path) -> Iterator[Home]:
    home = newcomer(tmp_path / "home", *clouds)
    yield home
    home.assert_nothing_left()


def started(home: Home, provider: str) -> subprocess.Popen[bytes]:
    return home.start(
        "run", "--provider", provider, "-f", str(SCENARIO / "vmrunner.yml"), "pack",
        "--source", str(SCENARIO), "--artifacts-to", provider,
    )  # fmt: skip


def outcome(home: Home, provider: str, run: subprocess.Popen[bytes]) -> Outcome:
    out, err = run.communicate(timeout=500)
    print(text(err))
    to = home.root / "cwd" / provider
    found = {
        str(path.relative_to(to)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(to.rglob("*"))
        if path.is_file()
    }
    return Outcome(run.returncode, out, found)


def nothing_of_it_is_left(cloud: Local, row: dict[str, Any]) -> None:
    match cloud:
        case LocalEc2():
            machine = cloud.of(row["build"])
            assert cloud.wait_terminated(machine, seconds=60) == BY_USER
            assert cloud.furniture(machine) == []
            wait_until(lambda: not cloud.schedules(machine), seconds=60, what="its disarming")
        case LocalGce():
            cloud.wait_for(row["id"], "gone", seconds=60)
            assert cloud.disks(row["id"]) == []
        case LocalAzure():
            cloud.wait_for(row["id"], "gone", seconds=60)
            assert cloud.parts(row["id"]) == []
        case LocalKube():
            wait_until(lambda: cloud.objects() == [], seconds=60, what="its objects to be gone")


@pytest.mark.parametrize("clouds", CLOUDS, indirect=True)
def test_one_job_is_the_same_on_every_provider(home: Home, clouds: list[Local]) -> None:
    home.builds()  # makes the ledger
    providers = ["qemu", *(cloud.NAME for cloud in clouds)]
    runs = [started(home, provider) for provider in providers]
    first, *others = map(outcome, [home] * len(runs), providers, runs)
    print(text(first.out))
    assert first.code == 3
    assert b"bytes: \x00\xff\n" in first.out
    assert b"reaches nothing\n" in first.out
    assert first.out.endswith(b"20000\n1 of 2 tests failed\n")
    assert sorted(first.artifacts) == ["out/numbers.txt", "out/source.tar.gz"]
    for other in others:
        assert other == first

    rows = {row["provider"]: row for row in home.instances()}
    assert len(rows) == len(home.instances()) == len(providers)
    for cloud in clouds:
        nothing_of_it_is_left(cloud, rows[cloud.NAME])
