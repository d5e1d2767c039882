"""The states of pods and VMs in the core's words. Pure.

`Unknown`, and a pod whose node is gone, is alive: it is dead when the API shows its end, or when it
is not there any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from vmrunner.errors import BadOrder
from vmrunner.model import Address, ContainerEnd, Kind, Power, Reason, Ref, Scope, Seen
from vmrunner.providers.common.call_failed import one_line
from vmrunner.providers.kubernetes import error_codes, image_ids, unit_version
from vmrunner.providers.kubernetes.labels import instance_id

JSON = Mapping[str, Any]

#: What has no node for so long, in seconds, is no capacity.
PLACED_WITHIN: Final = 60.0
#: A container that waits for one of these has an image that cannot be had.
_NO_IMAGE: Final = frozenset(
    {
        "CreateContainerConfigError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RegistryUnavailable",
    }
)
#: KubeVirt's word for a VM whose node it gave up.
NODE_SILENT: Final = "NodeUnresponsive"
#: A container that waits for one of these, or ended by it, was never started.
_NO_START: Final = frozenset(
    {"ContainerCannotRun", "CreateContainerError", "RunContainerError", "StartError"}
)
#: Ends of a pod that are its node's or the scheduler's doing.
_TAKEN_BACK: Final = frozenset(
    {
        "Evicted",
        "NodeAffinity",
        "NodeLost",
        "NodeShutdown",
        "Preempting",
        "Shutdown",
        "Terminated",
        "UnexpectedAdmissionError",
    }
)
_PREEMPTING: Final = frozenset(
    {
        "DeletionByPodGC",
        "DeletionByTaintManager",
        "EvictionByEvictionAPI",
        "PreemptionByScheduler",
        "TerminationByKubelet",
    }
)
#: In an eviction's message: of all that the node has, not of what the pod may have.
_NODE_LOW: Final = "The node was low on resource"
#: The node took it and then had no room: another may.
_NO_ROOM: Final = ("OutOf", "UnexpectedAdmission")
OURS: Final = "vmrunner"  # the container beside the build
BUILD: Final = "build"
POD_HOST, VMI_HOST = "pods/", "virtualmachineinstances/"


class View(NamedTuple):
    """A life state, and why. `unfit`: it could not be started."""

    power: Power
    detail: str = ""
    preempted: bool = False
    self_ended: bool = False
    unfit: Reason | None = None
    address: Address | None = None


def pod_seen(scope: Scope, pod: JSON, now: float) -> Seen:
    """A pod that the API shows. `now`: the cluster's clock."""
    return _seen(scope, pod, pod_view(pod, now), _pinned(pod))


def vmi_seen(scope: Scope, vmi: JSON, now: float) -> Seen:
    """A VM that the API shows."""
    return _seen(scope, vmi, vmi_view(vmi, now))


def _seen(scope: Scope, shown: JSON, view: View, container: str | None = None) -> Seen:
    meta = shown["metadata"]
    return Seen(
        ref=Ref(scope, Kind.INSTANCE, instance_id(meta)),
        power=view.power,
        address=view.address,
        created_at=moment(meta.get("creationTimestamp")),
        detail=view.detail,
        preempted=view.preempted,
        self_ended=view.self_ended,
        unfit=view.unfit,
        container=container,
    )


def pod_view(pod: JSON, now: float) -> View:
    """The state of a pod."""
    status = pod.get("status") or {}
    phase = status.get("phase")
    if phase in ("Succeeded", "Failed"):
        return _ended_pod(status)
    lost, unstarted = _terminated(status, OURS), _unstarted(status)
    if pod["metadata"].get("deletionTimestamp"):
        return View(Power.STOPPING, "it is being deleted", preempted=_is_taken_back(status))
    if lost is not None:
        # Who follows the build is gone, and its log with it: it will not come back.
        return View(Power.STOPPING, f"vmrunner's own container ended: {_cause(lost)}")
    if unstarted is not None:
        return unstarted
    if phase == "Running" and _is_started(status):
        host = POD_HOST + str(pod["metadata"]["name"])
        return View(Power.RUNNING, address=Address(host))
    if phase == "Unknown":
        return View(Power.RUNNING, "its node does not answer", address=_pod_address(pod))
    return _pending(status, now)


def vmi_view(vmi: JSON, now: float) -> View:
    """The state of a VM."""
    status = vmi.get("status") or {}
    phase = status.get("phase")
    deleted = bool(vmi["metadata"].get("deletionTimestamp"))
    if phase == "Succeeded" and not deleted:
        return View(Power.DEAD, "the guest switched itself off", self_ended=True)
    if phase == "Failed" and status.get("reason") == NODE_SILENT and not deleted:
        # KubeVirt gives up its node, on which it may go on.
        return View(Power.RUNNING, "its node does not answer")
    if phase in ("Succeeded", "Failed"):
        return View(Power.DEAD, _words(status) or ("it was deleted" if deleted else "it failed"))
    if deleted:
        return View(Power.STOPPING, "it is being deleted")
    if phase in ("Running", "Unknown"):
        return _running_vmi(vmi, status, phase)
    return _pending(status, now)


def condition(status: JSON, kind: str) -> JSON:
    """A condition by its type; empty: there is none."""
    found = (c for c in status.get("conditions") or () if c.get("type") == kind)
    return next(found, {})


def container(status: JSON, name: str) -> JSON:
    """The status of a container; empty: there is none yet."""
    every: Sequence[JSON] = status.get("containerStatuses") or ()
    return next((status for status in every if status.get("name") == name), {})


def moment(text: object) -> float | None:
    """Epoch seconds of an API's time; None: there is none."""
    if not isinstance(text, str):
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def container_end(pod: JSON) -> ContainerEnd | None:
    """The end of a pod's build container, as its node saw it; None: it has not ended, nobody saw
    that, or it was ended with its pod, which tells nothing of the build."""
    status = pod.get("status") or {}
    ended = _terminated(status, BUILD)
    if ended is None or ended.get("exitCode") is None:
        return None
    with_its_pod = (
        pod["metadata"].get("deletionTimestamp")
        or status.get("reason")
        or condition(status, "DisruptionTarget").get("status") == "True"
        or _terminated(status, OURS) is not None
    )
    if with_its_pod and ended.get("reason") != "OOMKilled":
        return None
    signal = ended.get("signal")
    return ContainerEnd(
        exit_code=int(ended["exitCode"]),
        signal=int(signal) if signal else None,
        out_of_memory=ended.get("reason") == "OOMKilled",
        message=_cause(ended),
    )


# --- within ---


def _running_vmi(vmi: JSON, status: JSON, phase: str) -> View:
    addresses = [i.get("ipAddress") for i in status.get("interfaces") or ()]
    host = VMI_HOST + str(vmi["metadata"]["name"])
    address = Address(host) if any(addresses) else None
    if phase == "Unknown":
        return View(Power.RUNNING, "its node does not answer", address=address)
    return View(Power.RUNNING if address else Power.PENDING, address=address)


def _ended_pod(status: JSON) -> View:
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    detail = ": ".join(text for text in (reason, message) if text)
    if reason == "DeadlineExceeded":
        return View(Power.DEAD, "deadline")
    if reason == "Evicted" and "ephemeral" in message and _NODE_LOW not in message:
        return View(Power.DEAD, "disk_full")
    if reason.startswith(_NO_ROOM):
        return View(Power.DEAD, detail, unfit=Reason.NO_CAPACITY)
    if unit_version.is_old(_not_laid(status)):
        return View(Power.DEAD, unit_version.words(), unfit=Reason.IMAGE)
    taken = reason in _TAKEN_BACK or _is_taken_back(status)
    if not detail and status.get("phase") == "Failed":
        ended = _terminated(status, OURS) or _terminated(status, BUILD) or _not_laid(status)
        detail = _cause(ended) if ended else ""
    # Never `self_ended`: a build cannot end what is beside it, so that its end is not the build's.
    return View(Power.DEAD, detail, preempted=taken)


def _is_taken_back(status: JSON) -> bool:
    found = condition(status, "DisruptionTarget")
    return found.get("status") == "True" and found.get("reason") in _PREEMPTING


def _is_started(status: JSON) -> bool:
    """True if vmrunner's container runs: what `started` says of one without a startup probe."""
    ours = container(status, OURS)
    return bool(ours.get("started")) and "running" in (ours.get("state") or {})


def _terminated(status: JSON, name: str) -> JSON | None:
    """The end of a container; None: it has not ended."""
    found = (container(status, name).get("state") or {}).get("terminated")
    return found if found else None


def _not_laid(status: JSON) -> JSON | None:
    """The end of a container before the others that failed; None: none did."""
    for part in status.get("initContainerStatuses") or ():
        found: JSON | None = (part.get("state") or {}).get("terminated")
        if found and found.get("exitCode"):
            return found
    return None


def _unstarted(status: JSON) -> View | None:
    """The state of a pod whose build's container could not be started: nobody would ever read what
    its build is told. None: it could, or nobody has tried."""
    found = container(status, BUILD)
    state = found.get("state") or {}
    failed = next((s for s in state.values() if s and s.get("reason") in _NO_START), None)
    if failed is None:
        return None
    text, image = str(failed.get("message") or ""), found.get("image") or BUILD
    lower = text.lower()
    if "/bin/sh" in text and ("no such file" in lower or "not found" in lower):
        text = f"container image {image} has no /bin/sh, which steps need"
        return View(Power.STOPPING, text, unfit=Reason.IMAGE)
    text = f"container image {image} could not be started: {failed['reason']}: {text[:500]}"
    other = "exec format error" in text  # it is of another processor
    return View(Power.STOPPING, text, unfit=Reason.IMAGE if other else None)


def _pinned(pod: JSON) -> str | None:
    """The image of the build's container by its digest; None: that is not known."""
    every: Sequence[JSON] = (pod.get("spec") or {}).get("containers") or ()
    image = next((each.get("image") for each in every if each.get("name") == BUILD), None)
    found = container(pod.get("status") or {}, BUILD)
    return image_ids.pinned(str(image), str(found.get("imageID") or "")) if image else None


def _cause(ended: JSON) -> str:
    words = [str(ended.get("reason") or ""), str(ended.get("message") or "")]
    text = ": ".join(word for word in words if word)
    return f"{text or 'it ended'} (exit code {ended.get('exitCode')})"


def _pending(status: JSON, now: float) -> View:
    synchronized = condition(status, "Synchronized")
    if synchronized.get("reason") == "FailedCreate":
        return _unlaunched(synchronized, now)
    placed = condition(status, "PodScheduled")
    since = moment(placed.get("lastTransitionTime"))
    if placed.get("reason") == "Unschedulable" and since is not None:
        text = f"Unschedulable: {placed.get('message', '')}"
        late = now - since >= PLACED_WITHIN
        return View(Power.PENDING, text, unfit=Reason.NO_CAPACITY if late else None)
    every = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for part in every:
        waiting = (part.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _NO_IMAGE:
            text = f"{part.get('image', part.get('name'))}: {waiting['reason']}"
            message = str(waiting.get("message") or "")
            return View(Power.PENDING, f"{text}: {message}".rstrip(": "), unfit=Reason.IMAGE)
    return View(Power.PENDING, _words(status))


def _unlaunched(synchronized: JSON, now: float) -> View:
    """The state of a VM that KubeVirt took, and whose pod the cluster refuses: for good, where its
    admission does not let in what was ordered; else until there is room."""
    text = one_line(str(synchronized.get("message") or ""))
    line = error_codes.refused_child(text)
    if line is not None and line.error is BadOrder:
        hint = f" ({line.hint})" if line.hint else ""
        return View(Power.PENDING, text + hint, unfit=Reason.IMAGE)
    full = Reason.QUOTA if line is not None else Reason.NO_CAPACITY
    since = moment(synchronized.get("lastTransitionTime"))
    late = since is None or now - since >= PLACED_WITHIN
    return View(Power.PENDING, text, unfit=full if late else None)


def _words(status: JSON) -> str:
    words = (str(status.get("reason") or ""), str(status.get("message") or ""))
    return ": ".join(word for word in words if word)


def _pod_address(pod: JSON) -> Address | None:
    started = _is_started(pod.get("status") or {})
    return Address(POD_HOST + str(pod["metadata"]["name"])) if started else None
