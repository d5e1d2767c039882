"""Watches (apiserver pkg/storage/cacher, pkg/endpoints/handlers/watch.go of 1.34.2): changes of one
kind since a version, a line of JSON each, with bookmarks; what is too old is an ERROR event with a
410 in it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.kube import reads
from vmrunner_localclouds.kube.api_error import Json, status_document
from vmrunner_localclouds.kube.kinds import Kind
from vmrunner_localclouds.kube.requests import KubeRequest
from vmrunner_localclouds.kube.store import Change

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

#: `--min-request-timeout`: a watch that names no time lives at least so long.
_LIFE: Final = 1800.0
#: Seconds between bookmarks: storage/cacher/cacher.go, `defaultBookmarkFrequency`.
_BOOKMARK: Final = 60.0
_TICK: Final = 0.05


class Watch:
    """One watch. `shape`: an object as the client wants to see it."""

    def __init__(
        self, cloud: LocalKube, kind: Kind, request: KubeRequest, shape: Callable[[Json], Json]
    ) -> None:
        """Raises `KubeRefusal` for selectors that cannot be read."""
        self._cloud = cloud
        self._kind = kind
        self._shape = shape
        self._match = reads.matcher(kind, request)
        self._namespace = request.namespace if kind.namespaced else ""
        self._bookmarks = request.flag("allowWatchBookmarks")
        self._initial = request.flag("sendInitialEvents")
        self._since = request.number("resourceVersion") or 0
        self._ends = cloud.now() + (request.number("timeoutSeconds") or _LIFE)
        self._bookmarked = cloud.now()
        self._cut = threading.Event()

    def cut(self) -> None:
        """Break the connection off."""
        self._cut.set()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        events, ended = self._first(), False
        while not self._cut.is_set():
            for event in events:
                _write(handler, (json.dumps(event) + "\n").encode())
            handler.wfile.flush()
            if ended:
                handler.wfile.write(b"0\r\n\r\n")
                return
            events, ended = self._next()

    # --- within ---

    def _first(self) -> list[Json]:
        cloud = self._cloud
        with cloud.held():
            store = cloud.store
            if self._since and not self._initial:
                if self._since < store.compacted:
                    text = f"too old resource version: {self._since} ({store.compacted})"
                    self._ends = 0.0
                    return [{"type": "ERROR", "object": status_document(410, "Expired", text)}]
                return []
            found = [
                {"type": "ADDED", "object": self._shape(shown)}
                for shown in store.all(self._kind, self._namespace)
                if self._match(shown)
            ]
            self._since = store.version
            if self._initial:
                found.append(self._bookmark({"k8s.io/initial-events-end": "true"}))
            return found

    def _next(self) -> tuple[list[Json], bool]:
        """The next events, and True with the last ones."""
        cloud = self._cloud
        cloud.settle()
        with cloud.changed:
            changes = cloud.store.since(self._since, self._kind)
            if not changes and cloud.now() < self._ends:
                cloud.changed.wait(_TICK)
                changes = cloud.store.since(self._since, self._kind)
            found = [event for change in changes if (event := self._event(change))]
            self._since = max(self._since, cloud.store.version)
            ended = cloud.now() >= self._ends
            due = cloud.now() - self._bookmarked >= _BOOKMARK
            if self._bookmarks and (due or (ended and self._ends)):
                self._bookmarked = cloud.now()
                found.append(self._bookmark({}))
            return found, ended

    def _event(self, change: Change) -> Json | None:
        metadata = change.object["metadata"]
        if self._namespace and metadata.get("namespace") != self._namespace:
            return None
        was = change.before is not None and self._match(change.before)
        now = change.type != "DELETED" and self._match(change.object)
        if not was and not now:
            return None
        kind = "MODIFIED" if was and now else "ADDED" if now else "DELETED"
        return {"type": kind, "object": self._shape(change.object)}

    def _bookmark(self, annotations: dict[str, str]) -> Json:
        metadata: Json = {"resourceVersion": str(self._since), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        shown = {"kind": self._kind.kind, "apiVersion": self._kind.group_version}
        return {"type": "BOOKMARK", "object": shown | {"metadata": metadata}}


def _write(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
