"""VirtualMachineInstances (kubevirt pkg/virt-api/webhooks, pkg/virt-controller/watch/vmi): their
rules, and the controller that gives each a launcher's pod and an end."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.kube import events, timestamps, writes
from vmrunner_localclouds.kube.api_error import Cause, Json, KubeRefusal, missing, wrong
from vmrunner_localclouds.kube.controllers import Controller
from vmrunner_localclouds.kube.kinds import PODS, VMIS
from vmrunner_localclouds.kube.store import Change
from vmrunner_localclouds.kube.strategies import Strategy
from vmrunner_localclouds.kube.vendor_limits import limit

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

FINALIZER: Final = "foregroundDeleteVirtualMachine"
LAUNCHER: Final = "virt-launcher"
_FINAL: Final = ("Succeeded", "Failed")
_RETRY: Final = 5.0
_USER: Final = 107  # qemu's, in the launcher's image
_IMAGE: Final = "quay.io/kubevirt/virt-launcher:v1.6.3"


class VmiStrategy(Strategy):
    def fill(self, cloud: LocalKube, shown: Json) -> None:
        metadata, spec = shown["metadata"], shown["spec"]
        finalizers = [*(metadata.get("finalizers") or ())]
        metadata["finalizers"] = [*finalizers, FINALIZER]
        spec.setdefault("networks", [{"name": "default", "pod": {}}])
        devices = spec["domain"].setdefault("devices", {})
        devices.setdefault("interfaces", [{"name": "default", "bridge": {}}])
        shown["status"] = {
            "phase": "Pending",
            "phaseTransitionTimestamps": [_reached(cloud, "Pending")],
        }

    def problems(self, shown: Json) -> list[Cause]:
        found: list[Cause] = []
        spec = shown["spec"]
        disks = spec["domain"].get("devices", {}).get("disks") or ()
        volumes = {volume["name"] for volume in spec.get("volumes") or ()}
        for number, disk in enumerate(disks):
            if disk["name"] not in volumes:
                field = f"spec.domain.devices.disks[{number}].Name"
                text = f"{field} '{disk['name']}' not found."
                found.append(wrong(field, disk["name"], text))
        for number, volume in enumerate(spec.get("volumes") or ()):
            found += _user_data(volume, number)
        memory = spec["domain"].get("memory", {}).get("guest")
        requests = spec["domain"].get("resources", {}).get("requests") or {}
        if not memory and "memory" not in requests:
            found.append(missing("spec.domain.memory.guest"))
        return found

    def update_problems(self, before: Json, shown: Json) -> list[Cause]:
        if before["spec"] != shown["spec"]:
            text = "update of VMI object is restricted"
            return [Cause("", "FieldValueNotSupported", text)]
        return []


def _user_data(volume: Json, number: int) -> list[Cause]:
    for source in ("cloudInitNoCloud", "cloudInitConfigDrive"):
        found = volume.get(source)
        if found is None:
            continue
        field = f"spec.volumes[{number}].{source}"
        most = limit("bytes of a VMI's plain user-data")
        for plain in ("userData", "userDataBase64"):
            if len(found.get(plain) or "") > most:
                text = f"{field}.{plain} exceeds {most:.0f} byte limit."
                text += " Should use UserDataSecretRef for larger data."
                return [Cause(field, "FieldValueInvalid", text)]
        if not any(found.get(each) for each in ("secretRef", "userData", "userDataBase64")):
            return [missing(field, "requires at least one userdata source")]
    return []


class VirtController(Controller):
    """Gives each VMI a launcher's pod. `seconds`: from there to a running guest; `stop_seconds`:
    from a delete to its end; `root`: launchers are root (feature gate `Root`)."""

    def __init__(self, cloud: LocalKube) -> None:
        super().__init__(cloud)
        self.stop_seconds = 0.0
        self.root = False

    def run(self, vmi: Json) -> None:
        """Note that the guest runs now."""
        current = self._of(vmi["metadata"]["uid"])
        if current is None or current["status"]["phase"] != "Scheduled":
            return
        launcher = self.launcher(current)
        machine = self._cloud.machine(current["metadata"]["uid"])
        address = launcher["status"]["podIP"] if launcher else ""
        if machine is not None and machine.body is not None:
            address = machine.body.guest.address
        interface = {"name": "default", "ipAddress": address, "ipAddresses": [address]}
        interface["infoSource"] = "domain"
        conditions = [_condition(self._cloud, "Ready", "True")]
        self._phase(current, "Running", interfaces=[interface], conditions=conditions)

    def end(self, vmi: Json, phase: str) -> None:
        """Note that the guest is dead: Succeeded or Failed. Its launcher ends with it."""
        current = self._of(vmi["metadata"]["uid"])
        if current is None or current["status"]["phase"] in _FINAL:
            return
        current = self._phase(current, phase)
        launcher = self.launcher(current)
        if launcher is not None and "deletionTimestamp" not in launcher["metadata"]:
            code = 0 if phase == "Succeeded" else 1
            self._cloud.kubelet.exit(launcher, "compute", code, "")
        self._release(current)

    def launcher(self, vmi: Json) -> Json | None:
        """The pod of a VMI; None: it has none now."""
        for uid in self._cloud.store.dependents(vmi["metadata"]["uid"]):
            found = self._cloud.store.find(uid)
            if found is not None and found[0] is PODS:
                return found[1]
        return None

    # --- within ---

    def _changed(self, change: Change) -> None:
        shown = change.object
        if change.kind is VMIS and change.type != "DELETED":
            uid = shown["metadata"]["uid"]
            if change.before is None:
                self._cloud.later(0.0, lambda: self._do(lambda: self._schedule(uid)))
            elif (
                "deletionTimestamp" in shown["metadata"]
                and "deletionTimestamp" not in change.before["metadata"]
            ):
                self._cloud.later(self.stop_seconds, lambda: self._do(lambda: self._stop(uid)))
        elif change.kind is PODS and is_launcher(shown):
            (owner,) = shown["metadata"]["ownerReferences"]
            self._cloud.later(0.0, lambda: self._do(lambda: self._follow(owner["uid"], change)))

    def _schedule(self, uid: str) -> None:
        vmi = self._of(uid)
        if vmi is None or "deletionTimestamp" in vmi["metadata"] or self.launcher(vmi):
            return
        try:
            launcher = _launcher(vmi, root=self.root)
            writes.add(self._cloud, PODS, launcher, vmi["metadata"]["namespace"])
        except KubeRefusal as refusal:
            text = f"failed to create virtual machine pod: {refusal.message}"
            condition = _condition(self._cloud, "Synchronized", "False", "FailedCreate", text)
            status = {**vmi["status"], "conditions": [condition]}
            self._cloud.store.replace(VMIS, vmi, {**vmi, "status": status})
            events.tell(
                self._cloud, vmi, "FailedCreate", text, "virtualmachine-controller", bad=True
            )
            self._cloud.later(_RETRY, lambda: self._do(lambda: self._schedule(uid)))
            return
        current = self._of(uid)
        if current is not None and current["status"]["phase"] == "Pending":
            self._phase(current, "Scheduling", conditions=[])

    def _follow(self, uid: str, change: Change) -> None:
        """Look at a VMI whose launcher has changed."""
        vmi = self._of(uid)
        if vmi is None:
            return
        pod, phase = change.object, vmi["status"]["phase"]
        if change.type == "DELETED":
            self._release(vmi)
        elif pod["status"]["phase"] == "Running" and phase in ("Pending", "Scheduling"):
            self._phase(vmi, "Scheduled")
            self._begin(uid)
        elif pod["status"]["phase"] in _FINAL and phase not in _FINAL:
            self.end(vmi, "Failed")
        elif pod["status"]["phase"] == "Pending" and phase in ("Pending", "Scheduling"):
            waits = [
                each
                for each in pod["status"].get("conditions", ())
                if each["type"] == "PodScheduled" and each["status"] == "False"
            ]
            status = {**vmi["status"], "conditions": waits}
            self._cloud.store.replace(VMIS, vmi, {**vmi, "status": status})

    def _begin(self, uid: str) -> None:
        machine = self._cloud.machine(uid)
        assert machine is not None
        if self._cloud.embody(machine):
            return
        self.soon(lambda: self.run(machine.last))

    def _stop(self, uid: str) -> None:
        machine = self._cloud.machine(uid)
        if machine is None or machine.gone or machine.stuck:
            return
        self.finish(machine.last)

    def finish(self, vmi: Json) -> None:
        """End the guest of a deleted VMI; then its object goes."""
        machine = self._cloud.machine(vmi["metadata"]["uid"])
        if machine is not None and machine.body is not None:
            machine.body.kill()
        self.end(vmi, "Succeeded")
        current = self._of(vmi["metadata"]["uid"])
        if current is not None:
            self._release(current)

    def _release(self, vmi: Json) -> None:
        """Delete its launcher; when that is gone, its finalizer."""
        current = self._of(vmi["metadata"]["uid"])
        if current is None or current["status"]["phase"] not in _FINAL:
            return
        launcher = self.launcher(current)
        if launcher is not None:
            deleted = "deletionTimestamp" in current["metadata"]
            if deleted and "deletionTimestamp" not in launcher["metadata"]:
                self._cloud.delete(PODS, launcher)
            return
        self._cloud.remove_finalizer(VMIS, current, FINALIZER)

    def _phase(self, vmi: Json, phase: str, **fields: object) -> Json:
        stamps = [*vmi["status"].get("phaseTransitionTimestamps", ()), _reached(self._cloud, phase)]
        status = {**vmi["status"], "phase": phase, "phaseTransitionTimestamps": stamps, **fields}
        launcher = self.launcher(vmi)
        if launcher is not None and launcher["spec"].get("nodeName"):
            status["nodeName"] = launcher["spec"]["nodeName"]
            status["activePods"] = {launcher["metadata"]["uid"]: launcher["spec"]["nodeName"]}
        return self._cloud.store.replace(VMIS, vmi, {**vmi, "status": status})


def is_launcher(pod: Json) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return labels.get("kubevirt.io") == LAUNCHER


def _launcher(vmi: Json, *, root: bool) -> Json:
    """The pod of a VMI, which has all of its labels (pkg/virt-controller/services/template.go)."""
    user = 0 if root else _USER
    metadata, domain = vmi["metadata"], vmi["spec"]["domain"]
    labels = dict(metadata.get("labels") or {})
    labels |= {"kubevirt.io": LAUNCHER, "kubevirt.io/created-by": metadata["uid"]}
    memory = domain.get("memory", {}).get("guest")
    requests = dict(domain.get("resources", {}).get("requests") or {})
    requests.setdefault("cpu", str(domain.get("cpu", {}).get("cores", 1)))
    if memory:
        requests.setdefault("memory", memory)
    owner = {
        "apiVersion": VMIS.group_version,
        "kind": VMIS.kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    container = {
        "name": "compute",
        "image": _IMAGE,
        "resources": {"requests": requests},
        "securityContext": {
            "runAsUser": user,
            "runAsNonRoot": not root,
            "privileged": False,
            "capabilities": {"add": ["NET_BIND_SERVICE", "SYS_NICE"]}
            if root
            else {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
            **({} if root else {"runAsGroup": user, "allowPrivilegeEscalation": False}),
        },
    }
    security = {"runAsUser": user, "fsGroup": _USER}
    if not root:
        security |= {"runAsGroup": user, "runAsNonRoot": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{LAUNCHER}-{metadata['name']}-",
            "labels": labels,
            "annotations": {"kubevirt.io/domain": metadata["name"]},
            "ownerReferences": [owner],
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": security,
            "nodeSelector": copy.deepcopy(vmi["spec"].get("nodeSelector") or {}),
            "containers": [container],
        },
    }


def _reached(cloud: LocalKube, phase: str) -> Json:
    return {"phase": phase, "phaseTransitionTimestamp": timestamps.written(cloud.now())}


def _condition(
    cloud: LocalKube, kind: str, status: str, reason: str = "", message: str = ""
) -> Json:
    at = timestamps.written(cloud.now())
    words = {key: value for key, value in (("reason", reason), ("message", message)) if value}
    return {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": at} | words
