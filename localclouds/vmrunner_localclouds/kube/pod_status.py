"""The status of a pod, as a kubelet writes it (pkg/kubelet/kubelet_pods.go, status/generate.go of
1.34.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from vmrunner_localclouds.kube.api_error import Json
from vmrunner_localclouds.pods.status import image_id

_CONDITIONS: Final = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")
DEADLINE: Final = "Pod was active on the node longer than the specified deadline"


def conditions(at: str, status: Mapping[str, str], reason: str = "") -> list[Json]:
    """`status`: True or False of each condition; those that are not named are True."""
    made = []
    for kind in (*_CONDITIONS, "PodScheduled"):
        value = status.get(kind, "True")
        made.append(
            {
                "type": kind,
                "status": value,
                "lastProbeTime": None,
                "lastTransitionTime": at,
                **({"reason": reason} if reason and value == "False" else {}),
            }
        )
    return made


def unschedulable(at: str, message: str) -> list[Json]:
    condition = {"type": "PodScheduled", "status": "False", "lastProbeTime": None}
    more = {"lastTransitionTime": at, "reason": "Unschedulable", "message": message}
    return [condition | more]


def scheduled(at: str) -> list[Json]:
    condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
    return [condition | {"lastTransitionTime": at}]


def container(spec: Json, state: Json, *, started: bool, ready: bool) -> Json:
    digest = hashlib.sha256(spec["image"].encode()).hexdigest()
    runs = "waiting" not in state
    named = spec["image"].partition("@")[2] or f"sha256:{digest}"
    return {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": image_id(spec["image"], named) if runs else "",
        **({"containerID": f"containerd://{digest[::-1]}"} if runs else {}),
        "state": state,
        "lastState": {},
        "ready": ready,
        "started": started,
        "restartCount": 0,
    }


def running(spec: Json, at: str, address: str, host: str, former: Json, *, started: bool) -> Json:
    """All containers run; `started`: those with a startup probe, too."""
    state = {"running": {"startedAt": at}}
    containers = []
    for each in spec["containers"]:
        up = started or not each.get("startupProbe")
        containers.append(container(each, state, started=up, ready=up))
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": at, "finishedAt": at}
    ready = "True" if all(each["ready"] for each in containers) else "False"
    status = {
        **former,
        "phase": "Running",
        "conditions": conditions(at, {"Ready": ready, "ContainersReady": ready}),
        "hostIP": host,
        "hostIPs": [{"ip": host}],
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": former.get("startTime", at),
        "containerStatuses": containers,
    }
    if spec.get("initContainers"):
        status["initContainerStatuses"] = [
            container(each, {"terminated": ended}, started=False, ready=True)
            for each in spec["initContainers"]
        ]
    return status


def waiting(
    spec: Json,
    at: str,
    host: str,
    former: Json,
    reasons: Mapping[str, tuple[str, str]],
    *,
    sandbox: bool = True,
) -> Json:
    """Some containers cannot begin: container → reason and message. Without a sandbox none can."""
    containers = []
    for each in spec["containers"]:
        reason, message = reasons.get(each["name"], ("ContainerCreating", ""))
        state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        containers.append(container(each, state, started=False, ready=False))
    off = {"Ready": "False", "ContainersReady": "False"}
    off |= {} if sandbox else {"PodReadyToStartContainers": "False"}
    return {
        **former,
        "phase": "Pending",
        "conditions": conditions(at, off, "ContainersNotReady"),
        "hostIP": host,
        "startTime": former.get("startTime", at),
        "containerStatuses": containers,
    }


def exited(status: Json, name: str, code: int, reason: str, at: str) -> Json:
    """One container has ended; with the last of them, the pod."""
    containers = []
    for each in status.get("containerStatuses", ()):
        if each["name"] == name and "terminated" not in each["state"]:
            began = each["state"].get("running", {}).get("startedAt", at)
            ended = {
                "exitCode": code,
                "reason": reason or ("Completed" if code == 0 else "Error"),
                "startedAt": began,
                "finishedAt": at,
            }
            each = {**each, "state": {"terminated": ended}, "started": False, "ready": False}
        containers.append(each)
    made = {**status, "containerStatuses": containers}
    off = {"Ready": "False", "ContainersReady": "False"}
    codes = [each["state"].get("terminated", {}).get("exitCode") for each in containers]
    if None in codes:
        made["conditions"] = conditions(at, off, "ContainersNotReady")
        return made
    made["phase"] = "Succeeded" if not any(codes) else "Failed"
    why = "PodCompleted" if made["phase"] == "Succeeded" else "PodFailed"
    made["conditions"] = conditions(at, off | {"PodReadyToStartContainers": "False"}, why)
    return made


def failed(status: Json, reason: str, message: str, at: str) -> Json:
    """All containers are killed, for a reason of the node's."""
    for each in status.get("containerStatuses", ()):
        status = exited(status, each["name"], 137, "", at)
    return {**status, "phase": "Failed", "reason": reason, "message": message}
