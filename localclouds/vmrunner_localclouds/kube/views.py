"""Views of objects that a client asks for by `Accept`: whole, metadata alone, or rows of a table
(apiserver pkg/endpoints/handlers/negotiation, pkg/printers/internalversion/printers.go)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.kube import timestamps
from vmrunner_localclouds.kube.api_error import Json, KubeRefusal
from vmrunner_localclouds.kube.kinds import JOBS, NAMESPACES, NODES, PODS, SECRETS, VMIS, Kind

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

View = Callable[[Json], Json]
_META: Final = "meta.k8s.io/v1"
_UNITS: Final = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def view(cloud: LocalKube, kind: Kind, accept: str) -> View:
    """The first view that is wanted and known. Raises `KubeRefusal`: 406."""
    for part in (accept or "*/*").split(","):
        form, *words = (word.strip() for word in part.split(";"))
        wanted = dict(word.partition("=")[::2] for word in words)
        if form not in ("*/*", "application/*", "application/json"):
            continue
        if wanted.get("as") == "Table" and wanted.get("v") == "v1":
            return lambda shown: _table(cloud, kind, shown)
        if wanted.get("as", "").startswith("PartialObjectMetadata") and wanted.get("v") == "v1":
            return _partial
        if "as" not in wanted:
            return lambda shown: shown
    text = "only the following media types are accepted: application/json"
    raise KubeRefusal(406, text)


def _partial(shown: Json) -> Json:
    if "items" in shown:
        items = [_metadata(each) for each in shown["items"]]
        head = {"kind": "PartialObjectMetadataList", "apiVersion": _META}
        return head | {"metadata": shown["metadata"], "items": items}
    return _metadata(shown)


def _metadata(shown: Json) -> Json:
    head = {"kind": "PartialObjectMetadata", "apiVersion": _META}
    return head | {"metadata": shown["metadata"]}


def _table(cloud: LocalKube, kind: Kind, shown: Json) -> Json:
    items = shown.get("items", [shown])
    columns = _COLUMNS.get(kind, {"Name": _name, "Age": _age})
    definitions = [
        {
            "name": name,
            "type": "string",
            "format": "name" if name == "Name" else "",
            "description": name,
            "priority": 0,
        }
        for name in columns
    ]
    rows = [
        {"cells": [cell(cloud, each) for cell in columns.values()], "object": _metadata(each)}
        for each in items
    ]
    metadata = shown["metadata"] if "items" in shown else {}
    version = {"resourceVersion": shown["metadata"].get("resourceVersion", "")}
    return {
        "kind": "Table",
        "apiVersion": _META,
        "metadata": version | {k: v for k, v in metadata.items() if k != "resourceVersion"},
        "columnDefinitions": definitions,
        "rows": rows,
    }


# --- cells ---


def _name(_: LocalKube, shown: Json) -> Any:
    return shown["metadata"]["name"]


def _age(cloud: LocalKube, shown: Json) -> Any:
    since = cloud.now() - timestamps.read(shown["metadata"]["creationTimestamp"])
    for unit, seconds in _UNITS:
        if since >= seconds:
            return f"{int(since // seconds)}{unit}"
    return "0s"


def _ready(_: LocalKube, pod: Json) -> Any:
    statuses = pod["status"].get("containerStatuses", ())
    return f"{sum(each['ready'] for each in statuses)}/{len(pod['spec']['containers'])}"


def _pod_status(_: LocalKube, pod: Json) -> Any:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    for each in pod["status"].get("containerStatuses", ()):
        for state in ("waiting", "terminated"):
            if reason := each["state"].get(state, {}).get("reason"):
                return reason
    return pod["status"].get("reason") or pod["status"].get("phase", "")


def _at(*path: str) -> Callable[[LocalKube, Json], Any]:
    def cell(_: LocalKube, shown: Json) -> Any:
        found: Any = shown
        for key in path:
            found = (found or {}).get(key)
        return found if found is not None else ""

    return cell


def _node_status(_: LocalKube, node: Json) -> Any:
    found = {each["type"]: each["status"] for each in node["status"]["conditions"]}
    return "Ready" if found.get("Ready") == "True" else "NotReady"


def _job_status(_: LocalKube, job: Json) -> Any:
    found = [each["type"] for each in job.get("status", {}).get("conditions", ())]
    return found[-1] if found else "Running"


def _address(_: LocalKube, vmi: Json) -> Any:
    interfaces = vmi["status"].get("interfaces") or [{}]
    return interfaces[0].get("ipAddress", "")


_COLUMNS: Final[Mapping[Kind, Mapping[str, Callable[[LocalKube, Json], Any]]]] = {
    PODS: {
        "Name": _name,
        "Ready": _ready,
        "Status": _pod_status,
        "Restarts": lambda _, __: "0",
        "Age": _age,
    },
    JOBS: {"Name": _name, "Status": _job_status, "Completions": lambda _, __: "0/1", "Age": _age},
    NODES: {
        "Name": _name,
        "Status": _node_status,
        "Roles": lambda _, __: "<none>",
        "Age": _age,
        "Version": _at("status", "nodeInfo", "kubeletVersion"),
    },
    NAMESPACES: {"Name": _name, "Status": _at("status", "phase"), "Age": _age},
    SECRETS: {
        "Name": _name,
        "Type": _at("type"),
        "Data": lambda _, shown: len(shown.get("data") or {}),
        "Age": _age,
    },
    VMIS: {"Name": _name, "Age": _age, "Phase": _at("status", "phase"), "IP": _address},
}
