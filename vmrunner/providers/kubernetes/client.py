"""The calls to one namespace of an API server: each waits for its token, tells the time, and fails
in one way. Only here is the HTTP client used."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import httpx2

from vmrunner.errors import ConfigError, CredentialsRefused, Throttled
from vmrunner.lib.token_bucket import Limit
from vmrunner.lib.websocket_channel import WebSocketTarget
from vmrunner.lib.whole_answers import bound, within
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import CloudClock
from vmrunner.providers.common.rate_limits import Buckets, Quota
from vmrunner.providers.kubernetes import error_codes, kubeconfig
from vmrunner.providers.kubernetes.options import KubernetesOptions

JSON = dict[str, Any]

#: The server has fair queues of its own, and says when it is too much: this holds back a runaway.
QUOTAS: Final = {
    "read": Quota(Limit(400, 50)),
    "write": Quota(Limit(1000, 100)),
}
ANSWER: Final = 30.0  # seconds without a byte of an answer
WHOLE: Final = 90.0  # seconds for all of it
CONNECT: Final = 10.0
#: So many connections at once: as many as creates wait for answers.
CONNECTIONS: Final = 64
LARGEST_WAIT: Final = 120.0  # seconds that a server may ask for
#: Metadata alone: of secrets nobody needs what is in them.
_PARTIAL: Final = "application/json;as=PartialObjectMetadata{list};v=v1;g=meta.k8s.io"


class ApiKind(NamedTuple):
    """A kind of object, as the API's paths have it."""

    group: str  # "": the core's
    version: str
    plural: str
    metadata_only: bool = False

    @property
    def base(self) -> str:
        """Path of its group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


JOBS: Final = ApiKind("batch", "v1", "jobs")
PODS: Final = ApiKind("", "v1", "pods")
VMIS: Final = ApiKind("kubevirt.io", "v1", "virtualmachineinstances")
SECRETS: Final = ApiKind("", "v1", "secrets", metadata_only=True)
CLAIMS: Final = ApiKind("", "v1", "persistentvolumeclaims")
#: What only metadata is wanted of, in lists.
JOBS_META: Final = JOBS._replace(metadata_only=True)
CLAIMS_META: Final = CLAIMS._replace(metadata_only=True)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _Access:
    """The API server as a kubeconfig had it when it was read, and connections by that. They are
    closed when the last call by it has ended."""

    cluster: kubeconfig.Cluster
    http: httpx2.Client


class KubeClient:
    """One namespace under one configuration. Thread-safe; nothing is retried here but what
    credentials that were renewed let through. Nothing is read or asked before the first call."""

    def __init__(
        self, options: KubernetesOptions, clock: CloudClock, *, buckets: Buckets | None = None
    ) -> None:
        self._options = options
        self._clock = clock
        self._buckets = buckets or Buckets(QUOTAS)
        self._lock = threading.Lock()
        self._access: _Access | None = None

    # --- objects of the namespace ---

    def create(self, kind: ApiKind, body: Mapping[str, Any], *, dry: bool = False) -> JSON:
        """Make an object. `dry`: only ask whether it would be taken. Raises `CallFailed`."""
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry else {})
        return self.call("POST", self.path(kind), body=body, **query)

    def get(self, kind: ApiKind, name: str) -> JSON:
        """Read one object. Raises `CallFailed`."""
        return self.call("GET", self.path(kind, name), accept=_accept(kind, of_list=False))

    def page(self, kind: ApiKind, **query: str) -> JSON:
        """Read one page of a list. Without a version it is what the store holds now. Raises
        `CallFailed`."""
        answer = self.call("GET", self.path(kind), accept=_accept(kind, of_list=True), **query)
        if not str(answer["kind"]).endswith("List"):  # what is not in it would count as gone
            error = ValueError(f"it is a {answer['kind']} and no list")
            raise error_codes.unanswered(error, action="GET", where=kind.plural)
        return answer

    def patch(self, kind: ApiKind, name: str, body: Any, *, how: str) -> JSON:
        """Change an object. `how`: json-patch or merge-patch. Raises `CallFailed`."""
        kind_of_body = f"application/{how}+json"
        return self.call("PATCH", self.path(kind, name), body=body, content_type=kind_of_body)

    def delete(self, kind: ApiKind, name: str, uid: str, *, grace: int | None = None) -> JSON:
        """Delete an object of this uid, and what it owns before it. Raises `CallFailed`."""
        body: JSON = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Foreground" if kind.plural == JOBS.plural else "Background",
        }
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        return self.call("DELETE", self.path(kind, name), body=body)

    def path(self, kind: ApiKind, name: str = "", part: str = "") -> str:
        """Path of an object, or of the list; `part`: a subresource."""
        words = [kind.base, "namespaces", self._options.namespace, kind.plural]
        return "/".join(
            [*words, *([quote(name, safe="")] if name else []), *([part] if part else [])]
        )

    # --- any path ---

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        **query: str,
    ) -> JSON:
        """Make one call, and return the document that it is answered with. Raises `CallFailed`."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": accept, **({} if data is None else {"Content-Type": content_type})}
        answer = self._answer(method, path, query, data, headers)
        try:
            document = json.loads(answer.content)
            if not isinstance(document, dict) or "kind" not in document:
                raise ValueError("it is no object of an API server's")  # noqa: TRY301
        except ValueError as error:
            raise error_codes.unanswered(error, action=method, where=_where(path)) from error
        self._clock.observe(answer.headers.get("date"))
        return document

    def log(self, pod: str, container: str, *, limit: int) -> str:
        """Return the last lines that a container wrote, at most `limit` bytes. Raises
        `CallFailed`."""
        query = {"container": container, "tailLines": "1000"}
        answer = self._answer("GET", self.path(PODS, pod, "log"), query, None, {"Accept": "*/*"})
        return answer.content[-limit:].decode(errors="replace")

    def stream(self, path: str, protocols: tuple[str, ...]) -> WebSocketTarget:
        """Target of a stream at this path. Raises ConfigError."""
        cluster = self._opened().cluster
        token = cluster.credentials.token()
        return WebSocketTarget(
            url="ws" + cluster.server.removeprefix("http") + path,
            subprotocols=protocols,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            trusted=cluster.context() if cluster.server.startswith("https:") else None,
            server_name=cluster.server_name,
        )

    @property
    def server(self) -> str:
        """URL of the API server. Raises ConfigError."""
        return self._opened().cluster.server

    # --- within ---

    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        data: bytes | None,
        headers: Mapping[str, str],
    ) -> httpx2.Response:
        """An answer that is a success. Raises `CallFailed`."""
        quota = "read" if method == "GET" else "write"
        self._buckets.take(self._options.name, quota)
        headers = {"User-Agent": "vmrunner", **headers}
        answer, access = self._send(method, path, query, data, headers)
        if answer.status_code == 401:
            self._forget(access)  # its token, or its certificate, may be another by now
            answer, _ = self._send(method, path, query, data, headers)
        if answer.status_code >= 400:
            self._clock.overheard(answer.headers.get("date"))
            wait = _seconds(answer.headers.get("retry-after"))
            failed = error_codes.failed(
                answer.status_code,
                answer.content,
                action=method,
                where=_where(path),
                retry_after=wait,
            )
            if isinstance(failed.error, Throttled):
                self._buckets.record(self._options.name, quota, refused=True, retry_after=wait)
            raise failed
        self._buckets.record(self._options.name, quota, refused=False)
        return answer

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        data: bytes | None,
        headers: Mapping[str, str],
    ) -> tuple[httpx2.Response, _Access]:
        """An answer, and by what it was had. Raises `CallFailed`."""
        access: _Access | None = None
        try:
            access = self._opened()
            cluster = access.cluster
            token = cluster.credentials.token()
            bearer = {"Authorization": f"Bearer {token}"} if token else {}
            name = {"sni_hostname": cluster.server_name} if cluster.server_name else {}
            url = f"{path}?{urlencode(query)}" if query else path
            with within(WHOLE):
                answer = access.http.request(
                    method, url, content=data, headers={**headers, **bearer}, extensions=name
                )
        except ConfigError as error:
            text = f"{method} {path}: {error.args[0]}"
            raise CallFailed("", CredentialsRefused(text, hint=error.hint)) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            if error_codes.is_untrusted(error):
                self._forget(access)  # the authority may be another from now on
            raise error_codes.unanswered(error, action=method, where=path) from error
        return answer, access

    def _opened(self) -> _Access:
        with self._lock:
            if self._access is None:
                cluster = kubeconfig.find(self._options.kubeconfig, self._options.context)
                limits = httpx2.Limits(
                    max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS
                )
                http: httpx2.Client = bound(
                    httpx2.Client(
                        base_url=cluster.server,
                        verify=cluster.context() if cluster.server.startswith("https:") else True,
                        timeout=httpx2.Timeout(ANSWER, connect=CONNECT),
                        limits=limits,
                        trust_env=True,
                    )
                )
                self._access = _Access(cluster, http)
                weakref.finalize(self._access, http.close)
            return self._access

    def _forget(self, access: _Access | None) -> None:
        """Read the kubeconfig again before the next call, if nobody did since; calls that are under
        way go on."""
        with self._lock:
            if self._access is access:
                self._access = None


def _accept(kind: ApiKind, *, of_list: bool) -> str:
    if not kind.metadata_only:
        return "application/json"
    return f"{_PARTIAL.format(list='List' if of_list else '')},application/json"


def _where(path: str) -> str:
    """The object or list that a call is about, for a message."""
    return path.partition("/namespaces/")[2].partition("/")[2] or path


def _seconds(text: str | None) -> float:
    """A `Retry-After`; 0: it says nothing."""
    return min(float(text), LARGEST_WAIT) if text and text.isascii() and text.isdigit() else 0.0
