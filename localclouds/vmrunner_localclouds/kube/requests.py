"""One request, as far as it must be understood before anything is looked up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from vmrunner_localclouds.kube import protobuf
from vmrunner_localclouds.kube.api_error import Json, bad_request
from vmrunner_localclouds.kube.kinds import KUBEVIRT_STREAMS, NAMESPACES

_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_OFF: Final = ("", "0", "f", "false")


@dataclass(frozen=True, kw_only=True, slots=True)
class KubeRequest:
    """`action` is `jobs.create`, `pods/exec.get`, or `GET /a/path` where no kind is meant."""

    action: str
    verb: str  # RBAC's: create get list watch update patch delete deletecollection
    path: str
    group: str
    version: str
    resource: str  # plural, lower case; empty: no resource is meant
    namespace: str
    name: str
    subresource: str  # empty, or `exec`, `portforward/22/tcp`, …
    query: Mapping[str, tuple[str, ...]]
    headers: Mapping[str, str]  # in lower case
    body: bytes
    key: str  # the bearer's token; empty: none

    @classmethod
    def of(cls, verb: str, target: str, headers: Mapping[str, str], body: bytes) -> KubeRequest:
        split = urlsplit(target)
        lower = {name.lower(): value for name, value in headers.items()}
        query = {
            name: tuple(values)
            for name, values in parse_qs(split.query, keep_blank_values=True).items()
        }
        place = _Place(split.path)
        meaning = _verb(verb, place, query)
        what = f"{place.resource}/{place.subresource}" if place.subresource else place.resource
        scheme, _, token = lower.get("authorization", "").partition(" ")
        return cls(
            action=f"{what}.{meaning}" if what else f"{verb} {split.path}",
            verb=meaning,
            path=split.path,
            group=place.group,
            version=place.version,
            resource=place.resource,
            namespace=place.namespace,
            name=place.name,
            subresource=place.subresource,
            query=query,
            headers=lower,
            body=body,
            key=token.strip() if scheme.lower() == "bearer" else "",
        )

    def option(self, name: str) -> str:
        """One parameter of the query; empty: it is not there."""
        return self.query.get(name, ("",))[0]

    def flag(self, name: str) -> bool:
        return self.option(name).lower() not in _OFF

    def number(self, name: str) -> int | None:
        text = self.option(name)
        if not text:
            return None
        try:
            return int(text)
        except ValueError:
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None

    @property
    def content(self) -> str:
        """The type of its body, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip()

    @property
    def parsed(self) -> Any:
        """The body, parsed anew: JSON, or YAML where its type names that."""
        if self.content == protobuf.CONTENT:
            return protobuf.decoded(self.body)
        try:
            if self.content.endswith("yaml"):
                return yaml.safe_load(self.body)
            return json.loads(self.body)
        except (ValueError, yaml.YAMLError) as error:
            raise bad_request(f"unable to decode the body: {error}") from None

    @property
    def document(self) -> Json:
        """The body as an object."""
        parsed = self.parsed
        if not isinstance(parsed, dict):
            raise bad_request("the body of the request is not an object")
        return parsed


class _Place:
    """Parts of a path: `/apis/GROUP/VERSION/namespaces/NS/RESOURCE/NAME/SUBRESOURCE`."""

    def __init__(self, path: str) -> None:
        self.group = self.version = self.resource = self.namespace = self.name = ""
        self.subresource = ""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "api" and len(parts) > 2:
            self.version, *parts = parts[1:]
        elif parts[0] == "apis" and len(parts) > 3:
            self.group, self.version, *parts = parts[1:]
        else:
            return
        if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "finalize"):
            self.namespace, *parts = parts[1:]
        self.resource = parts[0]
        self.name = parts[1] if len(parts) > 1 else ""
        self.subresource = "/".join(parts[2:])
        if self.resource == NAMESPACES.plural and not self.group:
            self.namespace = self.name


def _verb(verb: str, place: _Place, query: Mapping[str, tuple[str, ...]]) -> str:
    if verb == "DELETE":
        return "delete" if place.name else "deletecollection"
    if verb != "GET":
        return _VERBS.get(verb, verb.lower())
    if place.name:
        return "get"
    watch = query.get("watch", ("",))[0].lower() not in _OFF
    return "watch" if watch else "list"


def streams(request: KubeRequest) -> bool:
    """True for what a WebSocket may be asked for."""
    return request.group == KUBEVIRT_STREAMS or request.subresource in (
        "exec",
        "portforward",
        "attach",
    )
