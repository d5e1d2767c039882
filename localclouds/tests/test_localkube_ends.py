"""Ends of things in a cluster: deadlines, owners that are gone, grace. Each rule names its
source in kubernetes 1.34.2; "measured" is a real control plane of that version."""

from __future__ import annotations

import pytest

from tests.support.kube import JSON_PATCH, KubeApi, job, owner, pod, secret, vmi
from tests.support.kube import kube as kube  # the fixture

GONE_OWNER = [
    {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": "vm-1",
        "uid": "11111111-1111-4111-8111-111111111111",
    }
]


def test_a_deadline_ends_the_job_and_all_it_owns(kube: KubeApi) -> None:
    """job_controller.go `pastActiveDeadline`, ttlafterfinished_controller.go, GC; measured: 12 s
    after its create the Job was gone, its Pod and Secret in the same look."""
    timer = kube.create(job(seconds=3))
    assert timer.body["spec"]["selector"]["matchLabels"]
    for body in (pod(owners=owner(timer)), secret(owners=owner(timer))):
        assert kube.create(body).status == 201
    kube.until(lambda: "startTime" in kube.get("jobs.batch", "vm-1").body["status"])
    kube.wait(2)
    assert kube.get("jobs.batch", "vm-1").status == 200
    kube.wait(1)
    kube.until(lambda: kube.gone("jobs.batch", "vm-1"))
    kube.until(lambda: kube.gone("secrets", "vm-1") and kube.gone("pods", "vm-1"))


def test_a_lowered_deadline_of_a_job_is_the_deadline(kube: KubeApi) -> None:
    """Measured: lowered by a merge patch, gone 1.3 s later."""
    kube.create(job(seconds=3300))
    assert kube.patch("jobs.batch", "vm-1", {"spec": {"activeDeadlineSeconds": 1}}).status == 200
    kube.wait(1)
    kube.until(lambda: kube.gone("jobs.batch", "vm-1"))


def test_a_raised_deadline_of_a_job_holds(kube: KubeApi) -> None:
    """A Job's deadline may be raised: only our `test` operation keeps from it."""
    kube.create(job(seconds=2))
    path = "/spec/activeDeadlineSeconds"
    raised = [{"op": "replace", "path": path, "value": 3300}]
    assert kube.patch("jobs.batch", "vm-1", raised, JSON_PATCH).status == 200
    kube.wait(3)
    assert kube.get("jobs.batch", "vm-1").status == 200


def test_a_job_without_parallelism_never_completes(kube: KubeApi) -> None:
    """job_controller.go `syncJob`: with `completions` unset a success is needed."""
    made = kube.create(job())
    assert "completions" not in made.body["spec"]
    kube.wait(2)
    assert not kube.get("jobs.batch", "vm-1").body["status"].get("conditions")
    assert kube.list("pods").body["items"] == []


@pytest.mark.parametrize("body", [pod(owners=GONE_OWNER), secret(owners=GONE_OWNER)])
def test_what_is_born_after_its_owner_dies(kube: KubeApi, body: dict[str, object]) -> None:
    """garbagecollector.go `attemptToDeleteItem`; measured: 201, collected 0.3 s later."""
    made = kube.create(body)
    assert made.status == 201
    resource = f"{str(body['kind']).lower()}s"
    kube.until(lambda: kube.gone(resource, "vm-1"))


def test_another_object_of_that_name_is_no_owner(kube: KubeApi) -> None:
    """garbagecollector.go `isDangling`: the uid must be the same."""
    kube.create(job())
    kube.create(secret(owners=GONE_OWNER))
    kube.until(lambda: kube.gone("secrets", "vm-1"))
    assert kube.get("jobs.batch", "vm-1").status == 200


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_dependents_go_with_their_owner(kube: KubeApi, policy: str) -> None:
    """garbagecollector.go; measured: with uid and Foreground all gone in 0.3 s."""
    timer = kube.create(job())
    kube.create(secret(owners=owner(timer)))
    wanted = {"propagationPolicy": policy, "preconditions": {"uid": timer.uid}}
    assert kube.delete("jobs.batch", "vm-1", **wanted).status == 200
    kube.until(lambda: kube.gone("jobs.batch", "vm-1") and kube.gone("secrets", "vm-1"))


@pytest.mark.parametrize("options", [{}, {"propagationPolicy": "Orphan"}])
def test_a_plain_delete_of_a_job_orphans(kube: KubeApi, options: dict[str, str]) -> None:
    """registry/batch/job/strategy.go `DefaultGarbageCollectionPolicy`: `OrphanDependents` in
    batch/v1."""
    timer = kube.create(job())
    kube.create(secret(owners=owner(timer)))
    kube.delete("jobs.batch", "vm-1", **options)
    kube.until(lambda: kube.gone("jobs.batch", "vm-1"))
    kube.until(lambda: "ownerReferences" not in kube.get("secrets", "vm-1").body["metadata"])


@pytest.mark.standin
def test_foreground_waits_only_for_what_blocks(kube: KubeApi) -> None:
    """garbagecollector.go `processDeletingDependentsItem`: dependents without
    `blockOwnerDeletion` are not waited for: the Job is gone while the Pod still stops."""
    kube.local.kubelet.stop_seconds = 5
    for name, blocks in (("vm-1", False), ("vm-2", True)):
        timer = kube.create(job(name))
        (reference,) = owner(timer)
        kube.create(pod(name, owners=[reference | {"blockOwnerDeletion": blocks}]))
        kube.delete("jobs.batch", name, propagationPolicy="Foreground")
    assert kube.gone("jobs.batch", "vm-1")
    assert kube.get("jobs.batch", "vm-2").status == 200
    for name in ("vm-1", "vm-2"):
        assert kube.get("pods", name).body["metadata"]["deletionTimestamp"]
    kube.clock.advance(5)
    kube.get("pods", "vm-1")
    assert kube.gone("pods", "vm-1")
    assert kube.gone("jobs.batch", "vm-2")


def test_a_pods_deadline_is_only_lowered(kube: KubeApi) -> None:
    """validation.go `ValidatePodUpdate`; measured: lowered 200, raised 422."""
    kube.create(pod(activeDeadlineSeconds=3300))

    def patched(seconds: int | None) -> int:
        return kube.patch("pods", "vm-1", {"spec": {"activeDeadlineSeconds": seconds}}).status

    assert [patched(seconds) for seconds in (3301, 600, 600, 601, 0, None)] == [
        *(422, 200, 200, 422, 422, 422)
    ]


@pytest.mark.standin
def test_a_kubelet_ends_a_pod_at_its_deadline(kube: KubeApi) -> None:
    """pkg/kubelet/active_deadline.go: counted from the pod's start."""
    kube.local.kubelet.seconds = 4
    kube.create(pod(activeDeadlineSeconds=60))
    kube.clock.advance(4)
    assert kube.get("pods", "vm-1").body["status"]["phase"] == "Running"
    kube.clock.advance(59)
    assert kube.get("pods", "vm-1").body["status"]["phase"] == "Running"
    kube.patch("pods", "vm-1", {"spec": {"activeDeadlineSeconds": 60}})
    kube.clock.advance(1)
    status = kube.get("pods", "vm-1").body["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")
    assert kube.local.machines[0].history == ["Pending", "Running", "Failed"]


@pytest.mark.standin
def test_a_pod_has_grace(kube: KubeApi) -> None:
    """registry/core/pod/strategy.go `CheckGracefulDelete`; a shorter grace is taken, a longer one
    is not: registry/rest/delete.go `BeforeDelete`."""
    kube.local.kubelet.stop_seconds = 30
    kube.create(pod())
    marked = kube.delete("pods", "vm-1").body["metadata"]
    assert marked["deletionGracePeriodSeconds"] == 10
    longer = kube.delete("pods", "vm-1", gracePeriodSeconds=20).body["metadata"]
    assert longer["deletionTimestamp"] == marked["deletionTimestamp"]
    shorter = kube.delete("pods", "vm-1", gracePeriodSeconds=2).body["metadata"]
    assert shorter["deletionTimestamp"] < marked["deletionTimestamp"]
    assert kube.delete("pods", "vm-1", gracePeriodSeconds=0).status == 200
    assert kube.gone("pods", "vm-1")


def test_a_pod_without_a_node_goes_at_once(kube: KubeApi) -> None:
    """registry/core/pod/strategy.go `CheckGracefulDelete`."""
    kube.create(pod(schedulerName="nobody"))
    assert kube.delete("pods", "vm-1").status == 200
    assert kube.gone("pods", "vm-1")


@pytest.mark.standin
def test_a_pod_of_a_lost_node_is_alive(kube: KubeApi) -> None:
    """kubernetes.io, "Nodes": pods of an unreachable node stay Terminating; with grace 0 the
    object goes, and nobody saw the containers dead."""
    for name in ("vm-1", "vm-2"):
        kube.create(pod(name))
    kube.local.lose_node()
    node = kube.ask("GET", "/api/v1/nodes/node-1").body
    (ready,) = (each for each in node["status"]["conditions"] if each["type"] == "Ready")
    assert ready["status"] == "Unknown"
    kube.clock.advance(301)
    shown = kube.get("pods", "vm-1").body
    assert shown["metadata"]["deletionTimestamp"]
    assert shown["status"]["phase"] == "Running"
    kube.delete("pods", "vm-1", gracePeriodSeconds=0)
    assert kube.gone("pods", "vm-1")
    assert not kube.gone("pods", "vm-2")
    kube.local.find_node()
    assert kube.gone("pods", "vm-2")


@pytest.mark.standin
def test_a_pod_starts_and_its_containers_end(kube: KubeApi) -> None:
    """kubernetes.io, "Pod Lifecycle": Failed when a container has failed and all have ended."""
    probe = {"exec": {"command": ["true"]}}
    containers = [
        {"name": "vmrunner", "image": "a", "startupProbe": probe},
        {"name": "build", "image": "b"},
    ]
    kube.local.kubelet.probe_seconds = 3
    kube.create(pod(containers=containers, initContainers=[{"name": "lay", "image": "a"}]))

    def started() -> dict[str, bool]:
        shown = kube.get("pods", "vm-1").body["status"]["containerStatuses"]
        return {each["name"]: each["started"] for each in shown}

    assert started() == {"vmrunner": False, "build": True}
    kube.clock.advance(3)
    assert started() == {"vmrunner": True, "build": True}
    (machine,) = kube.local.of("vm-1")
    machine.exit("build", 137, "OOMKilled")
    status = kube.get("pods", "vm-1").body["status"]
    assert status["phase"] == "Running"
    machine.exit("vmrunner", 0)
    status = kube.get("pods", "vm-1").body["status"]
    assert status["phase"] == "Failed"
    ended = {each["name"]: each["state"]["terminated"] for each in status["containerStatuses"]}
    assert (ended["build"]["exitCode"], ended["build"]["reason"]) == (137, "OOMKilled")


@pytest.mark.standin
def test_a_full_node_leaves_a_pod_pending(kube: KubeApi) -> None:
    """kubernetes.io, "Pod conditions": PodScheduled False, reason Unschedulable."""
    kube.local.scheduler.full = True
    kube.create(pod())
    status = kube.get("pods", "vm-1").body["status"]
    (condition,) = status["conditions"]
    assert (status["phase"], condition["reason"]) == ("Pending", "Unschedulable")
    kube.local.scheduler.full = False
    assert kube.get("pods", "vm-1").body["status"]["phase"] == "Running"


@pytest.mark.standin
def test_an_image_that_cannot_be_pulled(kube: KubeApi) -> None:
    """kubernetes.io, "Images": the container waits with reason ImagePullBackOff."""
    kube.local.kubelet.pull_errors["debian:13"] = ("ImagePullBackOff", "no such image")
    kube.create(pod())
    status = kube.get("pods", "vm-1").body["status"]
    waits = status["containerStatuses"][0]["state"]["waiting"]
    assert (status["phase"], waits["reason"]) == ("Pending", "ImagePullBackOff")


@pytest.mark.standin
def test_a_node_without_a_class_makes_no_sandbox(kube: KubeApi) -> None:
    """kubernetes.io, "Runtime Class": pods of it wait; nothing but an event tells why, which counts
    its repetitions (pkg/kubelet/kuberuntime/kuberuntime_manager.go `SyncPod`; the words of
    containerd's internal/cri/server/sandbox_run.go)."""
    kube.local.kubelet.lacks.add("kata-qemu")
    kube.create(pod(runtimeClassName="kata-qemu"))
    for _ in range(2):
        kube.clock.advance(10)
        status = kube.get("pods", "vm-1").body["status"]
    waits = {each["state"]["waiting"]["reason"] for each in status["containerStatuses"]}
    assert (status["phase"], waits) == ("Pending", {"ContainerCreating"})
    conditions = {each["type"]: each["status"] for each in status["conditions"]}
    assert conditions["PodReadyToStartContainers"] == "False"
    assert conditions["PodScheduled"] == "True"
    selector = "involvedObject.name=vm-1,type=Warning"
    (event,) = kube.list("events", fieldSelector=selector).body["items"]
    assert (event["reason"], event["count"]) == ("FailedCreatePodSandBox", 3)
    assert event["message"] == (
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox "
        'runtime: no runtime for "kata-qemu" is configured'
    )
    kube.local.kubelet.lacks.clear()
    kube.clock.advance(10)
    assert kube.get("pods", "vm-1").body["status"]["phase"] == "Running"


@pytest.mark.standin
def test_the_life_of_a_vmi(kube: KubeApi) -> None:
    """kubevirt pkg/virt-controller/watch/vmi: its launcher has its labels, its finalizer stays
    until the launcher is gone, and it ends as Succeeded."""
    kube.local.virt.seconds, kube.local.virt.stop_seconds = 7, 2
    timer = kube.create(job())
    made = kube.create(vmi(owners=owner(timer)), fieldValidation="Strict")
    assert made.body["metadata"]["finalizers"] == ["foregroundDeleteVirtualMachine"]
    kind = "virtualmachineinstances.kubevirt.io"
    assert kube.get(kind, "vm-1").body["status"]["phase"] == "Scheduled"
    (launcher,) = kube.list("pods", labelSelector="vmrunner/instance=vm-1").body["items"]
    assert launcher["metadata"]["ownerReferences"][0]["uid"] == made.uid
    kube.clock.advance(7)
    status = kube.get(kind, "vm-1").body["status"]
    assert status["phase"] == "Running"
    assert status["interfaces"][0]["ipAddress"] == launcher["status"]["podIP"]
    kube.delete("jobs.batch", "vm-1", propagationPolicy="Foreground")
    shown = kube.get(kind, "vm-1").body
    assert shown["metadata"]["deletionTimestamp"]
    assert shown["status"]["phase"] == "Running"
    kube.clock.advance(2)
    kube.get(kind, "vm-1")
    assert kube.gone(kind, "vm-1")
    assert kube.list("pods").body["items"] == []
    (machine,) = kube.local.machines
    assert machine.history == [
        *("Pending", "Scheduling", "Scheduled", "Running", "Succeeded", "gone")
    ]


@pytest.mark.standin
def test_plain_user_data_of_a_vmi_is_short(kube: KubeApi) -> None:
    """kubevirt pkg/virt-api/webhooks/validating-webhook/admitters/vmi-create-admitter.go."""
    body = vmi()
    body["spec"]["volumes"][1]["cloudInitNoCloud"] = {"userData": "#" * 2049}
    assert kube.create(body).status == 422
    body["spec"]["volumes"][1]["cloudInitNoCloud"] = {"userData": "#" * 2048}
    assert kube.create(body).status == 201


@pytest.mark.standin
@pytest.mark.parametrize("name", ["garbage", "jobs", "ttl"])
def test_controllers_are_slow_or_off_on_demand(kube: KubeApi, name: str) -> None:
    controller = getattr(kube.local, name)
    controller.seconds = 600
    timer = kube.create(job(seconds=10))
    kube.create(secret(owners=owner(timer)))
    kube.clock.advance(300)
    assert kube.get("secrets", "vm-1").status == 200
    for _ in range(4):
        kube.clock.advance(601)
        kube.list("secrets")
    assert kube.gone("secrets", "vm-1")
    controller.seconds, controller.on = 0, False
    timer = kube.create(job(seconds=10))
    kube.create(secret(owners=owner(timer)))
    kube.clock.advance(86_400)
    assert kube.get("secrets", "vm-1").status == 200
    controller.on = True
    for _ in range(2):
        kube.clock.advance(11)
        kube.list("secrets")
    assert kube.gone("secrets", "vm-1")


@pytest.mark.standin
def test_a_controller_is_wrong_on_demand(kube: KubeApi) -> None:
    seen: list[object] = []
    kube.local.kubelet.instead = seen.append
    kube.create(pod())
    assert kube.get("pods", "vm-1").body["status"]["phase"] == "Pending"
    assert len(seen) == 1
