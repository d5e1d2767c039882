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
    """Return what this mask leaves of an answer of this schema. Raises `GceRefusal` for a field
    that it has not, and for what is no mask."""
    words = _WORD.findall(text)
    if "".join(words) != re.sub(r"\s", "", text):
        raise _wrong(text)
    mask = _fields(words, text)
    if words:
        raise _wrong(text)
    _check(mask, {"$ref": schema})
    kept: Json = _kept(answer, mask)
    return kept


def _fields(words: list[str], text: str) -> Mask:
    """Takes its words off the front."""
    mask: Mask = {}
    while True:
        node = mask
        while True:
            if not words or words[0] in "(),./":
                raise _wrong(text)
            node = node.setdefault(words.pop(0), {})
            if not words or words[0] not in "./":
                break
            words.pop(0)
        if words and words[0] == "(":
            words.pop(0)
            node |= _fields(words, text)
            if not words or words.pop(0) != ")":
                raise _wrong(text)
        if not words or words[0] != ",":
            return mask
        words.pop(0)


def _check(mask: Mask, said: Mapping[str, Any]) -> None:
    said = said.get("items", said)
    if "$ref" in said:
        said = discovery.schema(said["$ref"])
    for name, inner in mask.items():
        known = said.get("properties", {}).get(name) or said.get("additionalProperties")
        if known is not None:
            _check(inner, known)
        elif name != "*":
            raise _wrong(name)


def _kept(value: Any, mask: Mask) -> Any:
    if isinstance(value, list):
        return [_kept(one, mask) for one in value]
    if not mask or not isinstance(value, dict):
        return value
    chosen = {name: mask.get(name, mask.get("*")) for name in value}
    return {name: _kept(value[name], one) for name, one in chosen.items() if one is not None}


def _wrong(text: str) -> GceRefusal:
    return GceRefusal(400, "invalidParameter", f"Invalid field selection {text}")
