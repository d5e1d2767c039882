"""A parked pool at EC2, with real VMs behind it: stopped to wait, and started with their disks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ec2 import credentials
from tests.vm.home import Home, text, wait_until
from tests.vm.local_cloud import newcomer
from tests.vm.local_ec2 import LocalEc2, end_by_guard, pass_by_guard
from tests.vm.serving import Serving

# Two VMs boot from cold for it; `make test` parks one at Compute Engine (`test_local_gce`).
pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(1800)]

POOL = """
[pools.asleep]
provider = "aws"
kind = "parked"
network = "none"
size = 1
ttl = "20m"
idle = "20m"
"""


@pytest.fixture
def ec2(tmp_path: Path) -> Iterator[LocalEc2]:
    with credentials():
        ec2 = LocalEc2.start(tmp_path / "scratch")
        yield ec2
        ec2.end()


def parked(ec2: LocalEc2, *others: str) -> str:
    """The one that waits, once it is off."""

    def found() -> list[str]:
        wanted = [{"Name": "tag:vmrunner:pool", "Values": ["asleep"]}]
        reservations = ec2.client.describe_instances(Filters=wanted)["Reservations"]
        names = [reservation["Instances"][0]["InstanceId"] for reservation in reservations]
        return [name for name in names if ec2.state(name) == "stopped" and name not in others]

    wait_until(lambda: bool(found()), seconds=600, what="a VM that is parked")
    (name,) = found()
    assert ec2.vms(name) == []
    assert ec2.furniture(name)
    return name


def has_one(home: Home) -> bool:
    (pool,) = home.items("pool", "ls")
    return bool(pool["have"] == 1)


def test_it_waits_without_power_and_serves_one_build(
    ec2: LocalEc2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = newcomer(tmp_path / "home", ec2)
    with (home.root / "config/vmrunner/config.toml").open("a") as config:
        config.write(POOL)
    installed = home.run("guard", "install", "aws")
    assert installed.returncode == 0, text(installed.stderr)
    pass_by_guard(ec2, home.installation(), monkeypatch)
    serving = Serving(home)
    try:
        first = parked(ec2)
        wait_until(lambda: has_one(home), seconds=60, what="the pool to say so")
        done = home.run(
            "run", "--network", "none", "--ttl", "15m", "--timeout", "5m", "--",
            "sh", "-c", "echo up", timeout=600,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, b"up\n"), text(done.stderr)
        (build,) = home.items("show", home.builds()[0]["id"])
        assert (build["start"], build["attempt"]) == ("parked", 1)
        assert ec2.tags(first)["vmrunner:instance"] == build["instance"]
        ec2.wait_terminated(first, seconds=60)
        assert ec2.furniture(first) == []
        pass_by_guard(ec2, home.installation(), monkeypatch)  # a sign holds for three periods
        second = parked(ec2, first)
    finally:
        serving.kill()
    end_by_guard(ec2, second, monkeypatch)
