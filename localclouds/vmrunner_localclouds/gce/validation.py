"""Validation of JSON against Google's document. Each schema is made into a function once, when it
is first needed."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from vmrunner_localclouds.gce import discovery

Check = Callable[[Any, str], None]

_RANGES: Final = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}


class Invalid(Exception):
    """`path` is the field, as in `resource.disks[0].boot`."""

    def __init__(self, path: str, message: str, *, unknown: str = "") -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message
        self.unknown = unknown  # the name that the schema lacks


def check(value: Any, name: str, path: str) -> None:
    """Raises `Invalid` with the first thing that schema `name` does not allow in `value`."""
    _by_name(name)(value, path)


def required(value: Any, name: str, method: str, path: str) -> None:
    """Raises `Invalid` when `method` needs a property that is not there."""
    for key, schema in discovery.schema(name).get("properties", {}).items():
        needed = schema.get("annotations", {}).get("required", [])
        if f"compute.{method}" in needed and not value.get(key):
            raise Invalid(f"{path}.{key}", "Required field is not specified")


def parameter(text: str, schema: discovery.Json, path: str) -> None:
    """Check what stands in a path or a query, always text."""
    kind = schema.get("type")
    if kind == "boolean" and text not in ("true", "false"):
        raise Invalid(path, f"Not a boolean: '{text}'")
    if kind == "integer":
        _integer(schema["format"], path, text)
        least, most = schema.get("minimum"), schema.get("maximum")
        if (least and int(text) < int(least)) or (most and int(text) > int(most)):
            raise Invalid(path, f"Must be from {least} to {most}")
    if kind == "string":
        _string(schema)(text, path)


@cache
def _by_name(name: str) -> Check:
    return _compile(discovery.schema(name))


def _compile(schema: discovery.Json) -> Check:
    if "$ref" in schema:
        name = schema["$ref"]
        return lambda value, path: _by_name(name)(value, path)  # it may mention itself
    makers: dict[str, Callable[[discovery.Json], Check]] = {
        "any": lambda _: lambda *_: None,
        "array": _array,
        "boolean": lambda _: _boolean,
        "integer": _number,
        "number": _number,
        "object": _object,
        "string": _string,
    }
    return makers[schema["type"]](schema)


def _boolean(value: Any, path: str) -> None:
    if not isinstance(value, bool):
        raise Invalid(path, f"Not a boolean: {value!r}")


def _number(schema: discovery.Json) -> Check:
    whole = schema["type"] == "integer"

    def number(value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise Invalid(path, f"Not a number: {value!r}")
        if whole:
            _integer(schema["format"], path, str(value))

    return number


def _integer(form: str, path: str, text: str) -> None:
    least, most = _RANGES[form]
    if not re.fullmatch(r"-?\d+", text) or not least <= int(text) <= most:
        raise Invalid(path, f"Not of type {form}: '{text}'")


def _string(schema: discovery.Json) -> Check:
    form = schema.get("format", "")
    allowed = frozenset(schema.get("enum", ()))
    pattern = re.compile(schema["pattern"]) if "pattern" in schema else None

    def string(value: Any, path: str) -> None:
        if not isinstance(value, str):
            raise Invalid(path, f"Not a string: {value!r}")
        if form in _RANGES:
            _integer(form, path, value)
        elif form == "byte":
            _bytes(value, path)
        if allowed and value not in allowed:
            raise Invalid(path, f"'{value}' is none of {', '.join(sorted(allowed))}")
        if pattern is not None and not pattern.fullmatch(value):
            raise Invalid(path, f"Must be a match of regex '{pattern.pattern}'")

    return string


def _bytes(value: str, path: str) -> None:
    try:
        base64.b64decode(value, altchars=b"-_", validate=True)
    except binascii.Error:
        raise Invalid(path, f"Not base64: '{value}'") from None


def _array(schema: discovery.Json) -> Check:
    item = _compile(schema["items"])

    def array(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise Invalid(path, f"Not a list: {value!r}")
        for number, part in enumerate(value):
            item(part, f"{path}[{number}]")

    return array


def _object(schema: discovery.Json) -> Check:
    properties = {key: _compile(part) for key, part in schema.get("properties", {}).items()}
    others = _compile(schema["additionalProperties"]) if "additionalProperties" in schema else None

    def thing(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise Invalid(path, f"Not an object: {value!r}")
        for key, part in value.items():
            check_part = properties.get(key, others)
            if check_part is None:
                raise Invalid(path, f'Unknown name "{key}": Cannot find field.', unknown=key)
            check_part(part, f"{path}.{key}")

    return thing
