"""Partial answers: `items(name,disks/source),nextPageToken`, as a client selects fields of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from vmrunner_localclouds.gce import discovery
from vmrunner_localclouds.gce.api_error import GceRefusal
from vmrunner_localclouds.gce.discovery import Json

_WORD: Final = re.compile(r"\s*([A-Za-z0-9_*]+|[(),./])")

#: Field → what is selected of it; nothing: all.
Mask = dict[str, Any]


def only(answer: Json, text: str, schema: str) -> Json:
    """The fields of an answer of this schema that the mask names. Raises `GceRefusal` for a field
    that the schema lacks, and for a malformed mask."""
    tokens = _WORD.findall(text)
    if "".join(tokens) != re.sub(r"\s", "", text):
        raise _wrong(text)
    mask = _fields(tokens, text)
    if tokens:
        raise _wrong(text)
    _check(mask, {"$ref": schema})
    kept: Json = _kept(answer, mask)
    return kept


def _fields(tokens: list[str], text: str) -> Mask:
    """A mask from the tokens, which it takes off the front."""
    mask: Mask = {}
    while True:
        node = mask
        while True:
            if not tokens or tokens[0] in "(),./":
                raise _wrong(text)
            node = node.setdefault(tokens.pop(0), {})
            if not tokens or tokens[0] not in "./":
                break
            tokens.pop(0)
        if tokens and tokens[0] == "(":
            tokens.pop(0)
            node |= _fields(tokens, text)
            if not tokens or tokens.pop(0) != ")":
                raise _wrong(text)
        if not tokens or tokens[0] != ",":
            return mask
        tokens.pop(0)


def _check(mask: Mask, schema: Mapping[str, Any]) -> None:
    schema = schema.get("items", schema)
    if "$ref" in schema:
        schema = discovery.schema(schema["$ref"])
    for name, inner in mask.items():
        field_schema = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
        if field_schema is not None:
            _check(inner, field_schema)
        elif name != "*":
            raise _wrong(name)


def _kept(value: Any, mask: Mask) -> Any:
    if isinstance(value, list):
        return [_kept(item, mask) for item in value]
    if not mask or not isinstance(value, dict):
        return value
    chosen = {name: mask.get(name, mask.get("*")) for name in value}
    return {name: _kept(value[name], inner) for name, inner in chosen.items() if inner is not None}


def _wrong(text: str) -> GceRefusal:
    return GceRefusal(400, "invalidParameter", f"Invalid field selection {text}")
