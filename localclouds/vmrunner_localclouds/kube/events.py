"""Events: what controllers tell about an object, for an hour."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.kube import timestamps
from vmrunner_localclouds.kube.api_error import Json
from vmrunner_localclouds.kube.kinds import EVENTS

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

#: kube-apiserver's `--event-ttl`.
KEPT: Final = 3600.0


def tell(
    cloud: LocalKube, shown: Json, reason: str, message: str, component: str, *, bad: bool = False
) -> Json:
    """Tell of an object; the event."""
    metadata = shown["metadata"]
    now = timestamps.written(cloud.now())
    name = f"{metadata['name']}.{secrets.token_hex(8)}"
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": name,
            "namespace": metadata.get("namespace", "default"),
            "uid": cloud.new_uid(),
            "creationTimestamp": now,
        },
        "involvedObject": {
            "apiVersion": shown["apiVersion"],
            "kind": shown["kind"],
            "name": metadata["name"],
            "namespace": metadata.get("namespace", ""),
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "reason": reason,
        "message": message,
        "type": "Warning" if bad else "Normal",
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": "",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    cloud.later(KEPT, lambda: _forget(cloud, event))
    return cloud.store.create(EVENTS, event)


def repeat(cloud: LocalKube, event: Json) -> None:
    """Count an event once more (client-go tools/record, `EventCorrelator`)."""
    metadata = event["metadata"]
    found = cloud.store.get(EVENTS, metadata["namespace"], metadata["name"])
    if found is not None:
        now = timestamps.written(cloud.now())
        more = {"count": found["count"] + 1, "lastTimestamp": now}
        cloud.store.replace(EVENTS, found, {**found, **more})


def _forget(cloud: LocalKube, event: Json) -> None:
    metadata = event["metadata"]
    found = cloud.store.get(EVENTS, metadata["namespace"], metadata["name"])
    if found is not None:
        cloud.store.remove(EVENTS, found)
