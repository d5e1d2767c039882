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
from tests.support.unit_guest import job
from tests.support.unit_pods import UnitPod, ssh, unit_image, unit_pod

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The unit image, and a build's, which has Python too."""
    home = tmp_path_factory.mktemp("registry")
    with LoopbackRegistry(home) as registry:
        unit = unit_image(registry, home)
        layers = [programs([*SHELL.split(), "bash", "grep", "find"])]
        yield unit, registry.push("build:1", archive(home / "b.tar", layers, Env=["PATH=/bin"]))


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    with Pods(tmp_path_factory.mktemp("pods")) as pods:
        yield pods


@pytest.fixture(params=["runc", "runsc"])
def unit(request: pytest.FixtureRequest, pods: Pods, images: tuple[str, str]) -> Iterator[UnitPod]:
    with unit_pod(pods, *images, runtime=request.param) as unit:
        yield unit


def built(unit: UnitPod, *scripts: str, **changes: Any) -> tuple[bytes, dict[str, Any]]:
    """Run a build to its end: its log, and its last event."""
    code, _, complaint = unit.call("start", "0", "0", stdin=job(*scripts, **changes))
    assert code == 0, complaint
    log = unit.output("cat /run/vmrunner/spool/log")
    return log, json.loads(unit.events().splitlines()[-1])


HOSTILE = r"""
echo keys: $(cat /proc/*/root/run/identity/* /run/identity/* 2>/dev/null | wc -c)
echo processes: $(ls -d /proc/[0-9]* | wc -l)
echo token: $(cat /run/secrets/TOKEN)
"""


def test_a_build_finds_no_key_and_no_process(unit: UnitPod) -> None:
    """§B 5: what is ours is in another container."""
    log, last = built(unit, HOSTILE, secrets={"TOKEN": "Z2VoZWlt"})
    assert (last["reason"], last["exit_code"]) == ("exit_code", 0), log
    lines = dict(line.split(": ", 1) for line in log.decode().splitlines())
    assert lines["keys"] == "0"
    assert int(lines["processes"]) < 12
    assert lines["token"] == "geheim"


#: Files with a canary among all that root in the build can read: its mounts, and /proc.
SEARCH = r"""
search() {
  timeout 5 grep -lasF -f /tmp/halves "$@"
  # A file that never ends hides none after it.
  [ $? != 124 ] || for file; do timeout 5 grep -lasF -f /tmp/halves "$file"; done
}
{
  find / -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o -type f -print
  find /proc -type f ! -path '*/task/*' ! -name kmsg ! -name mem ! -name pagemap
  for root in /proc/[0-9]*/root; do echo $root/run/identity/host_key; done
} 2>/dev/null | {
  while read -r file; do
    set -- "$@" "$file"
    [ $# -lt 100 ] || { search "$@"; set --; }
  done
  [ $# = 0 ] || search "$@"
}
"""


def canaries_found(unit: UnitPod) -> list[str]:
    """Files that the build can read with the user's key, the host key or its end in them."""
    user = unit.user.public.split()[1][-32:]
    host = unit.host.private.splitlines()[2][:32]
    wanted = [user, host, unit.identity["deadline"].decode().strip()]
    # Nothing that searches may have them: what it is told is reversed.
    turned = "\n".join(word[::-1] for word in wanted)
    turn = (
        'while read -r word || [ -n "$word" ]; do out=; while [ -n "$word" ]; do '
        'out="${word%"${word#?}"}$out"; word=${word#?}; done; echo "$out"; done'
    )
    script = f"printf '%s\\n' '{turned}' | {{ {turn}; }} >/tmp/halves\n{SEARCH}"
    found = unit.output(script, "build").decode().split()
    assert "/tmp/halves" in found, "the search sees what is there"
    return sorted(set(found) - {"/tmp/halves"})


def test_a_build_reads_no_canary_anywhere(unit: UnitPod) -> None:
    """§B 10: user's public key, host private key and E, in files, mounts, environments, /proc."""
    begun = threading.Thread(
        target=unit.call, args=("start", "0", "0"), kwargs={"stdin": job("sleep 600")}
    )
    begun.start()
    wait_for(lambda: "step_started" in unit.events())
    assert canaries_found(unit) == []
    unit.pod.kill("build")
    begun.join(30)


def test_a_mounted_identity_would_be_found(pods: Pods, images: tuple[str, str]) -> None:
    with unit_pod(pods, *images, leak=True) as unit:
        found = {name.rpartition("/")[2] for name in canaries_found(unit)}
        assert found >= {"authorized_keys", "host_key", "deadline"}


SCAN = r"""
answers() { { : <>/dev/tcp/127.0.0.1/$port; } 2>/dev/null; }
for ((port = 1; port <= MOST; port++)); do
  # Twice: a connection may meet itself, where its own port is the one that it goes to.
  answers && answers && answers && echo $port
done
while read -r _ local _ state _; do
  [ "$state" != 0A ] || echo listening $local
done < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
"""
LISTEN = (
    "import socket, sys\ns = socket.create_server(('127.0.0.1', 4711))\nprint(1, flush=True)\n"
    "sys.stdin.read()"
)


def test_a_scan_from_the_build_finds_no_port(unit: UnitPod) -> None:
    """§B 12: and one that listens is found."""

    def scan(most: int) -> list[str]:
        words = ["/bin/bash", "-c", f"MOST={most}\n{SCAN}"]
        execution = unit.exec(words, "build")
        try:
            return execution.stdout.read().decode().split()
        finally:
            execution.close()

    assert scan(65535) == []
    listener = unit.exec(["/usr/bin/python3", "-c", LISTEN])
    try:
        assert listener.stdout.readline() == b"1\n"
        assert "4711" in scan(5000)
    finally:
        listener.close()


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
