"""Units under hostile builds, in real containers: floods of log, and the death of each process of
ours in turn."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from vmrunner_localclouds.pods import Pods

from tests.support.loopback_registry import SHELL, LoopbackRegistry, archive, programs
from tests.support.sshd import wait_for
from tests.support.unit_guest import job
from tests.support.unit_pods import UnitPod, unit_image, unit_pod

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    home = tmp_path_factory.mktemp("registry")
    with LoopbackRegistry(home) as registry:
        build = archive(home / "build.tar", [programs(SHELL.split())], Env=["PATH=/bin"])
        yield unit_image(registry, home), registry.push("build:1", build)


@pytest.fixture
def unit(tmp_path_factory: pytest.TempPathFactory, images: tuple[str, str]) -> Iterator[UnitPod]:
    with Pods(tmp_path_factory.mktemp("pods")) as pods, unit_pod(pods, *images) as unit:
        yield unit


def test_a_flood_of_log_stays_within_its_bounds(unit: UnitPod) -> None:
    flood = "yes 0123456789abcdef | head -c 200000000; echo; echo the last line; exit 5"
    code, _, complaint = unit.call(
        "start", "0", "0", stdin=job(flood, timeout=120.0, log_bytes=4 << 20)
    )
    assert code == 0, complaint
    log = unit.output("cat /run/vmrunner/spool/log")
    assert len(log) <= 4 << 20
    assert b"bytes dropped" in log
    assert log.endswith(b"the last line\n")
    last = json.loads(unit.events().splitlines()[-1])
    assert (last["reason"], last["exit_code"]) == ("exit_code", 5)
    assert unit.container("vmrunner")["state"].keys() == {"running"}


def ours(unit: UnitPod) -> list[int]:
    """The supervisor's processes but the first, as its container sees them."""
    listed = unit.output(
        "for p in /proc/[0-9]*; do grep -q beside $p/cmdline 2>/dev/null && echo ${p#/proc/}; done"
    )
    return sorted(pid for pid in map(int, listed.split()) if pid != 1)


def test_each_process_of_ours_may_die_in_turn(unit: UnitPod) -> None:
    """The build goes on, and no line of it is lost."""
    script = "echo begun; i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.5; done"
    order = job(script, timeout=120.0)
    thread = threading.Thread(target=unit.call, args=("start", "0", "0"), kwargs={"stdin": order})
    thread.start()
    wait_for(lambda: "step_started" in unit.events())
    for _ in range(4):
        for pid in ours(unit):
            unit.output(f"kill -9 {pid}")
        wait_for(lambda: unit.output("/usr/lib/vmrunner/supervisor ready && echo up") == b"up\n")
    wait_for(lambda: '"kind":"ended"' in unit.events(), seconds=90)
    last = json.loads(unit.events().splitlines()[-1])
    assert (last["reason"], last["exit_code"]) == ("exit_code", 0)
    expected = "".join(f"{n}\n" for n in range(60))
    assert unit.output("cat /run/vmrunner/spool/log").decode() == f"begun\n{expected}"
    thread.join(60)
