"""Documents by which clients learn what the API has: groups, versions, resources, and as much of
OpenAPI as `kubectl` looks into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrunner_localclouds.kube.api_error import Json, KubeRefusal
from vmrunner_localclouds.kube.kinds import KUBEVIRT_STREAMS, Kind

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

#: Reviews that are made and not kept.
_REVIEWS = {
    "authorization.k8s.io/v1": ("SelfSubjectAccessReview", "SelfSubjectRulesReview"),
    "authentication.k8s.io/v1": ("SelfSubjectReview",),
}


def document(cloud: LocalKube, path: str) -> Json | str:
    """The document of a path, or text. Raises `KubeRefusal`: 404."""
    path = path.rstrip("/")
    if path in ("/healthz", "/livez", "/readyz"):
        return "ok"
    if path == "/version":
        return _version(cloud)
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    groups = _groups(cloud)
    if path == "/apis":
        shown = [_group(group, versions) for group, versions in groups.items() if group]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": shown}
    if path == "/openapi/v3":
        paths = {}
        for group, versions in groups.items():
            for version in versions:
                place = f"apis/{group}/{version}" if group else f"api/{version}"
                paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash=1"}
        return {"paths": paths}
    parts = path.strip("/").split("/")
    if parts[:2] == ["openapi", "v3"]:
        return _openapi(cloud, *_group_version(parts[2:]))
    if parts[0] in ("api", "apis"):
        group, version = _group_version(parts)
        if not version and group in groups:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, groups[group])}
        if version in groups.get(group, ()):
            return _resources(cloud, group, version)
    raise KubeRefusal(404, "the server could not find the requested resource")


def _group_version(parts: list[str]) -> tuple[str, str]:
    if parts[0] == "api":
        return "", parts[1] if len(parts) == 2 else "?"
    if parts[0] != "apis" or len(parts) > 3:
        return "?", "?"
    return parts[1], parts[2] if len(parts) == 3 else ""


def _version(cloud: LocalKube) -> Json:
    major, minor = cloud.version.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{cloud.version}.2",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2025-11-11T00:00:00Z",
        "goVersion": "go1.24.9",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def _groups(cloud: LocalKube) -> dict[str, list[str]]:
    """Versions by group; the core's is the empty one."""
    found: dict[str, list[str]] = {"": ["v1"]}
    for kind in cloud.kinds.values():
        versions = found.setdefault(kind.group, [])
        if kind.version not in versions:
            versions.append(kind.version)
    for api in _REVIEWS:
        found.setdefault(api.partition("/")[0], ["v1"])
    found.setdefault(KUBEVIRT_STREAMS, ["v1"])
    return found


def _group(group: str, versions: list[str]) -> Json:
    shown = [{"groupVersion": f"{group}/{each}", "version": each} for each in versions]
    return {"name": group, "versions": shown, "preferredVersion": shown[0]}


def _resources(cloud: LocalKube, group: str, version: str) -> Json:
    api = f"{group}/{version}" if group else version
    shown: list[Json] = []
    for kind in cloud.kinds.values():
        if (kind.group, kind.version) == (group, version):
            shown.append(_resource(kind))
            shown += [_subresource(kind, each) for each in kind.subresources]
    for each in _REVIEWS.get(api, ()):
        review = {"name": f"{each.lower()}s", "singularName": "", "namespaced": False}
        shown.append(review | {"kind": each, "verbs": ["create"]})
    if group == KUBEVIRT_STREAMS:
        for name in ("portforward", "console"):
            stream: Json = {"name": f"virtualmachineinstances/{name}", "singularName": ""}
            stream |= {"namespaced": True, "kind": "VirtualMachineInstance", "verbs": ["get"]}
            shown.append(stream)
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api, "resources": shown}


def _resource(kind: Kind) -> Json:
    return {
        "name": kind.plural,
        "singularName": kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
        **({"shortNames": list(kind.short)} if kind.short else {}),
    }


def _subresource(kind: Kind, name: str) -> Json:
    special = {
        "exec": ("PodExecOptions", ["create", "get"]),
        "attach": ("PodAttachOptions", ["create", "get"]),
        "portforward": ("PodPortForwardOptions", ["create", "get"]),
        "log": (kind.kind, ["get"]),
        "eviction": ("Eviction", ["create"]),
        "token": ("TokenRequest", ["create"]),
    }
    shown, verbs = special.get(name, (kind.kind, ["get", "patch", "update"]))
    return {
        "name": f"{kind.plural}/{name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": shown,
        "verbs": verbs,
    }


def _openapi(cloud: LocalKube, group: str, version: str) -> Json:
    """Paths that tell that each kind can be patched with `fieldValidation`."""
    prefix = f"/apis/{group}/{version}" if group else f"/api/{version}"
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
        for name in ("dryRun", "fieldManager", "fieldValidation", "force")
    ]
    paths: Json = {}
    for kind in cloud.kinds.values():
        if (kind.group, kind.version) != (group, version):
            continue
        where = "/namespaces/{namespace}" if kind.namespaced else ""
        names = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        operation = {
            "operationId": f"patch{kind.kind}",
            "parameters": parameters,
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": names,
        }
        paths[f"{prefix}{where}/{kind.plural}/{{name}}"] = {"patch": operation}
    if not paths:
        raise KubeRefusal(404, "the server could not find the requested resource")
    info = {"title": "Kubernetes", "version": f"v{cloud.version}.2"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}
