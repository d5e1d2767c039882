"""The state of the API, as etcd keeps it: objects that are never changed but replaced, one revision
for all of them, and the changes since the last compaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from vmrunner_localclouds.kube.api_error import Json
from vmrunner_localclouds.kube.kinds import Kind

#: Revisions that a list over pages, or a watch, may go back to (kube-apiserver's
#: `--etcd-compaction-interval`, by default 5m).
COMPACTED_AFTER: Final = 300.0

Key = tuple[str, str]  # namespace, or "", and name


class Change(NamedTuple):
    """One write. `before`: the object that was replaced; None: there was none."""

    version: int
    type: str  # ADDED, MODIFIED or DELETED
    kind: Kind
    object: Json
    before: Json | None
    at: float


class Store:
    """All objects. Its caller holds the cloud's lock."""

    def __init__(self, now: Callable[[], float], changed: threading.Condition) -> None:
        self._now = now
        self._changed = changed
        self.version = 1000
        self.compacted = 0  # older revisions are not known any more
        self.changes: list[Change] = []
        self.listeners: list[Callable[[Change], None]] = []
        self._objects: dict[Kind, dict[Key, Json]] = {}
        self._snapshots: dict[tuple[int, Kind], list[Json]] = {}
        self._by_uid: dict[str, tuple[Kind, Key]] = {}
        self._dependents: dict[str, set[str]] = {}  # uid of an owner → uids

    def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        return self._objects.get(kind, {}).get((namespace, name))

    def all(self, kind: Kind, namespace: str = "") -> list[Json]:
        """All objects of a kind, of one namespace or of all, in etcd's order."""
        found = self._objects.get(kind, {})
        keys = (key for key in found if not namespace or key[0] == namespace)
        return [found[key] for key in sorted(keys)]

    def find(self, uid: str) -> tuple[Kind, Json] | None:
        """Find an object by its uid."""
        if uid not in self._by_uid:
            return None
        kind, key = self._by_uid[uid]
        return kind, self._objects[kind][key]

    def dependents(self, uid: str) -> list[str]:
        """Uids of all that name an object as an owner, there or not."""
        return sorted(self._dependents.get(uid, ()))

    def everything(self) -> list[tuple[Kind, Json]]:
        return [(kind, shown) for kind, found in self._objects.items() for shown in found.values()]

    def create(self, kind: Kind, shown: Json) -> Json:
        """Write a new object; returns it with its version."""
        return self._write("ADDED", kind, shown, None)

    def replace(self, kind: Kind, before: Json, shown: Json) -> Json:
        """Write a changed object. Nothing is written where nothing has changed (etcd3/store.go,
        `GuaranteedUpdate`)."""
        if _without_version(before) == _without_version(shown):
            return before
        return self._write("MODIFIED", kind, shown, before)

    def remove(self, kind: Kind, before: Json) -> Json:
        """Remove an object; returns its last state, with the version of its end."""
        return self._write("DELETED", kind, before, before)

    def since(self, version: int, kind: Kind) -> list[Change]:
        """The changes of a kind after a version."""
        first = len(self.changes)
        while first and self.changes[first - 1].version > version:
            first -= 1
        return [change for change in self.changes[first:] if change.kind is kind]

    def snapshot(self, kind: Kind) -> list[Json]:
        """All objects of a kind now, kept for later pages of a list."""
        found = self.all(kind)
        self._snapshots[self.version, kind] = found
        return found

    def at(self, version: int, kind: Kind) -> list[Json] | None:
        """All objects of a kind as they were for the first page; None: that is compacted."""
        self._forget()
        return self._snapshots.get((version, kind))

    def compact(self) -> None:
        """Forget all that was before now."""
        self.compacted = self.version
        self.changes.clear()
        self._snapshots.clear()
        self._changed.notify_all()

    # --- within ---

    def _write(self, type_: str, kind: Kind, shown: Json, before: Json | None) -> Json:
        self.version += 1
        shown = {**shown, "metadata": {**shown["metadata"], "resourceVersion": str(self.version)}}
        key, uid = key_of(shown), shown["metadata"]["uid"]
        if before is not None:
            for owner in before["metadata"].get("ownerReferences") or ():
                self._dependents[owner["uid"]].discard(uid)
        if type_ == "DELETED":
            del self._objects[kind][key]
            del self._by_uid[uid]
        else:
            self._objects.setdefault(kind, {})[key] = shown
            self._by_uid[uid] = kind, key
            for owner in shown["metadata"].get("ownerReferences") or ():
                self._dependents.setdefault(owner["uid"], set()).add(uid)
        change = Change(self.version, type_, kind, shown, before, self._now())
        self.changes.append(change)
        self._forget()
        for listener in self.listeners:
            listener(change)
        self._changed.notify_all()
        return shown

    def _forget(self) -> None:
        old = self._now() - COMPACTED_AFTER
        gone = 0
        while gone < len(self.changes) and self.changes[gone].at < old:
            self.compacted = self.changes[gone].version
            gone += 1
        if gone:
            del self.changes[:gone]
            self._snapshots = {
                key: found for key, found in self._snapshots.items() if key[0] >= self.compacted
            }


def key_of(shown: Mapping[str, Any]) -> Key:
    metadata = shown["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _without_version(shown: Json) -> Json:
    metadata = {**shown["metadata"]}
    metadata.pop("resourceVersion", None)
    metadata.pop("managedFields", None)
    return {**shown, "metadata": metadata}
