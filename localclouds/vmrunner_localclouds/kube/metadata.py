"""Rules for the metadata of every object (apimachinery pkg/api/validation/objectmeta.go)."""

from __future__ import annotations

import random
import re
import uuid
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.kube import selectors, timestamps
from vmrunner_localclouds.kube.api_error import Cause, Json, banned, missing, too_long, wrong
from vmrunner_localclouds.kube.kinds import NAMESPACES, Kind
from vmrunner_localclouds.kube.vendor_limits import limit

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NO_SUBDOMAIN: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    r"for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_SEGMENTS: Final = "rbac.authorization.k8s.io"
#: Letters of a generated name (apimachinery pkg/util/rand/rand.go).
_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
#: Fields of the server's own, which no client sets.
_SYSTEM: Final = ("uid", "creationTimestamp", "generation", "resourceVersion", "selfLink")


def begin(cloud: LocalKube, kind: Kind, shown: Json) -> None:
    """Fill in a new object's metadata (registry/rest/create.go, `BeforeCreate`)."""
    metadata: Json = shown["metadata"]
    for field in (*_SYSTEM, "deletionTimestamp", "deletionGracePeriodSeconds"):
        metadata.pop(field, None)
    if not metadata.get("name") and metadata.get("generateName"):
        tail = "".join(random.choices(_LETTERS, k=5))  # noqa: S311
        metadata["name"] = metadata["generateName"][:58] + tail
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = timestamps.written(cloud.now())
    if "spec" in shown and kind is not NAMESPACES:
        metadata["generation"] = 1


def keep(before: Json, shown: Json) -> None:
    """Give a changed object the fields that only the server sets."""
    metadata, former = shown["metadata"], before["metadata"]
    for field in (*_SYSTEM, "deletionTimestamp", "deletionGracePeriodSeconds"):
        metadata.pop(field, None)
        if field in former:
            metadata[field] = former[field]
    if shown.get("spec") != before.get("spec") and "generation" in metadata:
        metadata["generation"] += 1


def problems(kind: Kind, shown: Json) -> list[Cause]:
    metadata: Json = shown["metadata"]
    found = list(_name(kind, metadata))
    for field in ("labels", "annotations"):
        for key, value in (metadata.get(field) or {}).items():
            if why := selectors.key_problem(key):
                found.append(wrong(f"metadata.{field}", key, why))
            elif field == "labels" and (why := selectors.value_problem(value)):
                found.append(wrong("metadata.labels", value, why))
    if size_of(metadata.get("annotations") or {}) > limit("bytes of all annotations"):
        found.append(too_long("metadata.annotations", limit("bytes of all annotations")))
    for number, owner in enumerate(metadata.get("ownerReferences") or ()):
        found += _owner(owner, f"metadata.ownerReferences[{number}]")
    return found


def update_problems(before: Json, shown: Json) -> list[Cause]:
    former, metadata = before["metadata"], shown["metadata"]
    more = set(metadata.get("finalizers") or ()) - set(former.get("finalizers") or ())
    if "deletionTimestamp" in former and more:
        why = "no new finalizers can be added if the object is being deleted, found new finalizers"
        return [banned("metadata.finalizers", f"{why} {sorted(more)}")]
    return []


def size_of(values: dict[str, Any]) -> int:
    return sum(len(key.encode()) + len(str(value).encode()) for key, value in values.items())


def _name(kind: Kind, metadata: Json) -> list[Cause]:
    name = metadata.get("name")
    if not name:
        return [missing("metadata.name", "name or generateName is required")]
    if kind.group == _SEGMENTS:
        bad = name in (".", "..") or "/" in name or "%" in name
        return [wrong("metadata.name", name, "may not contain '/' or '%'")] if bad else []
    label = kind is NAMESPACES
    most = limit("characters of a namespace's name" if label else "characters of a name")
    if len(name) > most:
        return [wrong("metadata.name", name, f"must be no more than {most:.0f} characters")]
    if not _SUBDOMAIN.fullmatch(name) or (label and "." in name):
        return [wrong("metadata.name", name, _NO_SUBDOMAIN)]
    return []


def _owner(owner: Json, path: str) -> list[Cause]:
    return [
        missing(f"{path}.{field}", "must not be empty")
        for field in ("apiVersion", "kind", "name", "uid")
        if not owner.get(field)
    ]
