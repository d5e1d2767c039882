"""A Kubernetes API for tests: the local one on a virtual clock, or the one at
`VMRUNNER_TEST_KUBE_URL` with the token `VMRUNNER_TEST_KUBE_TOKEN` (and, where its certificate is
not signed by a public authority, the PEM file `VMRUNNER_TEST_KUBE_CA`). Tests take URL and token
from here alone; what only the local one has is marked `standin`."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest
import yaml
from vmrunner_localclouds.kube import LocalKube

from vmrunner.providers.fake import Clock

URL, TOKEN, CA = (f"VMRUNNER_TEST_KUBE_{each}" for each in ("URL", "TOKEN", "CA"))
MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
_PATIENCE: Final = 60.0  # seconds for a real control plane to act
_numbers: Final = itertools.count()


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", ""))

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])

    @property
    def version(self) -> int:
        return int(self.body["metadata"]["resourceVersion"])


class KubeApi:
    """One client of the API, and a namespace of its own. `local` is None for a real one."""

    def __init__(
        self, url: str, token: str, authority: bytes | None, local: LocalKube | None, clock: Clock
    ) -> None:
        self.url = url
        self.token = token
        self.authority = authority
        self.clock = clock
        self._local = local
        self.namespace = f"vmrunner-test-{os.getpid()}-{next(_numbers)}"
        self._tls = ssl.create_default_context(
            cadata=authority.decode() if authority is not None else None
        )
        self._connection: http.client.HTTPSConnection | None = None

    @property
    def local(self) -> LocalKube:
        assert self._local is not None, "mark this test `standin`"
        return self._local

    # --- requests ---

    def ask(
        self,
        verb: str,
        path: str,
        body: Any = None,
        *,
        content: str = "application/json",
        token: str | None = None,
        accept: str = "application/json",
        **query: Any,
    ) -> Answer:
        if query:
            path += ("&" if "?" in path else "?") + urlencode(query, doseq=True)
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        headers["Accept"] = accept
        if body is not None:
            headers["Content-Type"] = content
        data = json.dumps(body).encode() if body is not None else None
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                urlsplit(self.url).netloc, context=self._tls, timeout=30
            )
        try:
            self._connection.request(verb, path, data, headers)
            response = self._connection.getresponse()
            text = response.read()
        except OSError:
            self.close()
            raise
        found = json.loads(text) if text[:1] in (b"{", b"[") else text.decode()
        return Answer(response.status, found, dict(response.headers.items()))

    def path(self, resource: str, name: str = "", sub: str = "") -> str:
        """The path of a resource in this client's namespace: `jobs.batch`, `pods`."""
        plural, _, group = resource.partition(".")
        prefix = f"/apis/{group}/v1" if group else "/api/v1"
        parts = (prefix, "namespaces", self.namespace, plural, name, sub)
        return "/".join(part for part in parts if part)

    def create(self, body: Mapping[str, Any], **query: Any) -> Answer:
        return self.ask("POST", self.path(resource_of(body)), body, **query)

    def get(self, resource: str, name: str, **query: Any) -> Answer:
        return self.ask("GET", self.path(resource, name), **query)

    def list(self, resource: str, **query: Any) -> Answer:
        return self.ask("GET", self.path(resource), **query)

    def patch(
        self, resource: str, name: str, body: Any, content: str = MERGE, **query: Any
    ) -> Answer:
        return self.ask("PATCH", self.path(resource, name), body, content=content, **query)

    def update(self, body: Mapping[str, Any], **query: Any) -> Answer:
        name = body["metadata"]["name"]
        return self.ask("PUT", self.path(resource_of(body), name), body, **query)

    def delete(self, resource: str, name: str, **options: Any) -> Answer:
        body = {"kind": "DeleteOptions", "apiVersion": "v1", **options} if options else None
        return self.ask("DELETE", self.path(resource, name), body)

    # --- time ---

    def now(self) -> float:
        """The API's own time, by the header of an answer."""
        text = self.ask("GET", "/version").headers["Date"]
        return parsedate_to_datetime(text).timestamp()

    def wait(self, seconds: float) -> None:
        """Let so many seconds pass."""
        if self._local is not None:
            self.clock.advance(seconds)
        else:
            time.sleep(seconds)

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until controllers have acted."""
        end = time.monotonic() + _PATIENCE
        while not true():
            assert self._local is None, "no controller of the local one acts later"
            assert time.monotonic() < end, "it did not come true"
            time.sleep(0.1)

    def gone(self, resource: str, name: str) -> bool:
        return self.get(resource, name).status == 404

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def config(self, directory: Path, token: str = "") -> Path:
        """A kubeconfig for a stranger."""
        cluster: dict[str, Any] = {"server": self.url}
        if self.authority is not None:
            data = base64.b64encode(self.authority).decode()
            cluster["certificate-authority-data"] = data
        context = {"cluster": "c", "user": "u", "namespace": self.namespace}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token or self.token}}],
            "contexts": [{"name": "x", "context": context}],
            "current-context": "x",
        }
        file = directory / "kubeconfig"
        file.write_text(yaml.safe_dump(document))
        return file


_PLURALS: Final = {
    "NetworkPolicy": "networkpolicies",
    "VirtualMachineInstance": "virtualmachineinstances",
}


def resource_of(body: Mapping[str, Any]) -> str:
    plural = _PLURALS.get(body["kind"], f"{body['kind'].lower()}s")
    group, slash, _ = body["apiVersion"].partition("/")
    return f"{plural}.{group}" if slash else plural


# --- bodies ---


def owner(job: Answer) -> list[dict[str, Any]]:
    """References to an owner, as its answer showed it."""
    name = job.body["metadata"]["name"]
    return [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job.uid}]


def job(name: str = "vm-1", *, seconds: int = 3300, **spec: Any) -> dict[str, Any]:
    """A Job that is a deadline and never has a pod."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "none", "image": "none"}]}
    fields = {
        "parallelism": 0,
        "backoffLimit": 0,
        "activeDeadlineSeconds": seconds,
        "ttlSecondsAfterFinished": 0,
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"vmrunner/instance": name}},
        "spec": fields | spec,
    }


def pod(
    name: str = "vm-1", *, owners: list[dict[str, Any]] | None = None, **spec: Any
) -> dict[str, Any]:
    containers = [{"name": each, "image": "debian:13"} for each in ("vmrunner", "build")]
    fields = {"restartPolicy": "Never", "containers": containers}
    fields["terminationGracePeriodSeconds"] = 10
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"vmrunner/instance": name},
            **({"ownerReferences": owners} if owners else {}),
        },
        "spec": fields | spec,
    }


def secret(name: str = "vm-1", *, owners: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, **({"ownerReferences": owners} if owners else {})},
        "stringData": {"userdata": "#cloud-config\n{}\n"},
    }


def vmi(name: str = "vm-1", *, owners: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    interface = {"name": "default", "masquerade": {}, "ports": [{"port": 22}]}
    disks = [{"name": each, "disk": {"bus": "virtio"}} for each in ("root", "seed")]
    domain = {
        "cpu": {"cores": 2},
        "memory": {"guest": "4Gi"},
        "devices": {"rng": {}, "interfaces": [interface], "disks": disks},
    }
    root = {"name": "root", "containerDisk": {"image": "registry.example/vmrunner@sha256:0"}}
    seed = {"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": name}}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {
            "name": name,
            "labels": {"vmrunner/instance": name},
            **({"ownerReferences": owners} if owners else {}),
        },
        "spec": {
            "domain": domain,
            "networks": [{"name": "default", "pod": {}}],
            "volumes": [root, seed],
        },
    }


# --- rights ---

_RBAC: Final = "rbac.authorization.k8s.io"


def token_of(kube: KubeApi, rules: list[dict[str, Any]]) -> str:
    """A token of an account with this role, in this namespace alone."""
    subject = {"kind": "ServiceAccount", "name": "vmrunner", "namespace": kube.namespace}
    reference = {"apiGroup": _RBAC, "kind": "Role", "name": "vmrunner"}
    bodies = (
        {"apiVersion": "v1", "kind": "ServiceAccount"},
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "rules": rules},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "subjects": [subject],
            "roleRef": reference,
        },
    )
    for body in bodies:
        made = kube.create({**body, "metadata": {"name": "vmrunner"}}, fieldValidation="Strict")
        assert made.status == 201, made
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = kube.ask("POST", kube.path("serviceaccounts", "vmrunner", "token"), request)
    return str(answer.body["status"]["token"])


# --- fixtures ---


@contextmanager
def kubernetes(**more: Any) -> Iterator[KubeApi]:
    """An API with an empty namespace, which is deleted at the end. Knobs go to the local one."""
    with _server(**more) as api:
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace}}
        made = api.ask("POST", "/api/v1/namespaces", space)
        assert made.status == 201, made
        try:
            yield api
        finally:
            if api._local is None:
                api.ask("DELETE", f"/api/v1/namespaces/{api.namespace}")
            api.close()


@contextmanager
def _server(*, real_clock: bool = False, **more: Any) -> Iterator[KubeApi]:
    if url := os.environ.get(URL):
        file = os.environ.get(CA)
        authority = Path(file).read_bytes() if file else None
        yield KubeApi(url, os.environ[TOKEN], authority, None, Clock())
        return
    clock = Clock()
    time_of = {} if real_clock else {"clock": clock, "sleep": clock.sleep}
    with LocalKube(**time_of, **more) as local:
        yield KubeApi(local.url, local.token, local.authority, local, clock)


@pytest.fixture
def kube() -> Iterator[KubeApi]:
    with kubernetes() as made:
        yield made
