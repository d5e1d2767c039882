"""Objects as a sweep shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vmrunner.model import Kind, Power, Ref, Resource, Scope
from vmrunner.providers.kubernetes.client import ApiKind
from vmrunner.providers.kubernetes.describe import seen_of
from vmrunner.providers.kubernetes.labels import job_owner, tags
from vmrunner.providers.kubernetes.states import moment

JSON = Mapping[str, Any]


def instance(kind: ApiKind, scope: Scope, item: JSON, now: float) -> Resource | None:
    """A VM or pod; None: it is dead, or what KubeVirt runs a VM in."""
    meta = item["metadata"]
    if any(o.get("kind") == "VirtualMachineInstance" for o in meta.get("ownerReferences") or ()):
        return None
    seen = seen_of(kind, scope, item, now)
    if seen.power is Power.DEAD:
        return None
    return Resource(
        ref=seen.ref, power=seen.power, created_at=seen.created_at, tags=_tags(meta), parent=None
    )


def job(scope: Scope, item: JSON) -> Resource | None:
    """The deadline of a VM or pod, which it is the Job of."""
    meta = item["metadata"]
    parent = Ref(scope, Kind.INSTANCE, f"{meta['name']}/{meta['uid']}")
    return _child(scope, Kind.SCHEDULE, meta, parent)


def owned(kind: Kind, scope: Scope, item: JSON) -> Resource | None:
    """A secret or volume, which hangs on what its Job is of."""
    meta = item["metadata"]
    uid = job_owner(meta)
    parent = None if uid is None else Ref(scope, Kind.INSTANCE, f"{meta['name']}/{uid}")
    return _child(scope, kind, meta, parent)


def _child(scope: Scope, kind: Kind, meta: JSON, parent: Ref | None) -> Resource:
    dying = bool(meta.get("deletionTimestamp"))
    return Resource(
        ref=Ref(scope, kind, f"{meta['name']}/{meta['uid']}"),
        power=Power.STOPPING if dying else Power.RUNNING,
        created_at=moment(meta.get("creationTimestamp")),
        tags=_tags(meta),
        parent=parent,
    )


def _tags(meta: JSON) -> dict[str, str]:
    return tags(meta.get("labels") or {})
