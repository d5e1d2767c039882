"""Patches: JSON (RFC 6902), merge (RFC 7386) and strategic merge (apimachinery
pkg/util/strategicpatch, by the keys in the published schema)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

from vmrunner_localclouds.kube.api_error import Json, KubeRefusal, bad_request
from vmrunner_localclouds.kube.schemas import Schemas

JSON: Final = "application/json-patch+json"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"


def merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merge(made.get(key), value)
    return made


# --- JSON patch ---


def json_patch(target: Json, operations: Any) -> Json:
    """Raises `KubeRefusal`: 422 where an operation, a `test` among them, does not hold."""
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    made: Any = copy.deepcopy(target)
    for operation in operations:
        if not isinstance(operation, dict) or operation.get("op") not in _OPERATIONS:
            raise bad_request(f"unexpected kind: {operation}")
        try:
            made = _OPERATIONS[operation["op"]](made, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            text = f"the server rejected our request due to an error in our request ({error})"
            raise KubeRefusal(422, text) from None
    changed: Json = made
    return changed


def _path(pointer: str) -> list[str]:
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"no pointer: {pointer}")
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _at(target: Any, path: list[str]) -> Any:
    for part in path:
        target = target[int(part)] if isinstance(target, list) else target[part]
    return target


def _add(target: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _at(target, path[:-1]), path[-1]
    if isinstance(parent, list):
        at = len(parent) if last == "-" else int(last)
        if not 0 <= at <= len(parent):
            raise IndexError(f"index out of range: {last}")
        parent.insert(at, value)
    else:
        parent[last] = value
    return target


def _remove(target: Any, path: list[str]) -> Any:
    parent, last = _at(target, path[:-1]), path[-1]
    del parent[int(last) if isinstance(parent, list) else last]
    return target


def _replace(target: Any, operation: Json) -> Any:
    path = _path(operation["path"])
    _at(target, path)
    if path and isinstance(parent := _at(target, path[:-1]), list):
        parent[int(path[-1])] = operation["value"]
        return target
    return _add(target, path, operation["value"])


def _test(target: Any, operation: Json) -> Any:
    try:
        found = _at(target, _path(operation["path"]))
    except KeyError:
        found = None
    if found != operation.get("value"):
        raise ValueError(f"testing value {operation['path']} failed: test failed")
    return target


def _move(target: Any, operation: Json) -> Any:
    source = _path(operation["from"])
    value = _at(target, source)
    return _add(_remove(target, source), _path(operation["path"]), value)


def _copy(target: Any, operation: Json) -> Any:
    value = copy.deepcopy(_at(target, _path(operation["from"])))
    return _add(target, _path(operation["path"]), value)


_OPERATIONS: Final[dict[str, Callable[[Any, Json], Any]]] = {
    "add": lambda target, op: _add(target, _path(op["path"]), op["value"]),
    "remove": lambda target, op: _remove(target, _path(op["path"])),
    "replace": _replace,
    "test": _test,
    "move": _move,
    "copy": _copy,
}


# --- strategic merge ---


def strategic(schemas: Schemas, schema: Json, target: Any, patch: Any) -> Any:
    """Merge as the schema's `x-kubernetes-patch-strategy` and `…-merge-key` tell."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    schema = schemas.resolve(schema)
    made = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            _directive(made, key, value)
            continue
        if value is None:
            made.pop(key, None)
            continue
        inner = schema.get("properties", {}).get(key) or schema.get("additionalProperties") or {}
        inner = inner if isinstance(inner, dict) else {}
        if isinstance(value, list):
            made[key] = _list(schemas, inner, made.get(key) or [], value)
        else:
            made[key] = strategic(schemas, inner, made.get(key), value)
    return made


def _directive(made: Json, key: str, value: Any) -> None:
    name, _, field = key.partition("/")
    if name == "$deleteFromPrimitiveList":
        made[field] = [each for each in made.get(field) or () if each not in value]
    elif name == "$retainKeys":
        for gone in set(made) - set(value):
            del made[gone]


def _list(schemas: Schemas, schema: Json, target: list[Any], patch: list[Any]) -> list[Any]:
    if "merge" not in str(schema.get("x-kubernetes-patch-strategy", "")):
        return copy.deepcopy(patch)
    key = schema.get("x-kubernetes-patch-merge-key")
    made = list(target)
    for item in patch:
        if key is None or not isinstance(item, dict):
            if item not in made:
                made.append(item)
            continue
        at = next((n for n, each in enumerate(made) if each.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del made[at]
        elif at is None:
            made.append(strategic(schemas, schema["items"], {}, item))
        else:
            made[at] = strategic(schemas, schema["items"], made[at], item)
    return made
