"""What is behind pods and VMIs of a local Kubernetes with a real node: containers of runc and
gVisor, and VMs, which are stand-ins here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vmrunner_localclouds.pods import Pods

from localclouds.tests.test_localkube_streams import exec_path, heard, opened
from tests.support.kube import KubeApi, job, kubernetes, owner, pod, secret, vmi
from tests.support.loopback_registry import SHELL, LoopbackRegistry, archive, programs
from tests.support.stand_ins import StandIn, StandIns, until

pytestmark = [pytest.mark.root, pytest.mark.standin]
VMI = "virtualmachineinstances.kubevirt.io"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image that has a shell, by its digest."""
    with LoopbackRegistry(tmp_path_factory.mktemp("registry")) as registry:
        path = tmp_path_factory.mktemp("image") / "shell.tar"
        layers = [programs(SHELL.split())]
        yield registry.push("shell:1", archive(path, layers, Env=["PATH=/bin"], Cmd=["ls", "/"]))


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[KubeApi]:
    with Pods(tmp_path) as pods, kubernetes(real_clock=True, pods=pods) as kube:
        yield kube


def body(image: str, script: str, **more: Any) -> dict[str, Any]:
    mount = {"name": "key", "mountPath": "/key", "readOnly": True}
    build = {"name": "build", "image": image, "command": ["sh", "-c", script]}
    volume = {"name": "key", "secret": {"secretName": "vm-1"}}
    return pod(containers=[build | {"volumeMounts": [mount]}], volumes=[volume], **more)


def phase(kube: KubeApi) -> str:
    return str(kube.get("pods", "vm-1").body.get("status", {}).get("phase"))


@pytest.mark.parametrize("runtime", ["runc", "gvisor"])
def test_a_pods_containers_are_real(kube: KubeApi, image: str, runtime: str) -> None:
    script = "cat /key/userdata; trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"
    assert kube.create(body(image, script, runtimeClassName=runtime)).status == 201
    assert phase(kube) == "Pending"  # its secret is not there
    kube.create(secret())
    until(lambda: phase(kube) == "Running", seconds=60)
    with opened(kube, exec_path(kube, "sh", "-c", "read -r x; echo got $x; exit 3")) as stream:
        stream.send(b"\0word\n")
        out, _, status = heard(stream)
    assert out == b"got word\n"
    assert status["details"]["causes"][0]["message"] == "3"
    log = kube.path("pods", "vm-1", "log")
    until(lambda: kube.ask("GET", log).body == "#cloud-config\n{}\n")
    kube.delete("pods", "vm-1")
    until(lambda: kube.gone("pods", "vm-1"))
    assert kube.local.machines[0].history[-1] == "gone"


def test_an_exit_code_is_told(kube: KubeApi, image: str) -> None:
    kube.create(secret())
    kube.create(body(image, "exit 7"))
    until(lambda: phase(kube) == "Failed", seconds=60)
    (shown,) = kube.get("pods", "vm-1").body["status"]["containerStatuses"]
    assert shown["state"]["terminated"]["exitCode"] == 7


def test_a_lowered_deadline_ends_real_containers(kube: KubeApi, image: str) -> None:
    kube.create(secret())
    kube.create(body(image, "sleep 1000", activeDeadlineSeconds=900))
    until(lambda: phase(kube) == "Running", seconds=60)
    kube.patch("pods", "vm-1", {"spec": {"activeDeadlineSeconds": 1}})
    until(lambda: phase(kube) == "Failed", seconds=60)
    assert kube.get("pods", "vm-1").body["status"]["reason"] == "DeadlineExceeded"


def test_a_removed_pods_containers_end_too(kube: KubeApi, image: str) -> None:
    """With grace 0 the object goes first: kubernetes.io, "Forced Pod termination"."""
    kube.create(secret())
    kube.create(body(image, "sleep 1000"))
    until(lambda: phase(kube) == "Running", seconds=60)
    kube.delete("pods", "vm-1", gracePeriodSeconds=0)
    assert kube.gone("pods", "vm-1")
    running = kube.local.machines[0].running
    until(lambda: running.status()["phase"] == "Failed", seconds=60)


def test_no_node_here_runs_kata(kube: KubeApi, image: str) -> None:
    kube.create(secret())
    kube.create(body(image, "true", runtimeClassName="kata-qemu"))
    found = kube.list("events").body["items"]
    assert "FailedCreatePodSandBox" in {each["reason"] for each in found}
    assert phase(kube) == "Pending"


@pytest.fixture
def vms() -> StandIns:
    return StandIns()


@pytest.fixture
def guests(vms: StandIns) -> Iterator[KubeApi]:
    with kubernetes(real_clock=True, vms=vms) as made:
        yield made


def born(kube: KubeApi, vms: StandIns) -> StandIn:
    timer = kube.create(job())
    kube.create(secret(owners=owner(timer)))
    assert kube.create(vmi(owners=owner(timer))).status == 201
    until(lambda: kube.get(VMI, "vm-1").body["status"]["phase"] == "Running")
    return vms.made[-1]


def test_a_vmi_runs_when_its_vm_does(guests: KubeApi, vms: StandIns) -> None:
    vm = born(guests, vms)
    (interface,) = guests.get(VMI, "vm-1").body["status"]["interfaces"]
    assert interface["ipAddress"] == vm.guest.address
    assert b"#cloud-config\n{}\n" in vm.guest.seed
    assert vm.guest.words == "ds=nocloud"


def test_the_end_of_its_job_kills_its_vm(guests: KubeApi, vms: StandIns) -> None:
    vm = born(guests, vms)
    guests.delete("jobs.batch", "vm-1", propagationPolicy="Foreground")
    until(lambda: guests.gone(VMI, "vm-1"))
    assert vm.killed


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (1, "Failed")])
def test_the_end_of_a_vm_is_told(guests: KubeApi, vms: StandIns, code: int, phase: str) -> None:
    born(guests, vms).code = code
    until(lambda: guests.get(VMI, "vm-1").body["status"]["phase"] == phase)


def test_a_console_is_the_vms(guests: KubeApi, vms: StandIns) -> None:
    born(guests, vms).console = b"booting\n"
    path = guests.path("virtualmachineinstances.subresources.kubevirt.io", "vm-1", "console")
    with opened(guests, path, ("plain.kubevirt.io",)) as stream:
        assert stream.recv() == b"booting\n"
