"""Real VMs behind EC2: launched, booted by cloud-init's own EC2 datasource, and ended by nothing
but what ends them in Amazon's. The whole way of a build is in `test_scenario`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.ec2 import credentials
from tests.vm.home import wait_until
from tests.vm.local_cloud import born_by, newcomer, put_forward, talking
from tests.vm.local_ec2 import BY_GUEST, BY_USER, LocalEc2, end_by_guard

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


class Abandoned(NamedTuple):
    """Three instances of which no vmrunner and no ledger knows any more. The build of one runs, and
    its deadline comes soon; the others have a quarter of an hour."""

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
    with talking(home, ec2, 2) as builds:
        found = Abandoned(*map(ec2.of, builds))
        born_by(home, builds[0], "aws")
        armed = [1] * len(found)
        wait_until(
            lambda: [len(ec2.schedules(instance)) for instance in found] == armed,
            seconds=60,
            what="their schedules",
        )
        put_forward(home, builds[0], ec2.deadline(found.due))
    assert [ec2.state(instance) for instance in found] == ["running"] * 3
    return found


def test_the_guests_own_timer_ends_what_nobody_knows_of(
    ec2: LocalEc2, abandoned: Abandoned
) -> None:
    assert ec2.wait_terminated(abandoned.due, seconds=120) == BY_GUEST
    assert "Power" in ec2.client.get_console_output(InstanceId=abandoned.due)["Output"]
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
    assert ec2.state(abandoned.guarded) == "running"
    end_by_guard(ec2, abandoned.guarded, monkeypatch)
