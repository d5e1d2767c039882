"""The garbage collector (pkg/controller/garbagecollector/garbagecollector.go of 1.34.2): an object
whose owners are all absent is deleted, also when it was born after they went; finalizers of
`Foreground` and `Orphan` are obeyed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmrunner_localclouds.kube import deletes
from vmrunner_localclouds.kube.api_error import Json
from vmrunner_localclouds.kube.controllers import Controller
from vmrunner_localclouds.kube.deletes import FOREGROUND, ORPHAN
from vmrunner_localclouds.kube.kinds import Kind
from vmrunner_localclouds.kube.store import Change

if TYPE_CHECKING:
    pass


class GarbageCollector(Controller):
    def _changed(self, change: Change) -> None:
        metadata = change.object["metadata"]
        uid = metadata["uid"]
        if change.type == "DELETED":
            for _, dependent in self._dependents(uid):
                self._look_soon(dependent["metadata"]["uid"])
            for owner in _owners(change.object):  # which may wait for its dependents
                self._look_soon(owner["uid"])
        elif metadata.get("ownerReferences") or "deletionTimestamp" in metadata:
            self._look_soon(uid)

    def _look_soon(self, uid: str) -> None:
        self.soon(lambda: self._look(uid))

    def _look(self, uid: str) -> None:
        """Attempt to delete one object: `attemptToDeleteItem`."""
        found = self._cloud.store.find(uid)
        if found is None:
            return
        kind, shown = found
        metadata = shown["metadata"]
        if "deletionTimestamp" in metadata:
            finalizers = metadata.get("finalizers") or ()
            if FOREGROUND in finalizers:
                self._foreground(kind, shown)
            elif ORPHAN in finalizers:
                self._orphan(kind, shown)
            return
        owners = _owners(shown)
        if not owners:
            return
        present = [owner for owner in owners if self._present(shown, owner)]
        waiting = [owner for owner in present if self._waits(owner)]
        solid = [owner for owner in present if owner not in waiting]
        if solid:
            if len(solid) < len(owners):
                self._write_owners(kind, shown, solid)
            return
        policy = "Foreground" if waiting and self._dependents(uid) else "Background"
        options = {"propagationPolicy": policy, "preconditions": {"uid": uid}}
        deletes.delete(self._cloud, kind, shown, options)

    def _foreground(self, kind: Kind, shown: Json) -> None:
        """Wait for those that block the owner's deletion, and only for those:
        `processDeletingDependentsItem`."""
        uid = shown["metadata"]["uid"]
        blocking = [
            dependent
            for _, dependent in self._dependents(uid)
            if any(o["uid"] == uid and o.get("blockOwnerDeletion") for o in _owners(dependent))
        ]
        if not blocking:
            self._remove_finalizer(kind, shown, FOREGROUND)
        for dependent in blocking:
            if "deletionTimestamp" not in dependent["metadata"]:
                self._look_soon(dependent["metadata"]["uid"])

    def _orphan(self, kind: Kind, shown: Json) -> None:
        uid = shown["metadata"]["uid"]
        for dependent_kind, dependent in self._dependents(uid):
            kept = [owner for owner in _owners(dependent) if owner["uid"] != uid]
            self._write_owners(dependent_kind, dependent, kept)
        self._remove_finalizer(kind, shown, ORPHAN)

    # --- within ---

    def _dependents(self, uid: str) -> list[tuple[Kind, Json]]:
        store = self._cloud.store
        return [store_find for each in store.dependents(uid) if (store_find := store.find(each))]

    def _present(self, shown: Json, owner: Json) -> bool:
        """True unless the API has no such object, or another one by that name: `isDangling`."""
        kind = self._cloud.kind_of(owner["apiVersion"], owner["kind"])
        if kind is None:
            return True  # its mapper does not know that kind: an error, and a later try
        namespace = shown["metadata"].get("namespace", "") if kind.namespaced else ""
        found = self._cloud.store.get(kind, namespace, owner["name"])
        return found is not None and found["metadata"]["uid"] == owner["uid"]

    def _waits(self, owner: Json) -> bool:
        found = self._cloud.store.find(owner["uid"])
        if found is None:
            return False
        metadata = found[1]["metadata"]
        return "deletionTimestamp" in metadata and FOREGROUND in (metadata.get("finalizers") or ())

    def _write_owners(self, kind: Kind, shown: Json, owners: list[Any]) -> None:
        metadata = {**shown["metadata"], "ownerReferences": owners}
        if not owners:
            del metadata["ownerReferences"]
        self._cloud.store.replace(kind, shown, {**shown, "metadata": metadata})

    def _remove_finalizer(self, kind: Kind, shown: Json, finalizer: str) -> None:
        self._cloud.remove_finalizer(kind, shown, finalizer)


def _owners(shown: Json) -> list[Json]:
    return list(shown["metadata"].get("ownerReferences") or ())
