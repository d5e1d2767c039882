"""The whole way through EC2, with real VMs: launched, booted by cloud-init's own EC2 datasource,
used and ended by nothing but what ends them in Amazon's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from deploy.aws import guard
from tests.amazon import credentials
from tests.vm.home import Home, wait_until
from tests.vm.local_cloud import (
    born_by,
    newcomer,
    put_forward,
    stop_timers,
    talking,
    whole_build,
)
from tests.vm.local_ec2 import BY_GUEST, BY_USER, LocalEc2

pytestmark = [pytest.mark.vm, pytest.mark.clouds, pytest.mark.timeout(900)]


class Abandoned(NamedTuple):
    """Three instances whose builds run, and of which no vmrunner and no ledger knows any more. One
    comes to its deadline soon; the others have lost their guest's timers."""

    due: str
    scheduled: str
    guarded: str


@pytest.fixture(scope="module")
def ec2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEc2]:
    with credentials():
        ec2 = LocalEc2.start(tmp_path_factory.mktemp("ec2") / "scratch")
        yield ec2
        ec2.end()


@pytest.fixture(scope="module", autouse=True)
def abandoned(ec2: LocalEc2, tmp_path_factory: pytest.TempPathFactory) -> Abandoned:
    home = newcomer(tmp_path_factory.mktemp("abandoned") / "home", ec2)
    with talking(home, 3) as builds:
        found = Abandoned(*map(ec2.of, builds))
        born_by(home, builds[0], "aws")
        for build in builds[1:]:
            stop_timers(home, build)
        put_forward(home, builds[0], ec2.deadline(found.due))
    assert [ec2.state(instance) for instance in found] == ["running"] * 3
    assert [len(ec2.schedules(instance)) for instance in found] == [1] * 3
    return found


@pytest.fixture
def home(ec2: LocalEc2, tmp_path: Path) -> Iterator[Home]:
    home = newcomer(tmp_path / "home", ec2)
    yield home
    home.assert_nothing_left()


def test_a_build_goes_from_submit_to_its_artifacts_and_leaves_nothing(
    ec2: LocalEc2, home: Home
) -> None:
    instance = ec2.of(whole_build(home, "aws"))
    assert ec2.wait_terminated(instance, seconds=60) == BY_USER
    assert ec2.furniture(instance) == []
    wait_until(lambda: not ec2.schedules(instance), seconds=60, what="its disarming")


def test_a_guest_that_switches_itself_off_ends_its_instance(ec2: LocalEc2) -> None:
    site = ec2.provider
    begun = time.monotonic()
    told = ec2.client.run_instances(
        ImageId=site["image"],
        InstanceType="m7i.large",
        MinCount=1,
        MaxCount=1,
        SubnetId=site["subnets"][0],
        SecurityGroupIds=site["security_groups"],
        InstanceInitiatedShutdownBehavior="terminate",
        MetadataOptions={"HttpTokens": "required"},
        UserData='#cloud-config\nbootcmd: ["echo so it ends >/dev/ttyS0", [poweroff]]\n',
    )
    instance = told["Instances"][0]["InstanceId"]
    assert ec2.wait_terminated(instance, seconds=120) == BY_GUEST
    print(f"{time.monotonic() - begun:.1f} s from RunInstances to its own end")
    assert "so it ends" in ec2.client.get_console_output(InstanceId=instance)["Output"]
    assert ec2.furniture(instance) == []


def test_the_guests_own_timer_ends_what_nobody_knows_of(
    ec2: LocalEc2, abandoned: Abandoned
) -> None:
    assert ec2.wait_terminated(abandoned.due, seconds=120) == BY_GUEST
    assert ec2.furniture(abandoned.due) == []


def test_its_schedule_ends_what_its_guest_does_not(ec2: LocalEc2, abandoned: Abandoned) -> None:
    """Armed by vmrunner for ten minutes past its deadline, which nobody waits for."""
    instance = abandoned.scheduled
    ec2.fire(instance, seconds=5)
    assert ec2.wait_terminated(instance, seconds=60) == BY_USER
    assert ec2.furniture(instance) == ec2.schedules(instance) == []


def test_the_guard_ends_what_its_guest_does_not(
    ec2: LocalEc2, abandoned: Abandoned, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = abandoned.guarded
    for name, value in {
        "AWS_ENDPOINT_URL": ec2.provider["endpoint_url"],
        "VMRUNNER_INSTALLATION": ec2.tags(instance)["vmrunner:installation"],
        "VMRUNNER_REGIONS": ec2.provider["region"],
    }.items():
        monkeypatch.setenv(name, value)
    ended = []
    for late in (-1, guard.GRACE, guard.GRACE + 1):
        hour = SimpleNamespace(time=lambda late=late: ec2.deadline(instance) + late)
        monkeypatch.setattr(guard, "time", hour)
        assert ec2.state(instance) == "running"
        ended.append([line["id"] for line in guard.handler({})["ended"]])
    assert ended == [[], [], [instance]]
    assert ec2.wait_terminated(instance, seconds=60) == BY_USER
    assert ec2.furniture(instance) == []
