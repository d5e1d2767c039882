"""CustomResourceDefinitions: each makes its kind known, with its own schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.kube import timestamps
from vmrunner_localclouds.kube.api_error import Json
from vmrunner_localclouds.kube.kinds import DEFINITIONS, Kind
from vmrunner_localclouds.kube.store import Change

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

#: Fields that every object has, whatever its definition says.
_COMMON: Final[Json] = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
}


class DefinitionController:
    """Keeps the list of kinds (apiextensions-apiserver pkg/controller)."""

    def __init__(self, cloud: LocalKube) -> None:
        self._cloud = cloud
        cloud.store.listeners.append(self._changed)

    def _changed(self, change: Change) -> None:
        if change.kind is not DEFINITIONS:
            return
        for kind, schema in _kinds(change.object):
            place = kind.group, kind.version, kind.plural
            if change.type == "DELETED":
                self._cloud.kinds.pop(place, None)
            elif place not in self._cloud.kinds:
                self._cloud.kinds[place] = kind
                if kind.schema:
                    self._cloud.schemas.add(kind.schema, schema)
        if change.type == "ADDED":
            uid = change.object["metadata"]["uid"]
            self._cloud.later(0.0, lambda: self._establish(uid))

    def _establish(self, uid: str) -> None:
        found = self._cloud.store.find(uid)
        if found is None:
            return
        at = timestamps.written(self._cloud.now())
        shown = found[1]
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": at, "reason": "", "message": ""}
            for kind in ("NamesAccepted", "Established")
        ]
        names = shown["spec"]["names"]
        versions = [each["name"] for each in shown["spec"]["versions"] if each["storage"]]
        status = {"conditions": conditions, "acceptedNames": names, "storedVersions": versions}
        self._cloud.store.replace(DEFINITIONS, shown, {**shown, "status": status})


def _kinds(definition: Json) -> list[tuple[Kind, Json]]:
    spec = definition["spec"]
    names = spec["names"]
    found = []
    for version in spec["versions"]:
        if not version["served"]:
            continue
        published = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        free = published.get("x-kubernetes-preserve-unknown-fields") or not published
        schema = {**published, "properties": {**published.get("properties", {}), **_COMMON}}
        kind = Kind(
            kind=names["kind"],
            plural=names["plural"],
            group=spec["group"],
            version=version["name"],
            schema="" if free else f"{spec['group']}/{version['name']}/{names['kind']}",
            namespaced=spec["scope"] == "Namespaced",
            short=tuple(names.get("shortNames") or ()),
            subresources=("status",) if "status" in (version.get("subresources") or {}) else (),
            custom=True,
        )
        found.append((kind, schema))
    return found
