"""Google's own description of Compute v1: which methods there are, and what they take and give."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

Json = dict[str, Any]

#: Where the API begins, on every host.
BASE: Final = "/compute/v1/"


class Method(NamedTuple):
    """`id` is `instances.insert`; `request` and `response` are names of schemas, or empty."""

    id: str
    verb: str
    path: Sequence[str]  # segments; `{zone}` stands for any
    parameters: Mapping[str, Json]
    request: str
    response: str


class Found(NamedTuple):
    """A method, and the parameters in its path."""

    method: Method
    path: Mapping[str, str]


@cache
def document() -> Json:
    """The 5 MB that google-api-python-client ships, read once a process."""
    directory = files("googleapiclient") / "discovery_cache" / "documents"
    loaded: Json = json.loads((directory / "compute.v1.json").read_bytes())
    return loaded


@cache
def methods() -> Mapping[str, Method]:
    """All of Google's methods, by id."""
    return {method.id: method for method in _methods(document()["resources"])}


def find(verb: str, path: str) -> Found | None:
    """The method that answers here; None: Google has none. `path` is relative to `BASE`."""
    values: list[str] = []
    segments = path.split("/")
    method = _descend(_tree(), verb, segments, values)
    if method is None:
        return None
    names = [part[1:-1] for part in method.path if part.startswith("{")]
    return Found(method, dict(zip(names, values, strict=True)))


def common_parameters() -> Mapping[str, Json]:
    """The parameters that every method takes in its query."""
    parameters: dict[str, Json] = document()["parameters"]
    return parameters


def schema(name: str) -> Json:
    found: Json = document()["schemas"][name]
    return found


@cache
def outputs(name: str) -> frozenset[str]:
    """The properties that only the service writes: a client's values for them are ignored."""
    properties = schema(name)["properties"]
    output_only = re.compile(r"\[?Output[ -][Oo]nly")
    return frozenset(
        key
        for key, definition in properties.items()
        if definition.get("readOnly") or output_only.search(definition.get("description", ""))
    )


def _methods(resources: Json) -> Iterator[Method]:
    for resource in resources.values():
        for method in resource.get("methods", {}).values():
            yield Method(
                id=method["id"].removeprefix("compute."),
                verb=method["httpMethod"],
                path=tuple(method["path"].split("/")),
                parameters=method.get("parameters", {}),
                request=method.get("request", {}).get("$ref", ""),
                response=method.get("response", {}).get("$ref", ""),
            )


@cache
def _tree() -> Json:
    """Segment → subtree, and at the end of a path its verb → method."""
    root: Json = {}
    for method in methods().values():
        node = root
        for part in method.path:
            node = node.setdefault("{}" if part.startswith("{") else part, {})
        node[f" {method.verb}"] = method  # no segment begins with a space
    return root


def _descend(node: Json, verb: str, segments: Sequence[str], values: list[str]) -> Method | None:
    if not segments:
        found: Method | None = node.get(f" {verb}")
        return found
    head, rest = segments[0], segments[1:]
    if head in node and (found := _descend(node[head], verb, rest, values)) is not None:
        return found
    if "{}" not in node or not head:
        return None
    values.append(head)
    found = _descend(node["{}"], verb, rest, values)
    if found is None:
        values.pop()
    return found
