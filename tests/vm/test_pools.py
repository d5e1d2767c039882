"""A pool of real VMs: a build gets one that waits, on its own, for its own time, once."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.vm.home import Home, text, wait_until
from tests.vm.serving import Serving

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1200)]

CONFIG = """
[providers.local]
kind = "qemu"

[pools.fast]
provider = "local"
network = "none"
size = 2
ttl = "20m"
idle = "20m"
"""


@pytest.fixture
def serving(home: Home) -> Iterator[Serving]:
    config = home.root / "config/vmrunner/config.toml"
    config.parent.mkdir(parents=True, mode=0o700)
    config.write_text(CONFIG)
    serving = Serving(home)
    yield serving
    serving.kill()
    home.run("pool", "drain", "fast")
    for row in home.items("ps"):  # of a test that failed
        home.run("cancel", row["id"])
    home.run("reap")


def pool(home: Home) -> dict[str, Any]:
    (found,) = home.items("pool", "ls")
    return found


def ready(home: Home, count: int) -> None:
    wait_until(lambda: pool(home)["have"] == count, seconds=400, what=f"{count} VMs that wait")


def built(home: Home, *args: str) -> tuple[dict[str, Any], bytes]:
    """A build that ended, and its log."""
    done = home.run(
        "run", "--network", "none", "--ttl", "10m", "--timeout", "5m", *args, timeout=400
    )
    assert done.returncode == 0, text(done.stderr)
    newest = max(home.builds(), key=lambda row: row["created_at"])
    (row,) = home.items("show", newest["id"])
    return row, done.stdout


def test_builds_are_given_vms_that_wait(home: Home, serving: Serving) -> None:
    ready(home, 2)
    waiting = {row["id"] for row in home.instances()}
    used = []
    outputs = []
    for _ in range(2):
        row, output = built(
            home, "--", "sh", "-c",
            "echo $VMRUNNER_BUILD; head -c 32 /dev/urandom | base64;"
            "cat /proc/sys/kernel/random/boot_id",
        )  # fmt: skip
        assert (row["start"], row["result"]) == ("hot", "success")
        assert row["instance"] in waiting
        used.append(row)
        outputs.append(output.decode().split())
    assert len({row["instance"] for row in used}) == 2
    # Each build is told itself, and nothing of its VM is the other's.
    assert [lines[0] for lines in outputs] == [row["id"] for row in used]
    assert outputs[0][1] != outputs[1][1]
    assert outputs[0][2] != outputs[1][2]
    for row in used:
        (vm,) = row["instances"]
        assert vm["pool"] == "fast"
        assert vm["due"] < vm["deadline"]
    _, lines = built(home, "--env", "A=b", "--", "sh", "-c", "echo $A; ls /work | wc -l")
    assert lines.split() == [b"b", b"0"]
    found = pool(home)
    assert found["hit_rate"] is not None
    assert found["p50"] is not None
    assert home.run("pool", "drain", "fast").returncode == 0
    wait_until(lambda: not home.open_vms(), seconds=120, what="the VMs to be gone")
    serving.kill()
    home.assert_nothing_left()


def test_a_claimed_vm_ends_in_time_with_nobody_left(home: Home, serving: Serving) -> None:
    """Its keeper was told the earlier end before the first step."""
    ready(home, 2)
    done = home.run(
        "run",
        "-d",
        "--network",
        "none",
        "--ttl",
        "75s",
        "--timeout",
        "65s",
        "--",
        "sleep",
        "1000",
    )
    build = text(done.stdout).strip()
    wait_until(
        lambda: home.items("show", build)[0]["state"] == "running", seconds=120, what="it to run"
    )
    (vm,) = home.items("show", build)[0]["instances"]
    (directory,) = (home.data / "qemu").glob(f"instances/*{vm['id']}*")
    due = float((directory / "due.held").read_text())
    # A VM that is being made while `serve` is killed has a row without a VM, which only time ends.
    home.run("pool", "drain", "fast")
    wait_until(lambda: len(home.open_vms()) == 1, seconds=60, what="those that wait to end")
    serving.kill()
    assert due == pytest.approx(_due(home, vm["id"]))
    assert due < _deadline(home, vm["id"]) - 600
    wait_until(lambda: not directory.exists(), seconds=due - time.time() + 30, what="its end")
    assert time.time() >= due
    home.run("reap")
    wait_until(lambda: not home.items("vm", "ls", "--cloud"), seconds=120, what="all to be gone")


def _due(home: Home, vm: str) -> float:
    return _column(home, vm, "due")


def _deadline(home: Home, vm: str) -> float:
    return _column(home, vm, "deadline")


def _column(home: Home, vm: str, name: str) -> float:
    with closing(sqlite3.connect(home.data / "ledger.db")) as ledger:
        query = f"SELECT {name} FROM instances WHERE id = ?"
        ((value,),) = ledger.execute(query, (vm,)).fetchall()
    return float(value)
