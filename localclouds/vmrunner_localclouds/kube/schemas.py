"""Published schemas: Kubernetes' own as the package kubernetes-validate has them, KubeVirt's as its
repository has it (data/, Apache-2.0), and those of a CustomResourceDefinition.

Each is made into a function once, when it is first needed."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from vmrunner_localclouds.kube.api_error import Json

_DATA: Final = Path(__file__).resolve().parent / "data"
_RANGES: Final = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_QUANTITY: Final = re.compile(
    r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?"
)
_NO_QUANTITY: Final = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_QUANTITIES: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"


class Problem(NamedTuple):
    """One thing that a schema does not allow. `kind`: unknown, type, required or enum. An unknown
    field is `key` of `holder`."""

    path: str
    kind: str
    message: str
    holder: Json | None = None
    key: str = ""


Problems = list[Problem]
Check = Callable[[Any, str, Problems], None]


class Schemas:
    """All schemas of one version of Kubernetes: `1.34`."""

    def __init__(self, version: str) -> None:
        self.version = version
        self._definitions = dict(_core(version)) | _kubevirt()
        self._made: dict[str, Check] = {}

    def definition(self, name: str) -> Json:
        found: Json = self._definitions[name]
        return found

    def add(self, name: str, schema: Json) -> None:
        """Take the schema of a custom resource."""
        self._definitions[name] = schema
        self._made.pop(name, None)

    def problems(self, value: Any, name: str, path: str = "") -> Problems:
        """All things that schema `name` does not allow in `value`."""
        found: Problems = []
        self._by_name(name)(value, path, found)
        return found

    def resolve(self, schema: Json) -> Json:
        """The schema itself, where one is only named."""
        return self.definition(_name(schema["$ref"])) if "$ref" in schema else schema

    # --- within ---

    def _by_name(self, name: str) -> Check:
        made = self._made.get(name)
        if made is None:
            schema = self._definitions[name]
            made = _quantity if name == _QUANTITIES else self._compile(schema)
            self._made[name] = made
        return made

    def _compile(self, schema: Json) -> Check:
        if "$ref" in schema:
            name = _name(schema["$ref"])
            return lambda value, path, found: self._by_name(name)(value, path, found)
        if "oneOf" in schema or schema.get("x-kubernetes-int-or-string"):
            return _text_or_number
        if schema.get("format") == "int-or-string":
            return _text_or_number
        kinds = schema.get("type", ())
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        kinds.discard("null")
        if kinds == {"array"}:
            return self._array(schema)
        if kinds == {"object"} or "properties" in schema:
            return self._object(schema)
        makers: Mapping[str, Callable[[Json], Check]] = {
            "boolean": lambda _: _boolean,
            "integer": _number,
            "number": _number,
            "string": _string,
        }
        return makers[kinds.pop()](schema) if len(kinds) == 1 else _anything

    def _array(self, schema: Json) -> Check:
        item = self._compile(schema["items"])

        def array(value: Any, path: str, found: Problems) -> None:
            if value is None:
                return
            if not isinstance(value, list):
                found.append(_mismatch(path, value, "array"))
                return
            for number, part in enumerate(value):
                item(part, f"{path}[{number}]", found)

        return array

    def _object(self, schema: Json) -> Check:
        properties = {
            key: self._compile(part) for key, part in schema.get("properties", {}).items()
        }
        more = schema.get("additionalProperties")
        others = self._compile(more) if isinstance(more, dict) else None
        required = frozenset(schema.get("required", ()))
        free = not properties and others is None
        free = free or bool(schema.get("x-kubernetes-preserve-unknown-fields"))

        def thing(value: Any, path: str, found: Problems) -> None:
            if value is None:
                return
            if not isinstance(value, dict):
                found.append(_mismatch(path, value, "object"))
                return
            for key, part in value.items():
                check = properties.get(key, others)
                inner = f"{path}.{key}" if path else key
                if check is not None:
                    check(part, inner, found)
                elif not free:
                    text = f'unknown field "{inner}"'
                    found.append(Problem(inner, "unknown", text, value, key))
            for key in required:
                if value.get(key) is None:
                    inner = f"{path}.{key}" if path else key
                    found.append(Problem(inner, "required", "Required value"))

        return thing


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _mismatch(path: str, value: Any, wanted: str) -> Problem:
    kind = "string" if isinstance(value, str) else type(value).__name__
    return Problem(
        path, "type", f"json: cannot unmarshal {kind} into field {path} of type {wanted}"
    )


def _anything(_: Any, __: str, ___: Problems) -> None:
    """Let it pass."""


def _text_or_number(value: Any, path: str, found: Problems) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
        found.append(_mismatch(path, value, "string or integer"))


def _quantity(value: Any, path: str, found: Problems) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        found.append(Problem(path, "type", _NO_QUANTITY))


def _boolean(value: Any, path: str, found: Problems) -> None:
    if value is not None and not isinstance(value, bool):
        found.append(_mismatch(path, value, "bool"))


def _number(schema: Json) -> Check:
    whole = schema["type"] == "integer" or "integer" in schema["type"]
    least, most = _RANGES.get(schema.get("format", "int64"), _RANGES["int64"])

    def number(value: Any, path: str, found: Problems) -> None:
        if value is None:
            return
        fits = isinstance(value, int) or (not whole and isinstance(value, float))
        if isinstance(value, bool) or not fits or (whole and not least <= value <= most):
            found.append(_mismatch(path, value, str(schema.get("format", "integer"))))

    return number


def _string(schema: Json) -> Check:
    form = schema.get("format", "")
    allowed = frozenset(schema.get("enum", ()))

    def string(value: Any, path: str, found: Problems) -> None:
        if value is None:
            return
        if not isinstance(value, str):
            found.append(_mismatch(path, value, "string"))
        elif form == "byte" and not _is_base64(value):
            found.append(Problem(path, "type", f"illegal base64 data in field {path}"))
        elif form == "date-time" and not _TIME.fullmatch(value):
            found.append(Problem(path, "type", f'parsing time "{value}" in field {path}'))
        elif allowed and value not in allowed:
            words = ", ".join(f'"{each}"' for each in sorted(allowed))
            text = f'Unsupported value: "{value}": supported values: {words}'
            found.append(Problem(path, "enum", text))

    return string


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    return True


@cache
def _core(version: str) -> Json:
    """Definitions of Kubernetes, by name."""
    found = find_spec("kubernetes_validate")
    assert found is not None
    assert found.submodule_search_locations is not None
    package = Path(found.submodule_search_locations[0])
    file = package / f"kubernetes-json-schema/v{version}.0-local-strict/_definitions.json"
    definitions: Json = json.loads(file.read_text())["$defs"]
    return definitions


@cache
def _kubevirt() -> Json:
    text = (_DATA / "kubevirt-vmi.schema.json").read_text()
    definitions: Json = json.loads(text)["definitions"]
    return definitions
