"""What pods and VMs show, as kubelets and KubeVirt write it, in the core's words."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.providers.kubernetes.orders import NAME, SCOPE, UID
from vmrunner.lib import unit_recipe
from vmrunner.model import ContainerEnd, Power, Reason
from vmrunner.providers.kubernetes import states, unit_version
from vmrunner.providers.kubernetes.states import View

THEN = "2026-11-30T10:00:00Z"
NOW = states.moment(THEN) or 0.0


def pod(**status: Any) -> dict[str, Any]:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": UID}
    meta = {"name": NAME, "uid": "pod-uid", "creationTimestamp": THEN, "ownerReferences": [owner]}
    return {"metadata": meta, "status": status}


def container(name: str, *, started: bool = True, **state: Any) -> dict[str, Any]:
    return {"name": name, "started": started, "state": state or {"running": {"startedAt": THEN}}}


def ended(code: int, reason: str = "Completed") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason}}


def view(shown: dict[str, Any], later: float = 0.0) -> View:
    return states.pod_view(shown, NOW + later)


def conditions(kind: str, reason: str, status: str = "True") -> list[dict[str, Any]]:
    fields = {"type": kind, "status": status, "reason": reason, "lastTransitionTime": THEN}
    return [{**fields, "message": f"{reason}: 0/3 nodes are available"}]


@pytest.mark.parametrize(
    ("status", "power", "detail"),
    [
        ({"phase": "Succeeded"}, Power.DEAD, ""),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, Power.DEAD, "deadline"),
        (
            {
                "phase": "Failed",
                "reason": "Evicted",
                "message": "Container build exceeded its local ephemeral storage limit",
            },
            Power.DEAD,
            "disk_full",
        ),
        ({"phase": "Unknown"}, Power.RUNNING, "its node does not answer"),
        ({"phase": "Pending"}, Power.PENDING, ""),
        ({}, Power.PENDING, ""),
    ],
)
def test_a_pods_phase_is_its_power(status: dict[str, Any], power: Power, detail: str) -> None:
    found = view(pod(**status))
    assert (found.power, found.detail) == (power, detail)
    assert not found.self_ended
    assert not found.preempted


def test_it_runs_once_vmrunners_container_has_started() -> None:
    both = [container("vmrunner", started=False), container("build")]
    assert view(pod(phase="Running", containerStatuses=both)).power is Power.PENDING
    both[0] = container("vmrunner")
    found = view(pod(phase="Running", containerStatuses=both))
    assert found.power is Power.RUNNING
    assert str(found.address) == f"pods/{NAME}:22"


def test_the_builds_container_is_shown_by_its_digest() -> None:
    """And vmrunner's own never is."""
    digest = f"sha256:{'c' * 64}"
    both = [
        container("vmrunner") | {"imageID": f"docker.io/library/debian@{digest[:-1]}d"},
        container("build") | {"imageID": f"docker.io/library/debian@{digest}"},
    ]
    images = [{"name": "vmrunner", "image": "debian:1"}, {"name": "build", "image": "debian:1"}]
    shown = pod(phase="Running", containerStatuses=both) | {"spec": {"containers": images}}
    assert states.pod_seen(SCOPE, shown, NOW).container == f"debian@{digest}"
    both[1]["imageID"] = ""
    assert states.pod_seen(SCOPE, shown, NOW).container is None


def test_the_builds_end_is_not_the_pods() -> None:
    """Its log and artifacts are still inside."""
    both = [container("vmrunner"), container("build", **ended(7))]
    assert view(pod(phase="Running", containerStatuses=both)).power is Power.RUNNING


def test_without_vmrunners_container_the_unit_is_lost() -> None:
    both = [container("vmrunner", **ended(137, "OOMKilled")), container("build")]
    found = view(pod(phase="Running", containerStatuses=both))
    assert found.power is Power.STOPPING
    assert "OOMKilled (exit code 137)" in found.detail
    assert not found.self_ended


@pytest.mark.parametrize(
    ("status", "preempted"),
    [
        ({"reason": "Evicted", "message": "The node was low on resource: memory"}, True),
        (
            {
                "reason": "Evicted",
                "message": "The node was low on resource: ephemeral-storage. Threshold quantity: "
                "1Gi, available: 900Mi. ",
            },
            True,
        ),
        ({"reason": "Preempting"}, True),
        ({"reason": "Terminated", "message": "Pod was terminated in response to shutdown"}, True),
        ({"reason": "NodeLost"}, True),
        ({"conditions": conditions("DisruptionTarget", "PreemptionByScheduler")}, True),
        ({"conditions": conditions("DisruptionTarget", "TerminationByKubelet")}, True),
        ({"conditions": conditions("DisruptionTarget", "DeletionByPodGC")}, True),
        ({"conditions": conditions("DisruptionTarget", "TerminationByKubelet", "False")}, False),
        ({"reason": "SomethingElse"}, False),
        ({"containerStatuses": [container("vmrunner", **ended(1, "Error"))]}, False),
    ],
)
def test_what_its_node_takes_back_is_preempted(status: dict[str, Any], preempted: bool) -> None:
    found = view(pod(phase="Failed", **status))
    assert (found.power, found.preempted, found.self_ended) == (Power.DEAD, preempted, False)


def test_a_unit_that_was_not_laid_out_says_why() -> None:
    """Its containers never began: what ended is the one before them."""
    never = [{"name": name, "state": {"waiting": {}}} for name in ("vmrunner", "build")]
    lay = container("lay", started=False, **ended(128, "StartError"))
    lay["state"]["terminated"]["message"] = "exec: supervisor: no such file"
    shown = pod(phase="Failed", initContainerStatuses=[lay], containerStatuses=never)
    found = view(shown)
    assert (found.power, found.preempted) == (Power.DEAD, False)
    assert found.detail == "StartError: exec: supervisor: no such file (exit code 128)"


def test_an_old_unit_image_is_told_as_such() -> None:
    """Its own recipe is not that of this vmrunner: no other offer would help."""
    never = [{"name": name, "state": {"waiting": {}}} for name in ("vmrunner", "build")]
    lay = container("lay", started=False, **ended(unit_version.OLD_UNIT, "Error"))
    found = view(pod(phase="Failed", initContainerStatuses=[lay], containerStatuses=never))
    assert (found.power, found.unfit) == (Power.DEAD, Reason.IMAGE)
    assert found.detail.startswith("unit_image: ")
    assert unit_recipe.current() in found.detail


@pytest.mark.parametrize("recipe", [unit_recipe.current(), "0123456789", None])
def test_a_unit_is_laid_out_by_its_own_recipe_alone(tmp_path: Path, recipe: str | None) -> None:
    """What the container runs, with this host's shell in place of the image's."""
    *shell, script, wanted = unit_version.lay_command()
    if recipe is not None:
        (tmp_path / "recipe").write_text(f"{recipe}\n")
    (tmp_path / "supervisor").write_text('#!/bin/sh\necho "$1"\n')
    (tmp_path / "supervisor").chmod(0o755)
    here = script.replace("/usr/lib/vmrunner", str(tmp_path))
    done = subprocess.run([*shell, here, wanted], capture_output=True, text=True, check=False)
    right = recipe == unit_recipe.current()
    assert (done.returncode, done.stdout) == (
        (0, "lay\n") if right else (unit_version.OLD_UNIT, "")
    )


@pytest.mark.parametrize(("later", "unfit"), [(59, None), (60, Reason.NO_CAPACITY)])
def test_no_node_for_a_minute_is_no_capacity(later: float, unfit: Reason | None) -> None:
    waits = conditions("PodScheduled", "Unschedulable", "False")
    found = view(pod(phase="Pending", conditions=waits), later)
    assert (found.power, found.unfit) == (Power.PENDING, unfit)
    assert "0/3 nodes are available" in found.detail
    vm = states.vmi_view(pod(phase="Scheduling", conditions=waits), NOW + later)
    assert (vm.power, vm.unfit) == (Power.PENDING, unfit)


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_had_is_named(reason: str) -> None:
    waiting = {"waiting": {"reason": reason, "message": "manifest unknown"}}
    part = {"name": "build", "image": "nothing:1", "state": waiting}
    for key in ("containerStatuses", "initContainerStatuses"):
        found = view(pod(phase="Pending", **{key: [part]}))
        assert (found.power, found.unfit) == (Power.PENDING, Reason.IMAGE)
        assert found.detail == f"nothing:1: {reason}: manifest unknown"
    part["state"] = {"waiting": {"reason": "ContainerCreating"}}
    assert view(pod(phase="Pending", containerStatuses=[part])).unfit is None


def test_a_node_without_room_is_no_capacity() -> None:
    found = view(pod(phase="Failed", reason="OutOfcpu", message="Node didn't have enough"))
    assert (found.power, found.unfit) == (Power.DEAD, Reason.NO_CAPACITY)


def test_what_is_being_deleted_is_alive_until_it_is_gone() -> None:
    shown = pod(phase="Running", containerStatuses=[container("vmrunner")])
    shown["metadata"]["deletionTimestamp"] = THEN
    assert view(shown, 86400).power is Power.STOPPING
    assert states.vmi_view(shown, NOW).power is Power.STOPPING


@pytest.mark.parametrize(
    ("status", "power", "self_ended"),
    [
        ({"phase": "Pending"}, Power.PENDING, False),
        ({"phase": "Scheduled"}, Power.PENDING, False),
        ({"phase": "Running"}, Power.PENDING, False),
        ({"phase": "Running", "interfaces": [{"name": "default"}]}, Power.PENDING, False),
        ({"phase": "Running", "interfaces": [{"ipAddress": "10.0.0.3"}]}, Power.RUNNING, False),
        ({"phase": "Succeeded"}, Power.DEAD, True),
        ({"phase": "Failed"}, Power.DEAD, False),
        ({"phase": "Unknown"}, Power.RUNNING, False),
    ],
)
def test_a_vms_phase_is_its_power(status: dict[str, Any], power: Power, self_ended: bool) -> None:
    found = states.vmi_view(pod(**status), NOW)
    assert (found.power, found.self_ended) == (power, self_ended)
    host = f"virtualmachineinstances/{NAME}:22"
    assert (str(found.address) == host) is (status.get("interfaces") == [{"ipAddress": "10.0.0.3"}])


def test_a_vm_that_was_deleted_did_not_switch_itself_off() -> None:
    """KubeVirt writes Succeeded for both."""
    shown = pod(phase="Succeeded")
    shown["metadata"]["deletionTimestamp"] = THEN
    found = states.vmi_view(shown, NOW)
    assert (found.power, found.self_ended, found.detail) == (Power.DEAD, False, "it was deleted")


NO_SHELL = 'runc create failed: exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown'


@pytest.mark.parametrize(
    ("kind", "reason", "words", "unfit", "detail"),
    [
        ("terminated", "StartError", NO_SHELL, Reason.IMAGE, "has no /bin/sh, which steps need"),
        ("waiting", "RunContainerError", NO_SHELL, Reason.IMAGE, "has no /bin/sh"),
        ("terminated", "StartError", "exec format error", Reason.IMAGE, "exec format error"),
        ("terminated", "StartError", "no room for a shim", None, "no room for a shim"),
    ],
)
def test_a_build_that_cannot_be_started_is_told_at_once(
    kind: str, reason: str, words: str, unfit: Reason | None, detail: str
) -> None:
    """Though vmrunner's own container is well, and would wait for ever."""
    shown = pod(phase="Running")
    shown["status"]["containerStatuses"] = [
        {"name": "vmrunner", "started": True, "state": {"running": {}}},
        {"name": "build", "image": "i:1", "state": {kind: {"reason": reason, "message": words}}},
    ]
    found = states.pod_view(shown, NOW)
    assert (found.power, found.unfit) == (Power.STOPPING, unfit)
    assert found.detail.startswith("container image i:1 ")
    assert detail in found.detail


def test_a_vm_whose_pod_is_refused_is_no_capacity() -> None:
    quota = 'pods "virt-launcher-vm-1-" is forbidden: exceeded quota: q'
    for words, unfit in ((quota, Reason.QUOTA), ("denied", Reason.NO_CAPACITY)):
        waits = conditions("Synchronized", "FailedCreate", "False")
        waits[0]["message"] = words
        found = states.vmi_view(pod(phase="Pending", conditions=waits), NOW + 60)
        assert (found.power, found.unfit, found.detail) == (Power.PENDING, unfit, words)


def test_a_silent_containers_end_is_the_nodes_word() -> None:
    def end(**state: Any) -> ContainerEnd | None:
        return states.container_end(pod(containerStatuses=[container("build", **state)]))

    assert end() is None
    killed = end(**ended(137, "OOMKilled"))
    assert killed is not None
    assert (killed.exit_code, killed.out_of_memory) == (137, True)
    failed = end(**ended(7, "Error"))
    assert failed is not None
    assert (failed.exit_code, failed.out_of_memory, failed.signal) == (7, False, None)
    assert states.container_end(pod(containerStatuses=[container("vmrunner", **ended(7))])) is None


def test_another_of_that_name_is_another_instance() -> None:
    found = states.pod_seen(SCOPE, pod(phase="Pending"), NOW)
    assert found.ref.id == f"{NAME}/{UID}"
    assert found.created_at == NOW
    alone = pod(phase="Pending")
    alone["metadata"]["ownerReferences"] = []
    assert states.pod_seen(SCOPE, alone, NOW).ref.id == f"{NAME}/pod-uid"


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": "Evicted"},
        {"reason": "DeadlineExceeded"},
        {"conditions": conditions("DisruptionTarget", "TerminationByKubelet")},
        {"ours": ended(143, "Error")},
        {"deleted": True},
    ],
    ids=["evicted", "deadline", "preempted", "both ended", "deleted"],
)
def test_what_ended_with_its_pod_is_no_failure(changes: dict[str, Any]) -> None:
    """A kubelet that ends a pod kills the build too: that is not the build's own end."""

    def seen(reason: str) -> ContainerEnd | None:
        more = {k: v for k, v in changes.items() if k in ("reason", "conditions")}
        ours = container("vmrunner", **changes.get("ours", {}))
        shown = pod(
            phase="Running",
            containerStatuses=[container("build", **ended(137, reason)), ours],
            **more,
        )
        if changes.get("deleted"):
            shown["metadata"]["deletionTimestamp"] = THEN
        return states.container_end(shown)

    assert seen("Error") is None
    killed = seen("OOMKilled")  # that its own memory was used up stays true
    assert killed is not None
    assert killed.out_of_memory


def test_a_vm_on_a_silent_node_may_be_alive() -> None:
    """KubeVirt writes `Failed` once it gives the node up; nobody saw the VM's end."""
    found = states.vmi_view(pod(phase="Failed", reason="NodeUnresponsive"), NOW)
    assert found.power is Power.RUNNING
    assert states.vmi_view(pod(phase="Failed"), NOW).power is Power.DEAD
