"""One request, as far as it must be understood."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from vmrunner_localclouds.azure import resource_ids, shapes
from vmrunner_localclouds.azure.api_error import ArmRefusal, Json
from vmrunner_localclouds.azure.resource_ids import ArmPath
from vmrunner_localclouds.azure.shapes import Misshapen

#: Names of actions, where they are written in another case than the service's.
_ACTIONS: Final = {
    name.lower(): name
    for name in (
        *("deallocate", "instanceView", "powerOff", "restart", "retrieveBootDiagnosticsData"),
        *("simulateEviction", "start", "subnets", "resources"),
    )
}
_CHILDREN: Final = {resource_ids.DEFINITION: "definitions", resource_ids.VERSION: "versions"}


@dataclass(frozen=True, kw_only=True, slots=True)
class AzureRequest:
    """`action` is `virtualMachines.put`, `.get`, `.list` (of a group), `.listAll`, `.patch`,
    `.delete`, or what a POST does, `.start`; or `GET /a/path` outside of Resource Manager."""

    action: str
    verb: str
    url: str  # path and query, as they came
    path: ArmPath
    query: Mapping[str, str]  # names in lower case
    headers: Mapping[str, str]  # likewise
    body: bytes

    @classmethod
    def of(cls, verb: str, target: str, headers: Mapping[str, str], body: bytes) -> AzureRequest:
        split = urlsplit(target)
        path = resource_ids.parse(unquote(split.path))
        pairs = parse_qsl(split.query, keep_blank_values=True)
        return cls(
            action=_action(verb, path) if path else f"{verb} {split.path}",
            verb=verb,
            url=target,
            path=path or ArmPath(),
            query={name.lower(): value for name, value in pairs},
            headers={name.lower(): value for name, value in headers.items()},
            body=body,
        )

    @property
    def key(self) -> str:
        """The bearer's token; empty: none."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def resource(self) -> Json:
        """The body, parsed anew. Raises `ArmRefusal`."""
        try:
            parsed: Any = json.loads(self.body or b"{}")
        except ValueError as error:
            text = f"The request content was invalid and could not be deserialized: '{error}'."
            raise ArmRefusal(400, "InvalidRequestContent", text) from None
        if not isinstance(parsed, dict):
            text = "The request content must be a JSON object."
            raise ArmRefusal(400, "InvalidRequestContent", text)
        return parsed

    def body_of(self, shape: str) -> Json:
        """The body, held against a type of the client's. Raises `ArmRefusal`."""
        body = self.resource
        try:
            shapes.check(body, self.path.provider, shape)
        except Misshapen as bad:
            raise _refusal(bad) from None
        return body

    def flag(self, name: str) -> bool:
        return self.query.get(name.lower(), "").lower() == "true"


def _action(verb: str, path: ArmPath) -> str:
    short, rest = path.short, path.rest
    if path.child in _CHILDREN:  # images.get is that of a managed one
        return f"{_CHILDREN[path.child]}.{'list' if len(rest) % 2 else verb.lower()}"
    if rest and (verb == "POST" or len(rest) % 2):  # an action, or all children of a kind
        word = _ACTIONS.get(rest[-1].lower(), rest[-1])
        return f"{short}.{word}"
    if rest:
        return f"{_ACTIONS.get(rest[-2].lower(), rest[-2])}.{verb.lower()}"
    if verb == "GET" and not path.name:
        return f"{short}.{'list' if path.group or path.location else 'listAll'}"
    return f"{short}.{verb.lower()}" if verb != "POST" else short


def _refusal(bad: Misshapen) -> ArmRefusal:
    if bad.unknown:
        text = f"Could not find member '{bad.unknown}' on object of type '{bad.kind}'. "
        return ArmRefusal(
            400, "InvalidRequestContent", f"{text}Path '{bad.path}'.", target=bad.path
        )
    return ArmRefusal(400, "InvalidParameter", bad.message, target=bad.path)
