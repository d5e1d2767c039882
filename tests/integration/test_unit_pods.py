"""Units in real containers: what a build cannot do from in there, and what is told of it."""

from __future__ import annotations

import io
import json
import signal
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vmrunner_localclouds.pods import Pods

from tests.support.loopback_registry import SHELL, LoopbackRegistry, archive, programs
from tests.support.sshd import wait_for
from tests.support.unit_pods import UnitPod, ssh, unit_image, unit_pod

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The unit image, and a build's, which has Python too."""
    home = tmp_path_factory.mktemp("registry")
    with LoopbackRegistry(home) as registry:
        unit = unit_image(registry, home)
        layers = [programs([*SHELL.split(), "grep", "find"])]
        yield unit, registry.push("build:1", archive(home / "b.tar", layers, Env=["PATH=/bin"]))


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    with Pods(tmp_path_factory.mktemp("pods")) as pods:
        yield pods


@pytest.fixture(params=["runc", "runsc"])
def unit(request: pytest.FixtureRequest, pods: Pods, images: tuple[str, str]) -> Iterator[UnitPod]:
    with unit_pod(pods, *images, runtime=request.param) as unit:
        yield unit


def job(*scripts: str, **changes: Any) -> bytes:
    order = {
        "unit": True,
        "build": "b-1",
        "attempt": "b-1/1",
        "timeout": 60.0,
        "log_bytes": 4 << 20,
        "env": {},
        "secrets": {},
        "steps": [{"script": script, "env": {}, "timeout": None} for script in scripts],
    }
    return json.dumps({**order, **changes}).encode()


def built(unit: UnitPod, *scripts: str, **changes: Any) -> tuple[bytes, dict[str, Any]]:
    """Run a build to its end: its log, and its last event."""
    code, _, complaint = unit.call("start", "0", "0", stdin=job(*scripts, **changes))
    assert code == 0, complaint
    log = unit.output("cat /run/vmrunner/spool/log")
    return log, json.loads(unit.events().splitlines()[-1])


HOSTILE = r"""
echo keys: $(cat /proc/*/root/run/identity/* /run/identity/* 2>/dev/null | wc -c)
echo env: $(cat /proc/*/environ /proc/self/mountinfo | grep -c CANARY)
echo processes: $(ls -d /proc/[0-9]* | wc -l)
ports=0
for port in 22 80 443 2222 8080 10250; do
  (exec 9<>/dev/tcp/127.0.0.1/$port) 2>/dev/null && ports=$((ports + 1))
done
echo ports: $ports
echo listening: $(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -c ' 0A ')
echo token: $(cat /run/secrets/TOKEN)
"""


def test_a_build_finds_no_key_and_no_port(unit: UnitPod) -> None:
    """§B 5, 10, 12: what is ours is in another container, and nothing listens."""
    log, last = built(unit, HOSTILE, secrets={"TOKEN": "Z2VoZWlt"})
    assert (last["reason"], last["exit_code"]) == ("exit_code", 0), log
    lines = dict(line.split(": ", 1) for line in log.decode().splitlines())
    assert lines["keys"] == "0"
    assert lines["env"] == "0"
    assert int(lines["processes"]) < 12
    assert lines["listening"] == "0"
    assert lines["token"] == "geheim"


def test_a_build_that_ends_at_once_loses_nothing(unit: UnitPod) -> None:
    """§B 1: its container is dead before anybody has asked for a byte."""
    write = "head -c 1048576 /dev/zero | tr '\\0' x; echo made >result; exit 3"
    log, last = built(unit, write)
    assert (last["reason"], last["exit_code"]) == ("exit_code", 3)
    assert log == b"x" * 1048576
    wait_for(lambda: "terminated" in unit.container("build")["state"])
    assert unit.container("build")["state"]["terminated"]["exitCode"] == 3
    code, output, _ = unit.call("collect", stdin=json.dumps(["result"]).encode())
    assert code == 0
    assert output.startswith(b"[1]\n")
    assert b"made\n" in output


def test_the_work_directory_is_reached_with_fewer_rights(unit: UnitPod) -> None:
    """Our container has not all that root of a VM has; what goes there alone goes all the same."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("a/b")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"made\n"))
    code, _, complaint = unit.call("unpack", stdin=buffer.getvalue())
    assert code == 0, complaint
    code, output, complaint = unit.call("collect", stdin=json.dumps(["a/*"]).encode())
    assert code == 0, complaint
    assert output.startswith(b"[1]\n")
    assert b"made\n" in output


def test_ssh_reaches_the_supervisor_over_an_exec_stream(
    pods: Pods, images: tuple[str, str], tmp_path: Path
) -> None:
    with unit_pod(pods, *images) as unit:
        done = ssh(unit, tmp_path, "echo $SSH_CONNECTION; head -c 300000 /dev/zero; exit 7")
        assert done.returncode == 7, done.stderr
        first, _, rest = done.stdout.partition(b"\n")
        assert first == b"UNKNOWN 65535 UNKNOWN 65535"
        assert rest == bytes(300_000)


@pytest.mark.parametrize("how", ["memory", "inside", "node"])
def test_a_container_that_dies_is_told_within_a_second(
    pods: Pods, images: tuple[str, str], how: str
) -> None:
    """§B 3: by whatever cause; the system then says which."""
    with unit_pod(pods, *images, memory="48Mi") as unit:
        scripts = {
            "memory": "x=$(yes | head -c 400000000)",
            "inside": "kill -9 1; kill -STOP 1; sleep 600",
            "node": "sleep 600",
        }
        order = job("echo up; " + scripts[how])
        thread = threading.Thread(
            target=unit.call, args=("start", "0", "0"), kwargs={"stdin": order}
        )
        thread.start()
        wait_for(lambda: "step_started" in unit.events())
        if how == "inside":
            assert "ended" not in unit.events(), "a process 1 heeds no KILL from within"
        if how != "memory":
            unit.pod.kill("build")
        wait_for(lambda: '"kind":"ended"' in unit.events(), seconds=30)
        last = json.loads(unit.events().splitlines()[-1])
        wait_for(lambda: "terminated" in unit.container("build")["state"])
        state = unit.container("build")["state"]["terminated"]
        if how == "memory":
            assert state["reason"] == "OOMKilled"
            assert last["reason"] in {"container_gone", "signal"}
        else:
            assert last["reason"] == "container_gone"
            assert state["exitCode"] == 128 + signal.SIGKILL
        thread.join(30)
