"""A pod's status, as a kubelet writes it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def image_id(image: str, digest: str) -> str:
    """An `imageID`, as containerd tells it: registry and repository in full, without a tag."""
    head, slash, last = image.partition("@")[0].rpartition("/")
    name = f"{head}{slash}{last.partition(':')[0]}"
    # As https://github.com/distribution/reference normalizes names (1 December 2026).
    domain, slash, path = name.partition("/")
    if not slash or (not set(".:") & set(domain) and domain != "localhost"):
        domain, path = "docker.io", name
    if domain == "index.docker.io":
        domain = "docker.io"
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return f"{domain}/{path}@{digest}"


@dataclass
class ContainerState:
    """State of one container so far."""

    name: str
    image: str
    id: str = ""
    digest: str = ""
    waiting: tuple[str, str] = ("ContainerCreating", "")  # reason, message
    began: float | None = None
    ended: float | None = None
    code: int = 0
    reason: str = ""
    message: str = ""
    started: bool = False  # its startup probe has succeeded

    def end(self, code: int, now: float, *, reason: str = "", message: str = "") -> None:
        self.ended, self.code, self.message = now, code, message
        self.reason = reason or ("Error" if code else "Completed")
        self.started = False

    @property
    def running(self) -> bool:
        return self.began is not None and self.ended is None

    def document(self, *, init: bool = False) -> Document:
        """A `ContainerStatus`."""
        completed = self.ended is not None and not self.code
        return {
            "name": self.name,
            "image": self.image,
            "imageID": image_id(self.image, self.digest) if self.digest else "",
            **({"containerID": f"containerd://{self.id}"} if self.began is not None else {}),
            "restartCount": 0,
            "started": self.started,
            "ready": completed if init else self.running and self.started,
            "state": self._state(),
            "lastState": {},
        }

    def _state(self) -> Document:
        if self.ended is not None:
            signal = {"signal": self.code - 128} if self.code > 128 else {}
            message = {"message": self.message} if self.message else {}
            return {
                "terminated": {
                    "exitCode": self.code,
                    **signal,
                    "reason": self.reason,
                    **message,
                    "startedAt": moment(self.began or self.ended),
                    "finishedAt": moment(self.ended),
                    "containerID": f"containerd://{self.id}",
                }
            }
        if self.began is not None:
            return {"running": {"startedAt": moment(self.began)}}
        reason, message_text = self.waiting
        return {
            "waiting": {"reason": reason, **({"message": message_text} if message_text else {})}
        }


@dataclass
class PodState:
    """State of a pod so far."""

    created: float
    inits: Sequence[ContainerState]
    containers: Sequence[ContainerState]
    address: str = ""
    reason: str = ""
    message: str = ""
    conditions: dict[str, tuple[bool, float]] = field(default_factory=dict)

    def phase(self) -> str:
        if self.reason:
            return "Failed"
        if any(state.ended is not None and state.code for state in self.inits):
            return "Failed"
        if all(state.ended is not None for state in self.containers):
            return "Failed" if any(state.code for state in self.containers) else "Succeeded"
        begun = [s.began is not None or s.ended is not None for s in self.containers]
        return "Running" if all(begun) else "Pending"

    def document(self, now: float) -> Document:
        """A `PodStatus`."""
        phase = self.phase()
        initialized = all(s.ended is not None and not s.code for s in self.inits)
        ready = all(s.running and s.started for s in self.containers)
        truths = {"PodScheduled": True, "Initialized": initialized}
        truths |= {"ContainersReady": ready, "Ready": ready}
        why = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase)
        conditions = []
        for name, true in truths.items():
            if self.conditions.get(name, (None, 0.0))[0] is not true:
                self.conditions[name] = true, now
            reason = {"reason": why or "ContainersNotReady"} if not true else {}
            conditions.append(
                {
                    "type": name,
                    "status": "True" if true else "False",
                    "lastProbeTime": None,
                    "lastTransitionTime": moment(self.conditions[name][1]),
                    **reason,
                }
            )
        document: Document = {
            "phase": phase,
            "conditions": conditions,
            "startTime": moment(self.created),
            "containerStatuses": [state.document() for state in self.containers],
            "qosClass": "Burstable",
        }
        if self.inits:
            document["initContainerStatuses"] = [s.document(init=True) for s in self.inits]
        if self.address:
            document |= {"podIP": self.address, "podIPs": [{"ip": self.address}]}
        if self.reason:
            document |= {"reason": self.reason, "message": self.message}
        return document
