"""Namespaces: a default account in each, and an end of all that is in one that is deleted
(pkg/controller/namespace/deletion/namespaced_resources_deleter.go of 1.34.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.kube import security_admission
from vmrunner_localclouds.kube.api_error import Cause, Json
from vmrunner_localclouds.kube.controllers import Controller
from vmrunner_localclouds.kube.kinds import NAMESPACES, SERVICE_ACCOUNTS
from vmrunner_localclouds.kube.store import Change
from vmrunner_localclouds.kube.strategies import Strategy

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

_HOLDS: Final = "kubernetes"


class NamespaceStrategy(Strategy):
    def fill(self, _: LocalKube, shown: Json) -> None:
        labels = shown["metadata"].get("labels") or {}
        name = shown["metadata"]["name"]
        shown["metadata"]["labels"] = labels | {"kubernetes.io/metadata.name": name}
        shown["spec"] = {"finalizers": [_HOLDS]}
        shown["status"] = {"phase": "Active"}

    def problems(self, shown: Json) -> list[Cause]:
        return security_admission.problems(shown["metadata"].get("labels") or {})


class NamespaceController(Controller):
    def _changed(self, change: Change) -> None:
        metadata = change.object["metadata"]
        if change.kind is NAMESPACES and change.type == "ADDED":
            self._cloud.add_object(
                SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, metadata["name"]
            )
        elif change.kind is NAMESPACES and "deletionTimestamp" in metadata:
            if change.type == "MODIFIED":
                self.soon(lambda: self._empty(metadata["name"]))
        elif change.type == "DELETED" and (namespace := metadata.get("namespace")):
            found = self._cloud.store.get(NAMESPACES, "", namespace)
            if found is not None and "deletionTimestamp" in found["metadata"]:
                self.soon(lambda: self._empty(namespace))

    def _empty(self, name: str) -> None:
        cloud = self._cloud
        found = cloud.store.get(NAMESPACES, "", name)
        if found is None or "deletionTimestamp" not in found["metadata"]:
            return
        inside = [
            (kind, shown)
            for kind, shown in cloud.store.everything()
            if shown["metadata"].get("namespace") == name
        ]
        for kind, shown in inside:
            current = cloud.store.find(shown["metadata"]["uid"])
            if current is not None and "deletionTimestamp" not in current[1]["metadata"]:
                cloud.delete(kind, current[1])
        if any(shown["metadata"].get("namespace") == name for _, shown in cloud.store.everything()):
            return
        current_namespace = cloud.store.get(NAMESPACES, "", name)
        if current_namespace is not None:
            spec: Json = {"finalizers": []}
            written = cloud.store.replace(
                NAMESPACES, current_namespace, {**current_namespace, "spec": spec}
            )
            cloud.collect(NAMESPACES, written)
