"""Real VMs behind Azure: put there by the driver, booted by cloud-init's own Azure datasource, and
ended by nothing but what ends them in Microsoft's. The whole way of a build is in
`test_scenario`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.azure.guard.function_app import GRACE
from tests.vm.home import text, wait_until
from tests.vm.local_azure import LocalAzure
from tests.vm.local_cloud import newcomer, put_forward, talking
from tests.vm.serving import in_vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

PARTS = ["disks", "networkInterfaces", "publicIPAddresses"]


class Abandoned(NamedTuple):
    """Three instances of which no vmrunner and no ledger knows any more."""

    due: str  # its guest's timer switches it off; its build ran
    native: str  # the cloud deallocates it
    swept: str


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAzure]:
    azure = LocalAzure.start(tmp_path_factory.mktemp("azure") / "scratch")
    yield azure
    azure.end()


@pytest.fixture(scope="module")
def abandoned(azure: LocalAzure, tmp_path_factory: pytest.TempPathFactory) -> Abandoned:
    home = newcomer(tmp_path_factory.mktemp("abandoned") / "home", azure)
    with talking(home, azure, 2) as builds:
        found = Abandoned(*map(azure.of, builds))
        in_vm(
            home, builds[0],
            'test "$(cat /run/cloud-init/cloud-id)" = azure && grep -q '
            "7783-7084-3265-9085-8269-3286-77 /sys/class/dmi/id/chassis_asset_tag",
        )  # fmt: skip
        put_forward(home, builds[0], azure.deadline(found.due) + 1)
    assert all(azure.parts(instance) == PARTS for instance in found)
    return found


def test_the_sweep_alone_ends_it_and_its_parts(
    azure: LocalAzure, abandoned: Abandoned, tmp_path: Path
) -> None:
    """By a vmrunner of the same installation, with a ledger that knows of nothing."""
    instance = abandoned.swept
    home = newcomer(tmp_path / "home", azure)
    whose = {"VMRUNNER_INSTALLATION": azure.tags(instance)["vmrunner:installation"]}
    done = home.run("reap", "-o", "json", **whose)
    assert (done.returncode, json.loads(done.stdout)["items"]) == (0, []), text(done.stderr)
    azure.expire(instance, int(time.time()) - 1)
    done = home.run("reap", "-o", "json", **whose)
    print(text(done.stdout + done.stderr))
    assert done.returncode == 0
    wait_until(lambda: azure.state(instance) == "gone", seconds=60, what="its end")
    assert (azure.vms(instance), azure.parts(instance)) == ([], [])


def test_its_native_deadline_and_its_guests_timer_end_no_bill(
    azure: LocalAzure, abandoned: Abandoned
) -> None:
    """One is deallocated, and its disk bills; one is switched off, and bills whole. The guard alone
    ends both."""
    due, native, _ = abandoned
    azure.strike_in(native, 32)
    azure.wait_for(native, "deallocated", seconds=90)
    azure.wait_for(due, "stopped", seconds=120)
    assert azure.parts(native) == azure.parts(due) == PARTS
    whose = azure.tags(due)["vmrunner:installation"]
    deadline = max(azure.deadline(due), azure.deadline(native))
    assert azure.guarded(whose, deadline - 1) == []
    assert sorted(azure.guarded(whose, deadline + GRACE + 1)) == sorted([due, native])
    for instance in (due, native):
        azure.wait_for(instance, "gone", seconds=60)
        assert azure.parts(instance) == []
