"""Writes: create, update, patch (apiserver pkg/endpoints/handlers, pkg/registry/generic/registry
of 1.34.2)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vmrunner_localclouds.kube import apply, deletes, metadata, patches
from vmrunner_localclouds.kube.api_error import (
    Cause,
    Json,
    KubeRefusal,
    bad_request,
    conflict,
    exists,
    forbidden,
    invalid,
    missing,
    not_found,
)
from vmrunner_localclouds.kube.kinds import NAMESPACES, SECRETS, Kind
from vmrunner_localclouds.kube.requests import KubeRequest
from vmrunner_localclouds.kube.secret_rules import take_text

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

_MODES: Final = ("", "Strict", "Warn", "Ignore")
_MODIFIED: Final = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


class Written(NamedTuple):
    """The answer to a write: a status, the object, and warnings for the header."""

    status: int
    object: Json
    warnings: tuple[str, ...] = ()


def create(cloud: LocalKube, kind: Kind, request: KubeRequest) -> Written:
    shown, warnings = _decoded(cloud, kind, request, request.document)
    made = add(cloud, kind, shown, request.namespace, dry=_dry(request))
    return Written(201, made, warnings + cloud.security.warnings(kind, made))


def update(cloud: LocalKube, kind: Kind, request: KubeRequest) -> Written:
    before = current(cloud, kind, request)
    shown, warnings = _decoded(cloud, kind, request, request.document)
    status = request.subresource == "status"
    apply.updated(cloud, kind, before, shown, _manager(request))
    written = change(cloud, kind, before, shown, status=status, dry=_dry(request))
    return Written(200, written, warnings)


def patch(cloud: LocalKube, kind: Kind, request: KubeRequest) -> Written:
    if request.content == patches.APPLY:
        return _apply(cloud, kind, request)
    before = current(cloud, kind, request)
    shown = _patched(cloud, kind, request, before)
    shown, warnings = _decoded(cloud, kind, request, shown)
    status = request.subresource == "status"
    apply.updated(cloud, kind, before, shown, _manager(request))
    written = change(cloud, kind, before, shown, status=status, dry=_dry(request))
    return Written(200, written, warnings)


def current(cloud: LocalKube, kind: Kind, request: KubeRequest) -> Json:
    """Raises `KubeRefusal` where there is none."""
    namespace = request.namespace if kind.namespaced else ""
    found = cloud.store.get(kind, namespace, request.name)
    if found is None:
        raise not_found(kind.resource, request.name)
    return found


def add(cloud: LocalKube, kind: Kind, shown: Json, namespace: str, *, dry: bool = False) -> Json:
    """Write a new object, which is the caller's to give away. Raises `KubeRefusal`."""
    own = shown["metadata"]
    if own.get("resourceVersion"):
        text = "resourceVersion should not be set on objects to be created"
        raise KubeRefusal(500, text)
    if kind.namespaced:
        own["namespace"] = namespace
        _admit_namespace(cloud, kind, namespace, str(own.get("name", "")))
    else:
        own.pop("namespace", None)
    metadata.begin(cloud, kind, shown)
    strategy = cloud.strategy(kind)
    _refuse(kind, shown, metadata.problems(kind, shown))
    _refuse(kind, shown, _required(cloud, kind, shown))
    if "status" in kind.subresources:
        shown.pop("status", None)
    strategy.fill(cloud, shown)
    _refuse(kind, shown, strategy.problems(shown))
    strategy.admit(cloud, shown)
    cloud.limits.admit(kind, shown)
    cloud.security.admit(kind, shown)
    cloud.quotas.admit(kind, shown)
    if cloud.store.get(kind, own.get("namespace", ""), own["name"]) is not None:
        raise exists(kind.resource, own["name"])
    _judge(cloud, kind, shown)
    return shown if dry else cloud.store.create(kind, shown)


def change(
    cloud: LocalKube,
    kind: Kind,
    before: Json,
    shown: Json,
    *,
    status: bool = False,
    dry: bool = False,
) -> Json:
    """Write a changed object. `status`: by its subresource, else its status stays as it is. Raises
    `KubeRefusal`."""
    own, former = shown["metadata"], before["metadata"]
    if own.get("uid") and own["uid"] != former["uid"]:
        text = f"Precondition failed: UID in precondition: {own['uid']}, UID in object meta: "
        raise conflict(kind.resource, former["name"], text + former["uid"])
    version = own.get("resourceVersion")
    if version and version != former["resourceVersion"]:
        raise conflict(kind.resource, former["name"], _MODIFIED)
    if own.get("name") != former["name"]:
        text = f"the name of the object ({own.get('name')}) does not match the name on the URL"
        raise bad_request(f"{text} ({former['name']})")
    own["namespace"] = former.get("namespace", "")
    if not own["namespace"]:
        del own["namespace"]
    if status:
        shown = {**before, "metadata": own, "status": shown.get("status", {})}
    elif "status" in kind.subresources and "status" in before:
        shown = {**shown, "status": before["status"]}
    if kind is SECRETS:
        take_text(shown)
    metadata.keep(before, shown)
    strategy = cloud.strategy(kind)
    _refuse(kind, shown, metadata.problems(kind, shown) + metadata.update_problems(before, shown))
    _refuse(kind, shown, _required(cloud, kind, shown))
    found = strategy.problems(shown) + strategy.update_problems(before, shown)
    _refuse(kind, shown, found)
    cloud.security.admit_change(kind, before, shown)
    _judge(cloud, kind, shown)
    if dry:
        return shown
    written = cloud.store.replace(kind, before, shown)
    deletes.collect(cloud, kind, written)
    return written


# --- within ---


def _apply(cloud: LocalKube, kind: Kind, request: KubeRequest) -> Written:
    """Server-side apply: it makes what is not there."""
    manager = request.option("fieldManager")
    if not manager:
        raise bad_request("PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
    config, warnings = _decoded(cloud, kind, request, request.document)
    if config["metadata"].get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    namespace = request.namespace if kind.namespaced else ""
    before = cloud.store.get(kind, namespace, request.name)
    force, dry = request.flag("force"), _dry(request)
    if kind is SECRETS:
        take_text(config)
    shown = apply.applied(cloud, kind, before, config, manager, force=force)
    if before is None:
        made = add(cloud, kind, shown, request.namespace, dry=dry)
        return Written(201, made, warnings + cloud.security.warnings(kind, made))
    del shown["metadata"]["resourceVersion"]
    return Written(200, change(cloud, kind, before, shown, dry=dry), warnings)


def _manager(request: KubeRequest) -> str:
    """The name of who writes: as it says, or by its program (handlers/create.go)."""
    agent = request.headers.get("user-agent", "unknown").partition("/")[0]
    return request.option("fieldManager") or agent


def _patched(cloud: LocalKube, kind: Kind, request: KubeRequest, before: Json) -> Json:
    base = copy.deepcopy(before)
    # Its own version is no condition: a patch makes one by naming it.
    del base["metadata"]["resourceVersion"]
    if request.content == patches.JSON:
        return patches.json_patch(base, request.parsed)
    if request.content == patches.MERGE:
        merged: Json = patches.merge(base, request.document)
        return merged
    if request.content == patches.STRATEGIC and not kind.custom:
        schema = cloud.schemas.definition(kind.schema)
        strategic: Json = patches.strategic(cloud.schemas, schema, base, request.document)
        return strategic
    accepted = f"{patches.JSON}, {patches.MERGE}, {patches.STRATEGIC}, {patches.APPLY}"
    text = "the body of the request was in an unknown format - accepted media types include: "
    raise KubeRefusal(415, text + accepted)


def _decoded(
    cloud: LocalKube, kind: Kind, request: KubeRequest, shown: Json
) -> tuple[Json, tuple[str, ...]]:
    """The body, held against the kind's schema, without unknown fields; warnings about these."""
    mode = request.option("fieldValidation")
    if mode not in _MODES:
        raise bad_request(f'fieldValidation: Unsupported value: "{mode}"')
    for field, wanted in (("apiVersion", kind.group_version), ("kind", kind.kind)):
        if shown.get(field, wanted) != wanted:
            what = "API version" if field == "apiVersion" else "kind"
            text = f"the {what} in the data ({shown[field]}) does not match the expected {what}"
            raise bad_request(f"{text} ({wanted})")
        shown[field] = wanted
    if not isinstance(shown.setdefault("metadata", {}), dict):
        raise bad_request(f"{kind.kind}: json: cannot unmarshal into field metadata")
    prefix = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
    found = cloud.schemas.problems(shown, kind.schema) if kind.schema else []
    for problem in found:
        if problem.kind == "type":
            raise bad_request(prefix + problem.message)
    unknown = [problem for problem in found if problem.kind == "unknown"]
    if unknown and mode == "Strict":
        messages = ", ".join(problem.message for problem in unknown)
        raise bad_request(f"{prefix}strict decoding error: {messages}")
    for problem in unknown:
        assert problem.holder is not None
        cloud.rejected.append(f"{request.action}: {problem.message}")
        del problem.holder[problem.key]
    _refuse(
        kind,
        shown,
        [Cause(p.path, "FieldValueNotSupported", p.message) for p in found if p.kind == "enum"],
    )
    _same_place(kind, request, shown)
    warned = tuple(problem.message for problem in unknown) if mode != "Ignore" else ()
    return shown, warned


def _same_place(kind: Kind, request: KubeRequest, shown: Json) -> None:
    own = shown["metadata"]
    wanted = request.namespace if kind.namespaced else ""
    if own.get("namespace") and wanted and own["namespace"] != wanted:
        text = (
            "the namespace of the provided object does not match the namespace sent on the request"
        )
        raise bad_request(text)
    if request.name and own.setdefault("name", request.name) != request.name:
        text = f"the name of the object ({own['name']}) does not match the name on the URL"
        raise bad_request(f"{text} ({request.name})")


def _required(cloud: LocalKube, kind: Kind, shown: Json) -> list[Cause]:
    if not kind.schema:
        return []
    found = cloud.schemas.problems({**shown, "status": None}, kind.schema)
    return [missing(each.path) for each in found if each.kind == "required"]


def _admit_namespace(cloud: LocalKube, kind: Kind, namespace: str, name: str) -> None:
    found = cloud.store.get(NAMESPACES, "", namespace)
    if found is None:
        raise not_found("namespaces", namespace)
    if "deletionTimestamp" in found["metadata"]:
        text = (
            f"unable to create new content in namespace {namespace} because it is being terminated"
        )
        raise forbidden(kind.resource, name, text)


def _refuse(kind: Kind, shown: Json, causes: list[Cause]) -> None:
    if causes:
        raise invalid(kind.qualified, shown["metadata"].get("name", ""), causes)


def _judge(cloud: LocalKube, kind: Kind, shown: Json) -> None:
    """Hold what this cloud is about to store, and so to answer, against the published schema."""
    if kind.schema:
        for problem in cloud.schemas.problems(shown, kind.schema):
            cloud.complaints.append(f"{kind.kind}: {problem.path}: {problem.message}")


def _dry(request: KubeRequest) -> bool:
    found: tuple[Any, ...] = request.query.get("dryRun", ())
    if any(each not in ("", "All") for each in found):
        raise bad_request(f'dryRun: Unsupported value: "{found[0]}": supported values: "All"')
    return "All" in found
