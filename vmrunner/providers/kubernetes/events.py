"""Reasons why a pod has no place to run in on its node: the API tells of them by an event alone, as
where the node does not have the pod's runtime class. They are asked for once the pod has waited
long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from vmrunner.model import Power, Seen
from vmrunner.providers.common.call_failed import CallFailed, one_line
from vmrunner.providers.kubernetes.client import PODS, VMIS, ApiKind, KubeClient
from vmrunner.providers.kubernetes.labels import PREFIX
from vmrunner.providers.kubernetes.states import condition, moment

JSON = Mapping[str, Any]

EVENTS: Final = ApiKind("", "v1", "events")
#: What has a node for so long, in seconds, and no place there, is not waited for any longer.
SANDBOX_WITHIN: Final = 120.0
#: Seconds until the same one's events are asked for again.
ASK_AGAIN_AFTER: Final = 30.0
_NO_SANDBOX: Final = "FailedCreatePodSandBox"
_NO_RUNTIME: Final = "no runtime for"
_FIX: Final = "let node_selector, or the RuntimeClass's scheduling, choose nodes that have it"
_LAUNCHER: Final = "kubevirt.io=virt-launcher,{prefix}instance={name}"


class SandboxWatch:
    """Asks for the words of what waits. `now`: the cluster's time. Thread-safe."""

    def __init__(self, client: KubeClient, now: Callable[[], float]) -> None:
        self._client = client
        self._now = now
        self._latest: dict[str, float] = {}  # when each uid was asked for

    def explained(self, kind: ApiKind, item: JSON, seen: Seen) -> Seen:
        """The same, or one that will not come up, with the reason. Without the right to list
        events, or where they cannot be had, nothing is concluded."""
        now, since = self._now(), seen.created_at
        waits = seen.power is Power.PENDING and seen.unfit is None
        if (
            not waits
            or since is None
            or now - since < SANDBOX_WITHIN
            or not self._is_due(item, now)
        ):
            return seen
        try:
            pod = self._launcher(item) if kind.plural == VMIS.plural else item
            words = refusal(self._client, pod) if pod and has_no_sandbox(pod, now) else ""
        except CallFailed:
            return seen
        return replace(seen, power=Power.STOPPING, detail=words) if words else seen

    # --- within ---

    def _is_due(self, item: JSON, now: float) -> bool:
        uid = str(item["metadata"]["uid"])
        if now - self._latest.get(uid, float("-inf")) < ASK_AGAIN_AFTER:
            return False
        kept = {each: at for each, at in list(self._latest.items()) if now - at < ASK_AGAIN_AFTER}
        self._latest = {**kept, uid: now}
        return True

    def _launcher(self, vmi: JSON) -> JSON | None:
        selector = _LAUNCHER.format(prefix=PREFIX, name=vmi["metadata"]["name"])
        found = self._client.page(PODS, labelSelector=selector).get("items") or ()
        return next(iter(found), None)


def has_no_sandbox(pod: JSON, now: float) -> bool:
    """True if a pod has its node for a while, whose kubelet says that no container of it could
    begin. One that does not say so (before 1.29) may pull an image, after an event of long ago."""
    status = pod.get("status") or {}
    placed = condition(status, "PodScheduled")
    since = moment(placed.get("lastTransitionTime"))
    if status.get("phase") != "Pending" or placed.get("status") != "True" or since is None:
        return False
    none = condition(status, "PodReadyToStartContainers").get("status") == "False"
    return none and now - since >= SANDBOX_WITHIN


def refusal(client: KubeClient, pod: JSON) -> str:
    """The latest words of a node that makes no sandbox for a pod, with the fix where there is one;
    "": it says nothing. Raises `CallFailed`."""
    selector = f"involvedObject.uid={pod['metadata']['uid']},reason={_NO_SANDBOX}"
    found = client.page(EVENTS, fieldSelector=selector).get("items") or ()
    latest = max(found, key=lambda event: str(event.get("lastTimestamp") or ""), default=None)
    if latest is None:
        return ""
    text = one_line(str(latest.get("message") or _NO_SANDBOX))
    return f"{text} ({_FIX})" if _NO_RUNTIME in text else text
