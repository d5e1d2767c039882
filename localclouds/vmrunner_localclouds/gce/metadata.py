"""GCE's metadata server, as one instance sees it: what it is, its metadata, and its project's.

It hands out no tokens of service accounts, and waits for no change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.gce import links
from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.vms import MetadataRequest, Reply

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.machines import GceMachine

_ROOT: Final = "computeMetadata"
_VERSION: Final = "v1"
_FLAVOR: Final = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}

#: A directory of names, or a leaf: a text, a number, a list of texts.
Tree = Mapping[str, Any]


class NamedDirectory(dict[str, Any]):
    """A directory of a user's own names, whose case is kept."""


class ListDirectory(dict[str, Any]):
    """A directory that is a list, as JSON has it."""


class GceMetadata:
    """Answers each request from the machine's present state."""

    def __init__(self, machine: GceMachine) -> None:
        self._machine = machine

    def __call__(self, request: MetadataRequest) -> Reply:
        with self._machine.cloud.lock:
            return self._answer(request)

    def _answer(self, request: MetadataRequest) -> Reply:
        if request.method not in ("GET", "HEAD"):
            return _error(405, "Method Not Allowed")
        tree: Tree = {_ROOT: {_VERSION: self._tree()}}
        path = [part for part in request.path.split("/") if part]
        if path[:2] == [_ROOT, _VERSION] and not _allowed(request.headers):
            return _error(403, "Missing Metadata-Flavor:Google header.")
        if "wait_for_change" in request.query:
            return _error(501, "Not Implemented")
        found: Any = tree
        for name in path:
            if not isinstance(found, Mapping) or name not in found:
                return _error(404, "Not Found")
            found = found[name]
        if isinstance(found, Mapping) and not request.path.endswith("/"):
            return Reply(301, b"", {**_FLAVOR, "Location": f"{request.path}/"})
        return _reply(found, request.query)

    # --- what there is ---

    def _tree(self) -> Tree:
        cloud = self._machine.cloud
        return {
            "instance": self._instance(),
            "project": {
                "attributes": NamedDirectory(cloud.common_metadata),
                "numeric-project-id": int(cloud.number),
                "project-id": cloud.project,
            },
        }

    def _instance(self) -> Tree:
        machine = self._machine
        shown, project = machine.shown, f"projects/{machine.cloud.number}"
        scheduling = shown["scheduling"]
        return {
            "attributes": NamedDirectory(machine.metadata),
            "cpu-platform": shown["cpuPlatform"],
            "description": shown.get("description", ""),
            "disks": _numbered([_disk(disk) for disk in shown["disks"]]),
            "hostname": f"{machine.name}.{machine.zone}.c.{machine.cloud.project}.internal",
            "id": int(machine.id),
            "image": self._image(),
            "machine-type": f"{project}/machineTypes/{links.last(shown['machineType'])}",
            "maintenance-event": "NONE",
            "name": machine.name,
            "network-interfaces": _numbered(
                [_interface(nic, project) for nic in shown["networkInterfaces"]]
            ),
            "preempted": "FALSE",
            "scheduling": {
                "automatic-restart": str(scheduling["automaticRestart"]).upper(),
                "on-host-maintenance": scheduling["onHostMaintenance"],
                "preemptible": str(scheduling["preemptible"]).upper(),
            },
            "service-accounts": NamedDirectory(
                {
                    account["email"]: {"email": account["email"], "scopes": account["scopes"]}
                    for account in shown.get("serviceAccounts", [])
                }
            ),
            "tags": shown["tags"].get("items", []),
            "zone": f"{project}/zones/{machine.zone}",
        }

    def _image(self) -> str:
        """The image that its boot disk was made from; empty: none."""
        machine = self._machine
        name = links.last(machine.shown["disks"][0]["source"])
        disk = machine.cloud.shelf("disks", machine.scope).get(name, {})
        source = disk.get("sourceImage", "")
        return links.relative(source, machine.cloud.project) if source else ""


def _allowed(headers: Mapping[str, str]) -> bool:
    """True if the request is meant for this server, and came through no proxy."""
    return headers.get("metadata-flavor") == "Google" and "x-forwarded-for" not in headers


def _disk(disk: Json) -> Tree:
    return {
        "device-name": disk["deviceName"],
        "index": disk["index"],
        "interface": disk["interface"],
        "mode": disk["mode"],
        "type": "PERSISTENT-BALANCED" if disk["type"] == "PERSISTENT" else disk["type"],
    }


def _interface(nic: Json, project: str) -> Tree:
    return {
        "access-configs": _numbered(
            [
                {"external-ip": config["natIP"], "type": config["type"]}
                for config in nic.get("accessConfigs", [])
            ]
        ),
        "ip": nic["networkIP"],
        "network": f"{project}/networks/{links.last(nic['network'])}",
    }


def _numbered(items: list[Tree]) -> ListDirectory:
    return ListDirectory({str(index): item for index, item in enumerate(items)})


# --- how it is written ---------------------------------------------------------------------------


def _reply(found: Any, query: Mapping[str, str]) -> Reply:
    deep = query.get("recursive", "").lower() == "true"
    directory = isinstance(found, Mapping)
    form = query.get("alt", "json" if directory and deep else "text")
    if form not in ("json", "text"):
        return _error(400, "Bad Request")
    if form == "json" and (deep or not directory):
        return _ok(json.dumps(_plain(found)), "application/json")
    if directory and deep:
        return _ok("".join(f"{path} {_text(leaf)}\n" for path, leaf in _leaves(found)))
    if directory:
        return _ok("".join(_entry(name, found[name]) for name in sorted(found)))
    return _ok(_text(found))


def _entry(name: str, value: Any) -> str:
    return f"{name}/\n" if isinstance(value, Mapping) else f"{name}\n"


def _text(leaf: Any) -> str:
    return "\n".join(leaf) if isinstance(leaf, list) else str(leaf)


def _plain(found: Any) -> Any:
    """A value as JSON: the server's own names in camel case."""
    if isinstance(found, ListDirectory):
        return [_plain(value) for value in found.values()]
    if isinstance(found, Mapping) and not isinstance(found, NamedDirectory):
        return {_camel(name): _plain(value) for name, value in found.items()}
    return found


def _camel(name: str) -> str:
    return re.sub("-(.)", lambda found: found[1].upper(), name)


def _leaves(tree: Tree, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}/")
        else:
            yield above + name, value


def _ok(text: str, kind: str = "application/text") -> Reply:
    return Reply(200, text.encode(), {**_FLAVOR, "Content-Type": kind})


def _error(status: int, message: str) -> Reply:
    return Reply(status, message.encode(), {**_FLAVOR, "Content-Type": "text/html; charset=UTF-8"})
