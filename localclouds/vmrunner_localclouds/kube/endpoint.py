"""HTTP: a server of one cluster, which handles every request alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.server import HTTPServer
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.common.faults import RequestFate
from vmrunner_localclouds.common.http_server import HttpAnswer
from vmrunner_localclouds.common.json_cloud import JsonEndpoint
from vmrunner_localclouds.kube import (
    connect,
    deletes,
    discovery,
    pod_logs,
    reads,
    reviews,
    views,
    writes,
)
from vmrunner_localclouds.kube.api_error import Json, KubeRefusal, status_document
from vmrunner_localclouds.kube.kinds import PODS, SERVICE_ACCOUNTS, Kind
from vmrunner_localclouds.kube.requests import KubeRequest, streams
from vmrunner_localclouds.kube.tls import Certificate, TlsServer
from vmrunner_localclouds.kube.vendor_limits import limit
from vmrunner_localclouds.kube.views import View
from vmrunner_localclouds.kube.watches import Watch

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

_JSON: Final = "application/json"
_SUCCESS: Final[Json] = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Success",
}
_WRONG: Final = frozenset({400, 406, 413, 415, 422})


class KubeEndpoint(JsonEndpoint[KubeRequest, RequestFate]):
    name = "localkube"
    _cloud: LocalKube

    def make(self, port: int) -> HTTPServer:
        self._tls = server = TlsServer(self, port)
        server.certificate = Certificate()
        return server

    @property
    def url(self) -> str:
        return super().url.replace("http:", "https:")

    @property
    def authority(self) -> bytes:
        """The PEM by which a client knows this server."""
        return self._tls.certificate.authority

    def renew_certificate(self) -> None:
        """Serve with another certificate, by another authority, from the next connection on."""
        self._tls.certificate = Certificate()

    def read(self, verb: str, target: str, headers: Mapping[str, str], body: bytes) -> KubeRequest:
        return KubeRequest.of(verb, target, headers, body)

    def pause(self, request: KubeRequest) -> None:
        """Nothing here waits before its answer."""

    def refuse(self, fate: RequestFate) -> HttpAnswer:
        refusal = KubeRefusal(fate.status, fate.message, fate.code)
        if fate.status == 429:
            refusal.details = {"retryAfterSeconds": 1}
        return _refused(refusal)

    def handle(self, request: KubeRequest, _: RequestFate | None) -> HttpAnswer:
        cloud = self._cloud
        with cloud.held():
            try:
                return self._ask(request)
            except KubeRefusal as refusal:
                if refusal.status in _WRONG:
                    cloud.rejected.append(f"{request.action}: {refusal.message}")
                return _refused(refusal)

    def _ask(self, request: KubeRequest) -> HttpAnswer:
        cloud = self._cloud
        user = cloud.access.user(request)
        if len(request.body) > limit("bytes of a request"):
            raise KubeRefusal(
                413, f"Request entity too large: limit is {limit('bytes of a request'):.0f}"
            )
        cloud.access.admit(user, request)
        accept = request.headers.get("accept", "")
        if not request.resource:
            found = discovery.document(cloud, request.path)
            if isinstance(found, str):
                return HttpAnswer(200, found.encode(), "text/plain; charset=utf-8")
            return _answer(200, found)
        if streams(request):
            return connect.answer(cloud, request)
        if request.resource in reviews.NAMES:
            return _answer(201, reviews.review(cloud, user, request))
        kind = cloud.kinds.get((request.group, request.version, request.resource))
        if kind is None:
            raise KubeRefusal(404, "the server could not find the requested resource")
        if request.subresource and request.subresource not in {"status"} & set(kind.subresources):
            return self._of_subresource(kind, request)
        return self._of_kind(kind, request, views.view(cloud, kind, accept))

    def _of_subresource(self, kind: Kind, request: KubeRequest) -> HttpAnswer:
        cloud, place = self._cloud, (kind, request.subresource, request.verb)
        if place == (PODS, "log", "get"):
            pod = writes.current(cloud, kind, request)
            return HttpAnswer(200, pod_logs.read(cloud, request, pod), "text/plain")
        if place == (PODS, "eviction", "create"):
            pod = writes.current(cloud, kind, request)
            deletes.delete(cloud, kind, pod, request.document.get("deleteOptions") or {})
            return _answer(201, _SUCCESS)
        if place == (SERVICE_ACCOUNTS, "token", "create"):
            return _answer(201, reviews.account_token(cloud, request))
        raise KubeRefusal(404, "the server could not find the requested resource")

    def _of_kind(self, kind: Kind, request: KubeRequest, view: View) -> HttpAnswer:
        cloud = self._cloud
        if request.verb == "watch" or (request.verb == "get" and request.flag("watch")):
            watch = Watch(cloud, kind, request, view)
            return HttpAnswer(200, takes_over=cloud.streamed(watch))
        if request.verb == "get":
            return _answer(200, view(writes.current(cloud, kind, request)))
        if request.verb == "list":
            return _answer(200, view(reads.listed(cloud, kind, request)))
        if request.verb == "delete":
            return self._delete(kind, request)
        if request.verb == "deletecollection":
            return self._delete_all(kind, request)
        makers = {"create": writes.create, "update": writes.update, "patch": writes.patch}
        if request.verb not in makers or (request.verb == "create") is bool(request.name):
            text = "the server does not allow this method on the requested resource"
            raise KubeRefusal(405, text)
        written = makers[request.verb](cloud, kind, request)
        text = ", ".join(f"299 - {json.dumps(text)}" for text in written.warnings)
        headers = {"Warning": text} if text else {}
        return _answer(written.status, view(written.object), headers)

    def _delete(self, kind: Kind, request: KubeRequest) -> HttpAnswer:
        cloud = self._cloud
        before = writes.current(cloud, kind, request)
        options = _options(request)
        if "All" in request.query.get("dryRun", ()) or "All" in (options.get("dryRun") or ()):
            deletes.check(kind, before, options)
            return _answer(200, before)
        shown = deletes.delete(cloud, kind, before, options)
        if shown is not None:
            return _answer(200, shown)
        if cloud.strategy(kind).returns_deleted:
            return _answer(200, before)
        metadata = before["metadata"]
        details = {"name": metadata["name"], "kind": kind.plural, "uid": metadata["uid"]}
        if kind.group:
            details["group"] = kind.group
        return _answer(200, _SUCCESS | {"details": details})

    def _delete_all(self, kind: Kind, request: KubeRequest) -> HttpAnswer:
        listed = reads.listed(self._cloud, kind, request)
        for shown in listed["items"]:
            found = self._cloud.store.find(shown["metadata"]["uid"])
            if found is not None:
                deletes.delete(self._cloud, kind, found[1], _options(request))
        return _answer(200, listed)


def _options(request: KubeRequest) -> Json:
    """Options of a delete: the body's, or the query's where there is no body."""
    if request.body:
        return request.document
    options: Json = {}
    for name in ("propagationPolicy", "gracePeriodSeconds", "orphanDependents"):
        if text := request.option(name):
            options[name] = text
    if "gracePeriodSeconds" in options:
        options["gracePeriodSeconds"] = request.number("gracePeriodSeconds")
    if "orphanDependents" in options:
        options["orphanDependents"] = request.flag("orphanDependents")
    return options


def _refused(refusal: KubeRefusal) -> HttpAnswer:
    headers: dict[str, str] = {}
    if refusal.details and "retryAfterSeconds" in refusal.details:
        headers["Retry-After"] = str(refusal.details["retryAfterSeconds"])
    details = refusal.details
    metadata: Json = {}
    if details and "continue" in details:
        metadata, details = details, None
    document = status_document(refusal.status, refusal.reason, refusal.message, details)
    return _answer(refusal.status, document | {"metadata": metadata}, headers)


def _answer(status: int, document: Json, headers: Mapping[str, str] | None = None) -> HttpAnswer:
    return HttpAnswer(status, json.dumps(document).encode(), _JSON, headers or {})
