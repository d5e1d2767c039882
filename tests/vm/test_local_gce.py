"""Real VMs behind Compute Engine: inserted, booted by cloud-init's own GCE datasource, and ended by
nothing but what ends them in Google's. The whole way of a build is in `test_scenario`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import requests

from deploy.gcp.guard import main as guard
from tests.vm.home import Home, text, wait_until
from tests.vm.local_cloud import born_by, newcomer, put_forward, talking
from tests.vm.local_gce import LocalGce
from tests.vm.serving import Serving

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

#: Past its deadline the guest leaves the cloud's own so many seconds before it switches itself off.
AFTER: Final = 300


class Abandoned(NamedTuple):
    """Three instances of which no vmrunner and no ledger knows any more. Each has lost all that
    would end it soon, but one."""

    due: str  # its guest's timer; its build runs
    native: str  # the cloud's own deadline
    swept: str


@pytest.fixture(scope="module")
def gce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGce]:
    gce = LocalGce.start(tmp_path_factory.mktemp("gce") / "scratch")
    yield gce
    gce.end()


@pytest.fixture(scope="module")
def abandoned(gce: LocalGce, tmp_path_factory: pytest.TempPathFactory) -> Abandoned:
    home = newcomer(tmp_path_factory.mktemp("abandoned") / "home", gce)
    with talking(home, gce, 2) as builds:
        found = Abandoned(*map(gce.of, builds))
        born_by(home, builds[0], "gce")
        for instance in (found.due, found.swept):
            gce.disarm(instance)
        put_forward(home, builds[0], gce.deadline(found.due) + AFTER)
    assert [gce.state(instance) for instance in found] == ["RUNNING"] * 3
    return found


def test_its_native_deadline_alone_ends_it_and_its_disk(
    gce: LocalGce, abandoned: Abandoned
) -> None:
    instance = abandoned.native
    gce.strike_in(instance, 32)
    began = time.monotonic()
    gce.wait_for(instance, "gone", seconds=60)
    assert time.monotonic() - began > 25
    assert gce.disks(instance) == []


def test_the_sweep_alone_ends_it_and_its_disk(
    gce: LocalGce, abandoned: Abandoned, tmp_path: Path
) -> None:
    """By a vmrunner of the same installation, with a ledger that knows of nothing."""
    instance = abandoned.swept
    home = newcomer(tmp_path / "home", gce)
    whose = {"VMRUNNER_INSTALLATION": gce.labels(instance)["vmrunner-installation"]}
    done = home.run("reap", "-o", "json", **whose)
    assert (done.returncode, json.loads(done.stdout)["items"]) == (0, []), text(done.stderr)
    assert gce.state(instance) == "RUNNING"
    gce.expire(instance, int(time.time()) - 1)
    done = home.run("reap", "-o", "json", **whose)
    print(text(done.stdout + done.stderr))
    assert done.returncode == 0
    wait_until(lambda: gce.state(instance) == "gone", seconds=60, what="its end")
    assert gce.vms(instance) == gce.disks(instance) == []


def test_guest_timer_stops_a_forgotten_vm_and_guard_deletes_it(
    gce: LocalGce, abandoned: Abandoned
) -> None:
    instance = abandoned.due
    gce.wait_for(instance, "TERMINATED", seconds=120)
    assert gce.disks(instance) == [instance]  # it bills
    console = gce.ask("GET", f"{gce.path(instance)}/serialPort")["contents"]
    assert "Power" in console.splitlines()[-1]
    settings = guard.Settings(
        installation=gce.labels(instance)["vmrunner-installation"], project=gce.provider["project"]
    )
    deadline, ended = gce.deadline(instance), []
    with requests.Session() as session:
        for late in (-1.0, guard.GRACE, guard.GRACE + 1):
            assert gce.state(instance) == "TERMINATED"
            report = guard.guard(settings, session, deadline + late, base=gce.base)
            assert report["failures"] == []
            ended.append([line["instance"] for line in report["ended"]])
    assert ended == [[], [], [instance]]
    gce.wait_for(instance, "gone", seconds=60)
    assert gce.disks(instance) == []


POOL: Final = """
[pools.fast]
provider = "gce"
kind = "parked"
network = "none"
size = 1
ttl = "20m"
idle = "20m"
"""


@pytest.fixture
def pooling(gce: LocalGce, tmp_path: Path) -> Iterator[Home]:
    """A `serve` with a pool of one parked VM, and a guard that knows pools."""
    home = newcomer(tmp_path / "home", gce)
    file = home.root / "config/vmrunner/config.toml"
    config = file.read_text().replace(
        "[providers.gce]\n", '[providers.gce]\nguard = "europe-west1"\n'
    )
    file.write_text(config + POOL)
    home.builds()  # makes the ledger
    gce.guard(home.installation(), "europe-west1", "build, pool, image")
    serving = Serving(home)
    yield home
    home.run("pool", "drain", "fast")
    try:
        wait_until(lambda: not home.open_vms(), seconds=120, what="its VMs to be gone")
    finally:
        print((home.root / "serve.log").read_text()[-4000:])
        serving.kill()


def suspended(gce: LocalGce) -> list[dict[str, Any]]:
    return gce.listed("instances", "status=SUSPENDED")


@pytest.mark.long  # as EC2's is; tests/faults has each crash, tests/contract what a driver says
def test_a_build_wakes_the_one_vm_of_a_parked_pool(gce: LocalGce, pooling: Home) -> None:
    (item,) = wait_until(lambda: suspended(gce), seconds=600, what="a VM that is parked")
    instance = item["name"]
    (qemu,) = gce.vms(instance)  # its memory stays
    assert "State:\tT" in Path(f"/proc/{qemu.split()[0]}/status").read_text()
    assert gce.disks(instance) == [instance]
    assert "terminationTimestamp" not in item["resourceStatus"]["scheduling"]
    wait_until(
        lambda: pooling.items("pool", "ls")[0]["have"] == 1, seconds=60, what="it to be told"
    )
    began = time.monotonic()
    done = pooling.run(
        *("run", "--network", "none", "--ttl", "10m", "--timeout", "5m"),
        *("--", "cut", "-d", " ", "-f", "1", "/proc/uptime"),
    )
    took = time.monotonic() - began
    print(text(done.stderr))
    assert done.returncode == 0
    assert float(done.stdout) > took  # it had booted before
    (row,) = pooling.items("show", pooling.builds()[0]["id"])
    assert (row["start"], row["result"], row["instance"]) == ("parked", "success", instance)
    assert (row["instances"][0]["pool"], len(row["instances"])) == ("fast", 1)
    gce.wait_for(instance, "gone", seconds=60)
    assert gce.disks(instance) == []
