"""One request, as far as it must be understood, held against the document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from vmrunner_localclouds.gce import discovery, validation
from vmrunner_localclouds.gce.api_error import GceRefusal
from vmrunner_localclouds.gce.discovery import Json, Method


@dataclass(frozen=True, kw_only=True, slots=True)
class GceRequest:
    """`action` is a method's id, or `GET /a/path` where Google has no method."""

    action: str
    method: Method | None
    path: Mapping[str, str]  # parameters in the path: project, zone, instance, …
    query: Mapping[str, str]
    body: bytes
    key: str  # the bearer's token; empty: none
    fields: str  # of the answer, those that are wanted; empty: all

    @classmethod
    def of(cls, verb: str, target: str, headers: Mapping[str, str], body: bytes) -> GceRequest:
        split = urlsplit(target)
        found = None
        if split.path.startswith(discovery.BASE):
            found = discovery.find(verb, unquote(split.path.removeprefix(discovery.BASE)))
        lower_headers = {name.lower(): value for name, value in headers.items()}
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        return cls(
            action=found.method.id if found else f"{verb} {split.path}",
            method=found.method if found else None,
            path=found.path if found else {},
            query=query,
            body=body,
            key=lower_headers.get("authorization", "").removeprefix("Bearer "),
            fields=query.get("fields")
            or query.get("$fields")
            or lower_headers.get("x-goog-fieldmask", ""),
        )

    @property
    def resource(self) -> Json:
        """The body, parsed anew."""
        parsed: Json = json.loads(self.body)
        return parsed

    @property
    def scope(self) -> str:
        """The scope in which it acts: `zones/z`, `regions/r` or `global`."""
        for kind in ("zone", "region"):
            if kind in self.path:
                return f"{kind}s/{self.path[kind]}"
        return "global"


def check(request: GceRequest, method: Method) -> None:
    """Raises `GceRefusal` with what Google's document does not allow in it."""
    try:
        _parameters(request, method)
        if method.request:
            _body(request, method)
    except validation.Invalid as bad:
        if bad.unknown:
            text = f"Invalid JSON payload received. Unknown name \"{bad.unknown}\" at '{bad.path}'"
            raise GceRefusal(400, "badRequest", f"{text}: Cannot find field.") from None
        text = f"Invalid value for field '{bad.path}'. {bad.message}"
        raise GceRefusal(400, "invalid", text) from None


def _parameters(request: GceRequest, method: Method) -> None:
    for name, value in request.path.items():
        validation.parameter(value, method.parameters[name], name)
    common = discovery.common_parameters()
    for name, value in request.query.items():
        parameter = method.parameters.get(name) or common.get(name.removeprefix("$"))
        if parameter is None or parameter.get("location") == "path":
            text = f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query'
            raise GceRefusal(400, "badRequest", f"{text} parameter.")
        validation.parameter(value, parameter, name)
    for name, parameter in method.parameters.items():
        if parameter.get("required") and name not in request.path and name not in request.query:
            raise GceRefusal(400, "required", f"Required parameter: {name}")


def _body(request: GceRequest, method: Method) -> None:
    if not request.body:
        raise GceRefusal(400, "required", "Required field 'resource' not specified")
    try:
        value: Any = json.loads(request.body)
    except ValueError as error:
        raise GceRefusal(400, "parseError", f"Invalid JSON payload received. {error}") from None
    validation.check(value, method.request, "resource")
    validation.required(value, method.request, method.id, "resource")
