"""Server-side apply (kubernetes.io, "Server-Side Apply"): each manager owns the fields that it has
applied, one of somebody else's is a conflict, and one that its owner applies no more is removed. An
object that was made otherwise belongs to `before-first-apply`, until then."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vmrunner_localclouds.kube import timestamps
from vmrunner_localclouds.kube.api_error import Json, KubeRefusal
from vmrunner_localclouds.kube.kinds import Kind

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube
    from vmrunner_localclouds.kube.schemas import Schemas

#: A field is `f:name`, an item of a list is `k:{…}` or `v:…`: as `fieldsV1` writes them.
Path = tuple[str, ...]

_FIRST: Final = "before-first-apply"
_SYSTEM: Final = frozenset({"f:apiVersion", "f:kind", "f:status"})
_NAMES: Final = frozenset(
    {
        *("f:name", "f:namespace", "f:uid", "f:resourceVersion", "f:generation"),
        *("f:creationTimestamp", "f:managedFields", "f:selfLink", "f:deletionTimestamp"),
    }
)


class _Owner(NamedTuple):
    manager: str
    operation: str  # Apply or Update


def applied(
    cloud: LocalKube, kind: Kind, before: Json | None, config: Json, manager: str, *, force: bool
) -> Json:
    """The object after an apply, with its `managedFields`. Raises `KubeRefusal`: 409."""
    schemas, schema = cloud.schemas, _schema(cloud, kind)
    wanted = {p for p in paths(schemas, schema, config) if not _is_system(p)}
    owners = _owners(cloud, kind, before)
    own = _Owner(manager, "Apply")
    former = owners.pop(own, set())
    clashes = [
        (owner, path)
        for owner, owned in owners.items()
        for path in sorted(owned & wanted)
        if before is not None
        and value_at(schemas, schema, before, path) != value_at(schemas, schema, config, path)
    ]
    if clashes and not force:
        raise _conflict(kind, clashes)
    for owner, path in clashes:
        owners[owner].discard(path)
    shown: Json = _merged(schemas, schema, copy.deepcopy(before or {}), config)
    kept = wanted.union(*owners.values())
    for path in sorted(former - kept, key=len, reverse=True):
        _remove(schemas, schema, shown, path)
    owners[own] = wanted
    shown["metadata"]["managedFields"] = _written(cloud, kind, owners)
    return shown


def updated(cloud: LocalKube, kind: Kind, before: Json, shown: Json, manager: str) -> None:
    """Give fields that another write has changed to its manager, where owners are known."""
    if not before["metadata"].get("managedFields"):
        return
    schemas, schema = cloud.schemas, _schema(cloud, kind)
    owners = _owners(cloud, kind, before)
    changed = {
        path
        for path in paths(schemas, schema, shown)
        if not _is_system(path)
        and value_at(schemas, schema, before, path) != value_at(schemas, schema, shown, path)
    }
    for owned in owners.values():
        owned -= changed
    if changed:
        owners.setdefault(_Owner(manager, "Update"), set()).update(changed)
    shown["metadata"]["managedFields"] = _written(cloud, kind, owners)


def paths(schemas: Schemas, schema: Json, value: Any, prefix: Path = ()) -> Iterator[Path]:
    """The leaves of a value: what one manager owns as a whole."""
    schema = schemas.resolve(schema)
    if isinstance(value, dict) and value and schema.get("x-kubernetes-map-type") != "atomic":
        for key, part in value.items():
            yield from paths(schemas, _inner(schema, key), part, (*prefix, f"f:{key}"))
    elif isinstance(value, list) and _keyed(schema):
        for item in value:
            path = (*prefix, _item(schema, item))
            yield path
            if isinstance(item, dict):
                yield from paths(schemas, schema["items"], item, path)
    else:
        yield prefix


def value_at(schemas: Schemas, schema: Json, value: Any, path: Path) -> Any:
    """The value of a path; None: there is none. An item of a list is only there or not."""
    for number, part in enumerate(path):
        schema = schemas.resolve(schema)
        if part.startswith("f:"):
            if not isinstance(value, dict) or part[2:] not in value:
                return None
            schema, value = _inner(schema, part[2:]), value[part[2:]]
            continue
        found = [item for item in value or () if _item(schema, item) == part]
        if not found:
            return None
        if number == len(path) - 1:
            return part
        schema, value = schema["items"], found[0]
    return value


# --- within ---


def _schema(cloud: LocalKube, kind: Kind) -> Json:
    return cloud.schemas.definition(kind.schema) if kind.schema else {}


def _inner(schema: Json, key: str) -> Json:
    found = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
    return found if isinstance(found, dict) else {}


def _keyed(schema: Json) -> bool:
    return schema.get("x-kubernetes-list-type") in ("map", "set")


def _item(schema: Json, item: Any) -> str:
    if schema["x-kubernetes-list-type"] == "set":
        return f"v:{json.dumps(item)}"
    keys = {key: item.get(key) for key in schema["x-kubernetes-list-map-keys"]}
    return f"k:{json.dumps({k: v for k, v in keys.items() if v is not None}, sort_keys=True)}"


def _is_system(path: Path) -> bool:
    return (path[:1] and path[0] in _SYSTEM) or (path[:1] == ("f:metadata",) and path[1] in _NAMES)


def _merged(schemas: Schemas, schema: Json, target: Any, config: Any) -> Any:
    schema = schemas.resolve(schema)
    if isinstance(config, dict) and schema.get("x-kubernetes-map-type") != "atomic":
        made = target if isinstance(target, dict) else {}
        for key, part in config.items():
            made[key] = _merged(schemas, _inner(schema, key), made.get(key), part)
        return made
    if isinstance(config, list) and _keyed(schema):
        items = list(target) if isinstance(target, list) else []
        for item in config:
            name = _item(schema, item)
            at = next((n for n, each in enumerate(items) if _item(schema, each) == name), None)
            if at is None:
                items.append(copy.deepcopy(item))
            elif isinstance(item, dict):
                items[at] = _merged(schemas, schema["items"], items[at], item)
        return items
    return copy.deepcopy(config)


def _remove(schemas: Schemas, schema: Json, value: Any, path: Path) -> None:
    for part in path[:-1]:
        schema = schemas.resolve(schema)
        if part.startswith("f:"):
            schema, value = _inner(schema, part[2:]), (value or {}).get(part[2:])
        else:
            found = [item for item in value or () if _item(schema, item) == part]
            schema, value = schema["items"], found[0] if found else None
        if value is None:
            return
    last = path[-1]
    if last.startswith("f:"):
        value.pop(last[2:], None)
    else:
        schema = schemas.resolve(schema)
        value[:] = [item for item in value if _item(schema, item) != last]


def _owners(cloud: LocalKube, kind: Kind, before: Json | None) -> dict[_Owner, set[Path]]:
    if before is None:
        return {}
    managed = before["metadata"].get("managedFields")
    if not managed:
        found = paths(cloud.schemas, _schema(cloud, kind), before)
        return {_Owner(_FIRST, "Update"): {path for path in found if not _is_system(path)}}
    return {
        _Owner(each["manager"], each["operation"]): set(_flat(each["fieldsV1"])) for each in managed
    }


def _flat(fields: Mapping[str, Any], prefix: Path = ()) -> Iterator[Path]:
    if not fields:
        yield prefix
    for key, inner in fields.items():
        if key == ".":
            yield prefix
        else:
            yield from _flat(inner, (*prefix, key))


def _written(cloud: LocalKube, kind: Kind, owners: Mapping[_Owner, Iterable[Path]]) -> list[Json]:
    made = []
    for owner, owned in owners.items():
        fields: Json = {}
        for path in sorted(owned):
            at = fields
            for part in path:
                at = at.setdefault(part, {})
            if path[-1][:2] in ("k:", "v:"):
                at["."] = {}
        if fields:
            made.append(
                {
                    "manager": owner.manager,
                    "operation": owner.operation,
                    "apiVersion": kind.group_version,
                    "time": timestamps.written(cloud.now()),
                    "fieldsType": "FieldsV1",
                    "fieldsV1": fields,
                }
            )
    return made


def _conflict(kind: Kind, clashes: list[tuple[_Owner, Path]]) -> KubeRefusal:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{owner.manager}" using {kind.group_version}',
            "field": "".join(f".{p[2:]}" if p[:2] == "f:" else f"[{p[2:]}]" for p in path),
        }
        for owner, path in clashes
    ]
    lines = "\n".join(f"- {cause['message']}: {cause['field']}" for cause in causes)
    count = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    text = f"Apply failed with {count}: {lines[2:] if len(causes) == 1 else lines}"
    return KubeRefusal(409, text, details={"causes": causes})
