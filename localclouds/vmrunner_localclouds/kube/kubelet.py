"""The scheduler and the kubelet of the one node, for pods that are states alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.kube import events, pod_status, timestamps
from vmrunner_localclouds.kube.api_error import Json
from vmrunner_localclouds.kube.controllers import Controller
from vmrunner_localclouds.kube.kinds import NODES, PODS
from vmrunner_localclouds.kube.store import Change

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

NODE: Final = "node-1"
ADDRESS: Final = "192.0.2.10"
#: Taints of a lost node are tolerated so long.
_EVICTED_AFTER: Final = 300.0
_FULL: Final = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available"
_ENDED: Final = ("Succeeded", "Failed")
_AGAIN: Final = 10.0  # seconds until a sandbox is tried again
_NO_SANDBOX: Final = (
    "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: "
)


class Scheduler(Controller):
    """Binds pods to the node. `full`: it has no room."""

    def __init__(self, cloud: LocalKube) -> None:
        super().__init__(cloud)
        self._full = False

    @property
    def full(self) -> bool:
        return self._full

    @full.setter
    def full(self, full: bool) -> None:
        with self._cloud.held():
            self._full = full
            for pod in self._cloud.store.all(PODS):
                if not full and not pod["spec"].get("nodeName"):
                    self._bind(pod["metadata"]["uid"])

    def _changed(self, change: Change) -> None:
        if (
            change.kind is PODS
            and change.type == "ADDED"
            and not change.object["spec"].get("nodeName")
        ):
            uid = change.object["metadata"]["uid"]
            self.soon(lambda: self._bind(uid))

    def _bind(self, uid: str) -> None:
        cloud = self._cloud
        found = cloud.store.find(uid)
        if found is None or "deletionTimestamp" in found[1]["metadata"]:
            return
        pod, at = found[1], timestamps.written(cloud.now())
        if self._full:
            status = {**pod["status"], "conditions": pod_status.unschedulable(at, _FULL)}
            cloud.store.replace(PODS, pod, {**pod, "status": status})
            events.tell(cloud, pod, "FailedScheduling", _FULL, "default-scheduler", bad=True)
            return
        status = {**pod["status"], "conditions": pod_status.scheduled(at)}
        spec = {**pod["spec"], "nodeName": NODE}
        pod = cloud.store.replace(PODS, pod, {**pod, "spec": spec, "status": status})
        metadata = pod["metadata"]
        text = f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {NODE}"
        events.tell(cloud, pod, "Scheduled", text, "default-scheduler")


class Kubelet(Controller):
    """Runs pods. `seconds`: from a binding to running containers; `probe_seconds`: from there to
    the success of startup probes; `stop_seconds`: from a delete to the end of its containers;
    `pull_errors`: image → the reason and message for which it cannot be pulled; `lacks`: handlers
    of runtime classes that this node does not have."""

    def __init__(self, cloud: LocalKube) -> None:
        super().__init__(cloud)
        self.probe_seconds = 0.0
        self.stop_seconds = 0.0
        self.deadline_late = 0.0  # so long past its time a pod's deadline strikes
        self.pull_errors: dict[str, tuple[str, str]] = {}
        self.lacks: set[str] = set()
        self._failures: dict[tuple[str, str], Json] = {}  # events, by pod and words
        self._addresses = 0

    @property
    def host(self) -> Json:
        """The node's part of a pod's status."""
        return {"hostIP": ADDRESS, "hostIPs": [{"ip": ADDRESS}]}

    def exit(self, pod: Json, container: str, code: int, reason: str) -> None:
        at = timestamps.written(self._cloud.now())
        self._write(pod, pod_status.exited(pod["status"], container, code, reason, at))

    def fail(self, pod: Json, reason: str, message: str) -> None:
        at = timestamps.written(self._cloud.now())
        self._write(pod, pod_status.failed(pod["status"], reason, message, at))
        events.tell(self._cloud, pod, reason, message, "kubelet", bad=True)

    def start(self, uid: str) -> None:
        """Start the containers of a pod, or start them now that their images can be had."""
        pod = self._of(uid)
        if pod is None or "deletionTimestamp" in pod["metadata"] or _ended(pod):
            return
        if (handler := self._cloud.handler_of(pod)) in self.lacks:
            self.fail_sandbox(pod, f'no runtime for "{handler}" is configured')
            return
        machine = self._cloud.machine(uid)
        if self._cloud.containers is not None and machine is not None:
            if machine.running is None:
                self._cloud.containers.start(machine)
            return
        at = timestamps.written(self._cloud.now())
        spec = pod["spec"]
        errors = {
            each["name"]: self.pull_errors[each["image"]]
            for each in spec["containers"]
            if each["image"] in self.pull_errors
        }
        if errors:
            pod = self._write(pod, pod_status.waiting(spec, at, ADDRESS, pod["status"], errors))
            for reason, message in errors.values():
                events.tell(self._cloud, pod, reason, message, "kubelet", bad=True)
        else:
            self._addresses += 1
            address = f"10.244.{self._addresses >> 8 & 255}.{self._addresses & 255}"
            quick = self.probe_seconds <= 0
            status = pod_status.running(spec, at, address, ADDRESS, pod["status"], started=quick)
            pod = self._write(pod, status)
            for each in spec["containers"]:
                events.tell(
                    self._cloud, pod, "Started", f"Started container {each['name']}", "kubelet"
                )
            if not quick:
                self._cloud.later(self.probe_seconds, lambda: self._do(lambda: self._probed(uid)))
        self._arm(pod)

    def fail_sandbox(self, pod: Json, why: str) -> None:
        """Note that a pod has no place to run in; it is tried again."""
        uid = pod["metadata"]["uid"]
        at = timestamps.written(self._cloud.now())
        status = pod_status.waiting(pod["spec"], at, ADDRESS, pod["status"], {}, sandbox=False)
        if "startTime" not in pod["status"]:
            pod = self._write(pod, status)
            self._arm(pod)
        if (event := self._failures.get((uid, why))) is not None:
            events.repeat(self._cloud, event)
        else:
            text = f"{_NO_SANDBOX}{why}"
            self._failures[uid, why] = events.tell(
                self._cloud, pod, "FailedCreatePodSandBox", text, "kubelet", bad=True
            )
        self.soon(lambda: self.start(uid), _AGAIN)

    # --- within ---

    def _changed(self, change: Change) -> None:
        if change.kind is not PODS:
            return
        pod, before = change.object, change.before
        if change.type == "DELETED":
            self._forget(pod["metadata"]["uid"])
            return
        if not pod["spec"].get("nodeName"):
            return
        uid = pod["metadata"]["uid"]
        if before is None or not before["spec"].get("nodeName"):
            self.soon(lambda: self.start(uid))
        elif before["spec"].get("activeDeadlineSeconds") != pod["spec"].get(
            "activeDeadlineSeconds"
        ):
            self._arm(pod)
        if "deletionTimestamp" in pod["metadata"] and (
            before is None or "deletionTimestamp" not in before["metadata"]
        ):
            grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
            wait = min(self.stop_seconds, grace)
            self._cloud.later(wait, lambda: self._do(lambda: self._stop(uid)))

    def _stop(self, uid: str) -> None:
        """End a deleted pod's containers; then its object goes."""
        pod = self._of(uid)
        if pod is None:
            return
        machine = self._cloud.machine(uid)
        if machine is not None and machine.stuck:
            return
        if machine is not None and machine.running is not None:
            assert self._cloud.containers is not None
            grace = pod["metadata"].get("deletionGracePeriodSeconds") or 0
            self._cloud.containers.stop(machine, float(grace))
        else:
            self.finish(pod)

    def _forget(self, uid: str) -> None:
        """End the containers of a pod whose object went without waiting for them."""
        machine = self._cloud.machine(uid)
        if machine is not None and machine.running is not None:
            assert self._cloud.containers is not None
            containers = self._cloud.containers
            self.soon(lambda: containers.stop(machine, 0.0))

    def finish(self, pod: Json) -> None:
        """Write that all containers of a deleted pod are dead, and remove it."""
        if not _ended(pod):
            at = timestamps.written(self._cloud.now())
            status = pod["status"]
            for each in status.get("containerStatuses", ()):
                status = pod_status.exited(status, each["name"], 137, "Error", at)
            pod = self._write(pod, status)
        metadata = {**pod["metadata"], "deletionGracePeriodSeconds": 0}
        pod = self._cloud.store.replace(PODS, pod, {**pod, "metadata": metadata})
        self._cloud.collect(PODS, pod)

    def _probed(self, uid: str) -> None:
        pod = self._of(uid)
        if pod is None or _ended(pod):
            return
        containers = [
            {**each, "started": True, "ready": True} if "running" in each["state"] else each
            for each in pod["status"].get("containerStatuses", ())
        ]
        status = {**pod["status"], "containerStatuses": containers}
        if all(each["ready"] for each in containers):
            at = timestamps.written(self._cloud.now())
            status["conditions"] = pod_status.conditions(at, {})
        self._write(pod, status)

    def _arm(self, pod: Json) -> None:
        machine = self._cloud.machine(pod["metadata"]["uid"])
        seconds, began = pod["spec"].get("activeDeadlineSeconds"), pod["status"].get("startTime")
        if machine is not None and machine.running is not None and seconds is not None:
            machine.running.limit(seconds)
            return
        if seconds is None or not began or _ended(pod):
            return
        due = timestamps.read(began) + seconds + self.deadline_late
        uid = pod["metadata"]["uid"]
        wait = max(due - self._cloud.now(), 0.0)
        self._cloud.later(wait, lambda: self._do(lambda: self._strike(uid)))

    def _strike(self, uid: str) -> None:
        pod = self._of(uid)
        if pod is None or _ended(pod):
            return
        due = timestamps.read(pod["status"]["startTime"]) + pod["spec"]["activeDeadlineSeconds"]
        if due + self.deadline_late <= self._cloud.now():
            self.fail(pod, "DeadlineExceeded", pod_status.DEADLINE)

    def _write(self, pod: Json, status: Json) -> Json:
        return self._cloud.store.replace(PODS, pod, {**pod, "status": status})


def _ended(pod: Json) -> bool:
    return pod["status"].get("phase") in _ENDED


def node(cloud: LocalKube) -> Json:
    """The one node, ready."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": NODE,
            "uid": cloud.new_uid(),
            "creationTimestamp": timestamps.written(cloud.now()),
            "labels": {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"},
        },
        "spec": {},
        "status": {
            "addresses": [{"type": "InternalIP", "address": ADDRESS}],
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "110"},
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "110"},
            "conditions": [ready(cloud, "True", "KubeletReady")],
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kernelVersion": "6.12.0",
                "osImage": "Debian GNU/Linux 13 (trixie)",
                "containerRuntimeVersion": "containerd://2.1.0",
                "kubeletVersion": f"v{cloud.version}.2",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
        },
    }


def ready(cloud: LocalKube, status: str, reason: str) -> Json:
    at = timestamps.written(cloud.now())
    return {
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": reason,
        "lastHeartbeatTime": at,
        "lastTransitionTime": at,
    }


def lose(cloud: LocalKube) -> None:
    """Let the node go silent: its pods run on, unseen, and after five minutes they are marked as
    deleted (pkg/controller/tainteviction)."""
    _set_ready(cloud, "Unknown", "NodeStatusUnknown")
    cloud.kubelet.on = False
    cloud.later(_EVICTED_AFTER, lambda: _evict(cloud))


def _evict(cloud: LocalKube) -> None:
    if cloud.kubelet.on:
        return
    for pod in cloud.store.all(PODS):
        if pod["spec"].get("nodeName") == NODE:
            condition = {
                "type": "DisruptionTarget",
                "status": "True",
                "lastProbeTime": None,
                "lastTransitionTime": timestamps.written(cloud.now()),
                "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
            }
            conditions = [*pod["status"].get("conditions", ()), condition]
            status = {**pod["status"], "conditions": conditions}
            cloud.delete(PODS, cloud.store.replace(PODS, pod, {**pod, "status": status}))


def find(cloud: LocalKube) -> None:
    """Let the node be back: what it was to do in between is done now."""
    _set_ready(cloud, "True", "KubeletReady")
    cloud.kubelet.on = True


def _set_ready(cloud: LocalKube, status: str, reason: str) -> None:
    found = cloud.store.get(NODES, "", NODE)
    assert found is not None
    conditions = [ready(cloud, status, reason)]
    shown = {**found, "status": {**found["status"], "conditions": conditions}}
    cloud.store.replace(NODES, found, shown)
