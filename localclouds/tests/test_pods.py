"""Pods with real containers: what a node does for them, in both runtimes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from vmrunner_localclouds.pods import Pods, RunningPod

from tests.support.loopback_registry import SHELL, LoopbackRegistry, archive, packed, programs
from tests.support.stand_ins import until

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackRegistry]:
    with LoopbackRegistry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="module")
def image(registry: LoopbackRegistry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image that has a shell, by its digest."""
    layers = [programs(SHELL.split()), packed({"gone": b"", "kept": b""})]
    layers.append(packed({".wh.gone": b"", "../../escaped": b""}))
    path = tmp_path_factory.mktemp("image") / "shell.tar"
    return registry.push("shell:1", archive(path, layers, Env=["PATH=/bin"], Cmd=["ls", "/"]))


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    with Pods(tmp_path_factory.mktemp("pods")) as pods:
        yield pods


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {"restartPolicy": "Never", "containers": list(containers), **spec}}


def container(name: str, image: str, script: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": image, "command": ["sh", "-c", script], **more}


def phase(running: RunningPod) -> Callable[[], str]:
    return lambda: str(running.status()["phase"])


def ended(running: RunningPod, *, seconds: float = 30) -> dict[str, Any]:
    """The status of a pod that has come to its end."""
    until(lambda: phase(running)() in {"Succeeded", "Failed"}, seconds=seconds)
    return running.status()


@pytest.mark.parametrize("runtime", ["runc", "runsc"])
def test_containers_of_a_pod_meet_in_its_volumes(pods: Pods, image: str, runtime: str) -> None:
    box = {"name": "box", "mountPath": "/box"}
    key = {"name": "key", "mountPath": "/key", "readOnly": True}
    seen: list[str] = []
    running = pods.start(
        "meet",
        pod(
            container(
                "first", image, "read -r word </box/fifo; echo $word; exit 7", volumeMounts=[box]
            ),
            container(
                "second",
                image,
                "cat /key/secret; echo; echo written >/key/secret; echo hello >/box/fifo",
                volumeMounts=[box, key],
                startupProbe={"exec": {"command": ["test", "-p", "/box/fifo"]}, "periodSeconds": 1},
            ),
            initContainers=[container("lay", image, "mkfifo /box/fifo", volumeMounts=[box])],
            volumes=[
                {"name": "box", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "key", "secret": {"secretName": "pair", "defaultMode": 0o400}},
            ],
        ),
        secrets={"pair": {"secret": b"of both"}},
        runtime=runtime,
        on_change=lambda: seen.append("changed"),
    )
    status = ended(running)
    running.close()
    assert running.log("first") == b"hello\n"
    assert b"of both" in running.log("second")  # runc copies each of the two streams by itself
    assert b"ead-only" in running.log("second")
    codes = {s["name"]: s["state"]["terminated"]["exitCode"] for s in status["containerStatuses"]}
    assert codes == {"first": 7, "second": 0}
    assert status["phase"] == "Failed"
    assert status["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    assert len(seen) >= 3


@pytest.mark.parametrize("runtime", ["runc", "runsc"])
def test_an_execution_carries_bytes_both_ways(pods: Pods, image: str, runtime: str) -> None:
    running = pods.start(
        "exec",
        pod(container("only", image, "sleep 600")),
        secrets={},
        runtime=runtime,
    )
    until(lambda: phase(running)() == "Running", seconds=60)
    execution = running.exec("only", ["sh", "-c", "wc -c; echo complaint >&2; exit 5"])
    execution.stdin.write(bytes(1_000_000))
    execution.stdin.close()
    assert execution.stdout.read() == b"1000000\n"
    assert execution.stderr.read() == b"complaint\n"
    assert execution.wait() == 5
    execution.close()
    sleeper = running.exec("only", ["sleep", "600"])
    sleeper.close()
    assert sleeper.wait() == 128 + signal.SIGKILL
    running.close()


def test_a_gvisor_pod_has_one_memory_for_all(pods: Pods, image: str) -> None:
    limits = {"limits": {"memory": "64Mi"}}
    greedy = container("greedy", image, "yes | tail -c 400000000 | tail -c 1", resources=limits)
    other = container("other", image, "sleep 600", resources=limits)
    running = pods.start("one", pod(greedy, other), secrets={}, runtime="runsc")
    reasons = {s["state"]["terminated"]["reason"] for s in ended(running)["containerStatuses"]}
    assert reasons == {"OOMKilled"}
    running.close()


def test_who_uses_up_its_memory_is_told_so(pods: Pods, image: str) -> None:
    limits = {"limits": {"memory": "32Mi"}}
    greedy = "x=$(head -c 100000000 /dev/zero | tr '\\0' a)"
    running = pods.start(
        "memory",
        pod(
            container("greedy", image, greedy, resources=limits),
            container("killed", image, "kill -9 $$; sleep 600 & wait; exit 3", resources=limits),
        ),
        secrets={},
    )
    until(lambda: "running" in running.status()["containerStatuses"][1]["state"], seconds=60)
    running.kill("killed")
    greedy_end, killed_end = (
        status["state"]["terminated"] for status in ended(running)["containerStatuses"]
    )
    running.close()
    assert (greedy_end["reason"], greedy_end["exitCode"]) == ("OOMKilled", 137)
    assert (killed_end["reason"], killed_end["exitCode"]) == ("Error", 137)


def test_a_deadline_ends_the_pod_and_is_only_lowered(pods: Pods, image: str) -> None:
    running = pods.start(
        "deadline",
        pod(
            container("only", image, "sleep 600"),
            activeDeadlineSeconds=600,
            terminationGracePeriodSeconds=0,
        ),
        secrets={},
    )
    until(lambda: phase(running)() == "Running", seconds=60)
    running.limit(0)
    running.limit(900)
    status = ended(running)
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")
    running.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("{registry}/absent:1", "ErrImagePull"),
        ("registry.invalid/absent:1", "ErrImagePull"),
        ("{registry}/no shell", "InvalidImageName"),
    ],
)
def test_an_image_that_is_not_there_is_waited_for(
    pods: Pods, registry: LoopbackRegistry, name: str, reason: str
) -> None:
    absent = name.format(registry=registry.address)
    running = pods.start("absent", pod(container("only", absent, "true")), secrets={})
    found = lambda: running.status()["containerStatuses"][0]["state"]["waiting"]["reason"]  # noqa: E731
    until(lambda: found() == reason, seconds=60)
    assert phase(running)() == "Pending"
    running.close()


def test_what_cannot_be_started_says_why(pods: Pods, image: str) -> None:
    running = pods.start(
        "broken", pod({"name": "only", "image": image, "command": ["/no/shell"]}), secrets={}
    )
    state = ended(running)["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["reason"]) == (128, "StartError")
    assert "/no/shell" in state["message"]
    running.close()


def test_layers_hide_and_do_not_leave_their_image(pods: Pods, image: str) -> None:
    running = pods.start("layers", pod({"name": "only", "image": image}), secrets={})
    assert ended(running)["phase"] == "Succeeded"
    names = running.log("only").decode().split()
    assert "kept" in names
    assert "gone" not in names
    assert "escaped" in names  # beside it there was nowhere to go
    running.close()


def test_a_pod_has_a_network_of_its_own(pods: Pods, image: str, registry: LoopbackRegistry) -> None:
    show = "cat /proc/net/dev /etc/hosts; sleep 600"
    running = pods.start("network", pod(container("only", image, show)), secrets={})
    until(lambda: b"localhost" in running.log("only"), seconds=60)
    with pytest.raises(ConnectionRefusedError):
        running.dial(int(registry.address.partition(":")[2]))
    log = running.log("only").decode()
    assert "eth0" in log
    assert running.status()["podIP"] in log
    running.close()


def test_a_pod_shares_none_of_the_hosts_namespaces(pods: Pods, image: str) -> None:
    for field in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        with pytest.raises(ValueError, match="shares no namespace"):
            pods.start("shared", pod(container("only", image, "true"), **{field: True}), secrets={})


CHILD = """
import sys, time
from pathlib import Path
from vmrunner_localclouds.pods import Pods
pods = Pods(Path(sys.argv[1]))
one = {"name": "only", "image": sys.argv[2], "command": ["sleep", "97531"]}
pod = {"spec": {"restartPolicy": "Never", "containers": [one]}}
running = pods.start("orphan", pod, secrets={}, runtime=sys.argv[3])
while running.status()["phase"] == "Pending":
    time.sleep(0.05)
print("running", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("runtime", ["runc", "runsc"])
def test_all_containers_die_with_their_parent(tmp_path: Path, image: str, runtime: str) -> None:
    words = [sys.executable, "-c", CHILD, str(tmp_path), image, runtime]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"running\n"
        assert living(tmp_path)
        child.kill()
    until(lambda: not living(tmp_path), seconds=60)


def living(directory: Path) -> list[str]:
    """Processes that were started with a file below that directory: a runtime's, or its
    container's."""
    found = []
    for process in Path("/proc").glob("[1-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            words = (process / "cmdline").read_bytes()
            if bytes(directory) in words or b"97531" in words:
                found.append(process.name)
    return found
