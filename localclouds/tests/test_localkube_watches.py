"""Watches and views of the local Kubernetes. Sources are of kubernetes 1.34.2."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.support.kube import KubeApi, pod, secret
from tests.support.kube import kube as kube  # the fixture


class Events:
    """Events of one watch."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response

    def next(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._response.readline())
        return found

    def names(self, count: int) -> list[tuple[str, str]]:
        found = [self.next() for _ in range(count)]
        return [(each["type"], each["object"]["metadata"]["name"]) for each in found]

    @property
    def ended(self) -> bool:
        return self._response.readline() == b""


@contextmanager
def watching(kube: KubeApi, resource: str, **query: Any) -> Iterator[Events]:
    tls = ssl.create_default_context(
        cadata=kube.authority.decode() if kube.authority is not None else None
    )
    connection = HTTPSConnection(urlsplit(kube.url).netloc, context=tls, timeout=30)
    path = f"{kube.path(resource)}?{urlencode({'watch': 'true', **query})}"
    connection.request("GET", path, headers={"Authorization": f"Bearer {kube.token}"})
    response = connection.getresponse()
    try:
        assert response.status == 200
        yield Events(response)
    finally:
        response.close()
        connection.close()


def test_a_watch_goes_on_from_a_version(kube: KubeApi) -> None:
    """kubernetes.io, API concepts, "Efficient detection of changes"."""
    kube.create(secret("a"))
    version = kube.list("secrets").body["metadata"]["resourceVersion"]
    kube.create(secret("b"))
    with watching(kube, "secrets", resourceVersion=version) as events:
        kube.patch("secrets", "a", {"metadata": {"labels": {"x": "y"}}})
        kube.delete("secrets", "b")
        assert events.names(3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]


def test_a_watch_without_a_version_begins_with_all(kube: KubeApi) -> None:
    """The same page: "Get State and Start at Any/Most Recent"."""
    for name in ("a", "b"):
        kube.create(secret(name))
    with watching(kube, "secrets") as events:
        assert sorted(events.names(2)) == [("ADDED", "a"), ("ADDED", "b")]


def test_who_leaves_a_selector_is_deleted_to_the_watcher(kube: KubeApi) -> None:
    """apiserver storage/cacher/cache_watcher.go `convertToWatchEvent`."""
    version = kube.list("secrets").body["metadata"]["resourceVersion"]
    query = {"labelSelector": "x=y", "resourceVersion": version}
    with watching(kube, "secrets", **query) as events:
        kube.create(secret("a"))
        kube.patch("secrets", "a", {"metadata": {"labels": {"x": "y"}}})
        kube.patch("secrets", "a", {"metadata": {"labels": {"x": "z"}}})
        assert events.names(2) == [("ADDED", "a"), ("DELETED", "a")]


def test_initial_events_end_with_a_bookmark(kube: KubeApi) -> None:
    """kubernetes.io, API concepts, "Streaming lists"."""
    kube.create(secret("a"))
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    with watching(kube, "secrets", allowWatchBookmarks="true", **query) as events:
        assert events.names(1) == [("ADDED", "a")]
        bookmark = events.next()
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["metadata"]["annotations"] == {
            "k8s.io/initial-events-end": "true"
        }


@pytest.mark.standin
def test_bookmarks_and_an_end(kube: KubeApi) -> None:
    """storage/cacher/cacher.go: a bookmark a minute; a watch ends after its `timeoutSeconds`."""
    version = kube.list("secrets").body["metadata"]["resourceVersion"]
    query = {"resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": 100}
    with watching(kube, "secrets", **query) as events:
        last = kube.create(pod()).version
        kube.clock.advance(61)
        bookmark = events.next()
        assert bookmark["type"] == "BOOKMARK"
        assert int(bookmark["object"]["metadata"]["resourceVersion"]) >= last
        kube.clock.advance(60)
        assert events.next()["type"] == "BOOKMARK"
        assert events.ended


@pytest.mark.standin
def test_a_watch_from_an_old_version_is_an_error(kube: KubeApi) -> None:
    """storage/cacher/cacher.go `Watch`: an ERROR event with a 410 in an answer 200."""
    version = kube.create(secret("a")).version
    kube.patch("secrets", "a", {"metadata": {"labels": {"x": "y"}}})
    with kube.local.held():
        kube.local.store.compact()
    with watching(kube, "secrets", resourceVersion=version) as events:
        event = events.next()
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        assert events.ended


@pytest.mark.standin
def test_a_watch_can_be_cut_off(kube: KubeApi) -> None:
    version = kube.list("secrets").body["metadata"]["resourceVersion"]
    with watching(kube, "secrets", resourceVersion=version) as events:
        kube.create(secret("a"))
        assert events.names(1) == [("ADDED", "a")]
        kube.local.cut_streams()
        assert events.ended


def test_a_client_may_want_metadata_alone(kube: KubeApi) -> None:
    """kubernetes.io, API concepts, "Metadata-only fetches"."""
    kube.create(secret("a"))
    form = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    found = kube.ask("GET", kube.path("secrets"), accept=f"{form},application/json").body
    assert found["kind"] == "PartialObjectMetadataList"
    (item,) = (each for each in found["items"] if each["metadata"]["name"] == "a")
    assert "data" not in item
    assert kube.ask("GET", kube.path("secrets"), accept="text/html").status == 406
