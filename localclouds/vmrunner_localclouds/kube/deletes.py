"""Deletes (apiserver pkg/registry/rest/delete.go and pkg/registry/generic/registry/store.go of
1.34.2): preconditions, grace, finalizers, and the fate of dependents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.kube import timestamps
from vmrunner_localclouds.kube.api_error import Json, bad_request, conflict
from vmrunner_localclouds.kube.kinds import NAMESPACES, Kind

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"
_POLICIES: Final = ("Background", "Foreground", "Orphan")


def delete(cloud: LocalKube, kind: Kind, before: Json, options: Mapping[str, Any]) -> Json | None:
    """Delete an object, or mark it as deleted where somebody must act before it goes. Returns it as
    it is then; None: it is gone. Raises `KubeRefusal`."""
    check(kind, before, options)
    shown = {**before, "metadata": {**before["metadata"]}}
    metadata: Json = shown["metadata"]
    finalizers = _finalizers(cloud, kind, before, options)
    if kind is NAMESPACES:
        shown["status"] = {**shown.get("status", {}), "phase": "Terminating"}
    held = bool(finalizers) or (kind is NAMESPACES and bool(shown["spec"].get("finalizers")))
    grace = _grace(cloud, kind, before, options)
    if not grace and not held:
        cloud.store.remove(kind, before)
        return None
    _set(metadata, "finalizers", finalizers)
    was = metadata.get("deletionGracePeriodSeconds")
    if "deletionTimestamp" not in metadata:
        metadata["deletionTimestamp"] = timestamps.written(cloud.now() + (grace or 0))
        metadata["deletionGracePeriodSeconds"] = grace or 0
        if "generation" in metadata:
            metadata["generation"] += 1
    elif grace is not None and was is not None and grace < was:
        due = timestamps.read(metadata["deletionTimestamp"]) - was + grace
        metadata["deletionTimestamp"] = timestamps.written(due)
        metadata["deletionGracePeriodSeconds"] = grace
    return cloud.store.replace(kind, before, shown)


def check(kind: Kind, before: Json, options: Mapping[str, Any]) -> None:
    """Raises `KubeRefusal` where preconditions do not hold, or options contradict."""
    policy = options.get("propagationPolicy")
    if policy is not None and options.get("orphanDependents") is not None:
        raise bad_request("orphanDependents and deletionPropagation cannot be both set")
    if policy is not None and policy not in _POLICIES:
        raise bad_request(f'propagationPolicy: Unsupported value: "{policy}"')
    metadata = before["metadata"]
    wanted = options.get("preconditions") or {}
    if (uid := wanted.get("uid")) is not None and uid != metadata["uid"]:
        text = f"the UID in the precondition ({uid}) does not match the UID in record"
        text += f" ({metadata['uid']}). The object might have been deleted and then recreated"
        raise conflict(kind.resource, metadata["name"], text)
    version = wanted.get("resourceVersion")
    if version is not None and version != metadata["resourceVersion"]:
        text = f"the ResourceVersion in the precondition ({version}) does not match the"
        text += f" ResourceVersion in record ({metadata['resourceVersion']}). The object might have"
        raise conflict(kind.resource, metadata["name"], text + " been modified")


def collect(cloud: LocalKube, kind: Kind, shown: Json) -> None:
    """Remove what waits for nothing any more: deleted, no finalizer, no grace."""
    metadata = shown["metadata"]
    held = kind is NAMESPACES and shown["spec"].get("finalizers")
    if (
        "deletionTimestamp" in metadata
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not held
    ):
        cloud.store.remove(kind, shown)


def _finalizers(
    cloud: LocalKube, kind: Kind, before: Json, options: Mapping[str, Any]
) -> list[str]:
    """Finalizers after `deletionFinalizersForGarbageCollection`: the policy's own is added."""
    kept = list(before["metadata"].get("finalizers") or ())
    policy = options.get("propagationPolicy")
    orphans = options.get("orphanDependents")
    if orphans is not None:
        policy = "Orphan" if orphans else "Background"
    if policy is None:
        if ORPHAN in kept or FOREGROUND in kept:
            return kept
        policy = "Orphan" if cloud.strategy(kind).orphans_by_default else "Background"
    kept = [each for each in kept if each not in (ORPHAN, FOREGROUND)]
    added = {"Orphan": [ORPHAN], "Foreground": [FOREGROUND]}.get(policy, [])
    return kept + added


def _grace(cloud: LocalKube, kind: Kind, before: Json, options: Mapping[str, Any]) -> int | None:
    """Seconds of grace that this delete leaves; None: the kind has none."""
    wanted = options.get("gracePeriodSeconds")
    period = cloud.strategy(kind).grace(before, wanted)
    former: int | None = before["metadata"].get("deletionGracePeriodSeconds")
    if period is None or former is None:
        return period
    return former if wanted is None else min(period, former)


def _set(metadata: Json, key: str, value: list[str]) -> None:
    if value:
        metadata[key] = value
    else:
        metadata.pop(key, None)
