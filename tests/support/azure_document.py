"""Azure's published documents, and what of an exchange with the local Azure is not as they say.
Where they are from, and which versions: `tests/data/azure/README.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator
from vmrunner_localclouds.azure.endpoint import AzureEndpoint
from vmrunner_localclouds.azure.requests import AzureRequest
from vmrunner_localclouds.common.http_server import HttpAnswer

_DATA: Final = Path(__file__).parents[1] / "data/azure"
#: Only the one side writes these.
_ASKED, _ANSWERED = "readOnly", "writeOnly"

#: Action → definitions of request and answer in the OpenAPI documents.
_DEFINED: Final = {
    "skus.listAll": ("", "ResourceSkusResult"),
    "operations.get": ("", "OperationStatusResult"),
    "virtualMachinesSubmitDeallocate": (
        "SubmitDeallocateRequest",
        "DeallocateResourceOperationResponse",
    ),
    "virtualMachinesGetOperationStatus": (
        "GetOperationStatusRequest",
        "GetOperationStatusResponse",
    ),
    "virtualMachinesCancelOperations": ("CancelOperationsRequest", "CancelOperationsResponse"),
}
#: Action → the operation of which an example is published.
_EXEMPLARY: Final = {
    "usages.list": "Usage_List",
    "virtualMachines.retrieveBootDiagnosticsData": "VirtualMachines_RetrieveBootDiagnosticsData",
}
#: Action → where in a resource's schema its answer is.
_WITHIN: Final = {
    "virtualMachines.instanceView": ("properties", "instanceView"),
    "subnets.get": ("properties", "subnets", "[]"),
    "virtualNetworks.subnets": ("properties", "subnets", "[]"),
}
_WHOLE: Final = ("get", "list", "listAll", "put", "patch")


@dataclass(frozen=True)
class Exchange:
    request: AzureRequest
    answer: HttpAnswer

    @property
    def action(self) -> str:
        return self.request.action

    def problems(self) -> list[str]:
        """Return all that the documents do not allow in it."""
        asked_schema, answered = schemas(self.request)
        found = list(_told("request", self.request.body, asked_schema))
        if self.answer.status >= 400:
            answered = _defined("ErrorResponse", _ANSWERED)
        found += _told("answer", self.answer.body, answered)
        return [f"{self.action} {self.answer.status}, {problem}" for problem in found]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    """All that local Azures are asked, and what they answer, from now on."""
    found: list[Exchange] = []
    serve = AzureEndpoint.serve

    def overheard(
        self: AzureEndpoint, verb: str, target: str, headers: Any, body: bytes
    ) -> HttpAnswer | None:
        answer = serve(self, verb, target, headers, body)
        request = AzureRequest.of(verb, target, headers, body)
        if answer is not None and request.path.subscription:
            found.append(Exchange(request, answer))
        return answer

    monkeypatch.setattr(AzureEndpoint, "serve", overheard)
    return found


def schemas(request: AzureRequest) -> tuple[Any, Any]:
    """Return what its body must be, and that of its answer. None: nothing is published of it."""
    action, kind = request.action, request.path.kind
    if action in _DEFINED:
        body_name, answer_name = _DEFINED[action]
        return body_name and _defined(body_name, _ASKED), _defined(answer_name, _ANSWERED)
    if action in _EXEMPLARY and request.path.provider == "Microsoft.Compute":
        return None, _exemplary(_EXEMPLARY[action])
    if action in _WITHIN:
        found = _resource(kind, _ANSWERED)
        for step in _WITHIN[action]:
            found = _step(found, step)
        return None, _listed(found) if action.endswith(".subnets") else found
    kind, verb = request.path.child, action.rpartition(".")[2]
    if kind not in kinds() or verb not in _WHOLE:
        return None, None
    asked_schema, answered = _resource(kind, _ASKED), _resource(kind, _ANSWERED)
    if verb == "patch":
        asked_schema = {**asked_schema, "required": []}  # what it leaves out stays
    return asked_schema, _listed(answered) if verb.startswith("list") else answered


# --- the documents -------------------------------------------------------------------------------


@cache
def _types(hidden: str) -> Any:
    """Return the types; in requests, with what the version that the driver asks for has more."""
    types = json.loads((_DATA / "types.json").read_text())
    more = _openapi()["newer"] if hidden == _ASKED else {}
    for name, schema in types["$defs"].items():
        schema["properties"].update(more.get(name.partition(".")[0], {}))
    return _seen(types, hidden)


@cache
def _openapi(hidden: str = "") -> Any:
    return _seen(json.loads((_DATA / "openapi.json").read_text()), hidden)


@cache
def kinds() -> dict[str, str]:
    """Type → the version that is here."""
    return dict(name.split("@") for name in _types(_ANSWERED)["resources"])


def _resource(kind: str, hidden: str) -> Any:
    types = _types(hidden)
    return {**types["resources"][f"{kind}@{kinds()[kind]}"], "$defs": types["$defs"]}


def _defined(name: str, hidden: str) -> Any:
    return {"$ref": f"#/definitions/{name}", "definitions": _openapi(hidden)["definitions"]}


def _step(schema: Any, name: str) -> Any:
    found = schema["items"] if name == "[]" else schema["properties"][name]
    if reference := found.get("$ref"):
        found = schema["$defs"][reference.removeprefix("#/$defs/")]
    return {**found, "$defs": schema["$defs"]}


def _listed(schema: Any) -> Any:
    item = {key: part for key, part in schema.items() if key != "$defs"}
    properties = {"value": {"type": "array", "items": item}, "nextLink": {"type": "string"}}
    page = {"type": "object", "properties": properties, "required": ["value"]}
    return {**page, "additionalProperties": False, "$defs": schema["$defs"]}


def _exemplary(name: str) -> Any:
    return _like(_openapi()["examples"][name])


def _like(example: Any) -> Any:
    """A schema of what has an example's fields, or some of them, with its types of JSON."""
    if isinstance(example, dict):
        properties = {key: _like(part) for key, part in example.items()}
        return {"type": "object", "properties": properties, "additionalProperties": False}
    if isinstance(example, list):
        return {"type": "array", "items": _like(example[0])}
    return {"type": {str: "string", bool: "boolean"}.get(type(example), "number")}


def _seen(schema: Any, hidden: str) -> Any:
    """The same as one side must write it. A field that is not in it is one that we made up."""
    if isinstance(schema, list):
        return [_seen(part, hidden) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _seen(part, hidden) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        parts = found["properties"]
        gone = {key for key, part in schema["properties"].items() if part.get(hidden)}
        found["properties"] = {key: part for key, part in parts.items() if key not in gone}
        found["required"] = [key for key in schema.get("required", ()) if key not in gone]
        found.setdefault("additionalProperties", False)
    return found


def _told(where: str, body: bytes, schema: Any) -> Iterator[str]:
    if not body or not schema:
        return
    try:
        document = json.loads(body)
    except ValueError:
        yield f"{where}: no JSON"
        return
    for error in Draft202012Validator(schema).iter_errors(document):
        yield f"{where} {error.json_path}: {error.message[:200]}"


def problems(exchanges: list[Exchange]) -> list[str]:
    """Return what is wrong in them, each thing once."""
    return list(dict.fromkeys(problem for exchange in exchanges for problem in exchange.problems()))
