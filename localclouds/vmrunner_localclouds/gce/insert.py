"""instances.insert and bulkInsert: one VM, its disks and its addresses."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.gce import discovery, fixtures, links, operations, quotas, scheduling
from vmrunner_localclouds.gce.api_error import GceRefusal, exists, invalid
from vmrunner_localclouds.gce.attributes import check_labels, check_metadata, tagged
from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.gce.disks import attach
from vmrunner_localclouds.gce.faults import STOCKOUT, BrokenOperation
from vmrunner_localclouds.gce.machines import GceMachine
from vmrunner_localclouds.gce.networks import hold, interfaces
from vmrunner_localclouds.gce.requests import GceRequest

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce

_BULK_MOST: Final = 5000


def insert(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    """Insert one VM. Everything that can be refused is looked at before anything is made."""
    if templates := {"sourceInstanceTemplate", "sourceMachineImage"} & set(request.query):
        raise GceRefusal(501, "notImplemented", f"not in this cloud: {', '.join(templates)}")
    if (known := operations.repeated(cloud, request)) is not None:
        return known
    machine, broken = _born(cloud, request.path["zone"], request.resource, broken)
    return operations.run(
        cloud,
        request,
        "insert",
        machine.shown,
        broken=broken,
        failed=lambda: machine.give_up(bool(broken and broken.remains)),
    )


def bulk_insert(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    """Insert many at once, all alike; each with an operation of its own inside the group's."""
    if (known := operations.repeated(cloud, request)) is not None:
        return known
    zone, said = request.path["zone"], request.resource
    properties = said.get("instanceProperties")
    if properties is None:
        raise invalid("resource.instanceProperties", "", "It is required.")
    names = _names(cloud, zone, said)
    for name in names:
        if cloud.find("instances", request.scope, name) is not None:
            raise exists(f"projects/{cloud.project}/{request.scope}/instances/{name}")
    machines = []
    for name in names:
        body = copy.deepcopy(properties) | {"name": name}
        kind = properties.get("machineType", "")
        body["machineType"] = f"zones/{zone}/machineTypes/{kind}"
        machine, fate = _born(cloud, zone, body, broken)
        machines.append(machine)
        broken = broken or fate
    for machine in machines:
        machine.doomed = machine.doomed or broken is not None
    target = cloud.shelf("zones", "global")[zone]

    def undo() -> None:
        for machine in machines:
            machine.give_up(remains=False)

    return operations.run(cloud, request, "bulkInsert", target, broken=broken, failed=undo)


def _names(cloud: LocalGce, zone: str, said: Json) -> list[str]:
    count = int(said.get("count", "0"))
    given = said.get("perInstanceProperties", {})
    if given:
        return [one.get("name") or key for key, one in given.items()]
    pattern = said.get("namePattern", "")
    found = re.fullmatch(r"([a-z][-a-z0-9]*?)(#+)([-a-z0-9]*)", pattern)
    if found is None:
        raise invalid("resource.namePattern", pattern, "It must contain a row of #.")
    if not 1 <= count <= _BULK_MOST:
        raise invalid("resource.count", count, f"Must be from 1 to {_BULK_MOST}.")
    head, row, tail = found.groups()
    shelf = cloud.shelf("instances", f"zones/{zone}")
    names: list[str] = []
    number = 1
    while len(names) < count:
        name = f"{head}{number:0{len(row)}d}{tail}"
        number += 1
        if name not in shelf:
            names.append(name)
    return names


def _born(
    cloud: LocalGce, zone: str, said: Json, broken: BrokenOperation | None
) -> tuple[GceMachine, BrokenOperation | None]:
    """The VM, and what its operation will end in."""
    scope = f"zones/{zone}"
    ignored = discovery.outputs("Instance") | {"params"}  # which a birth takes and nobody is shown
    said = {key: value for key, value in said.items() if key not in ignored}
    name = said["name"]
    if cloud.find("instances", scope, name) is not None:
        raise exists(f"projects/{cloud.project}/{scope}/instances/{name}")
    kind = _machine_type(cloud, zone, said)
    check_labels(said.get("labels", {}), "resource.labels")
    check_metadata(said.get("metadata", {}), "resource.metadata")
    shown = fixtures.resource(cloud, "instance", f"{scope}/instances", name, cloud.now()) | said
    shown["scheduling"] = scheduling.filled(said.get("scheduling", {}), cloud.now())
    scheduling.check_type(shown["scheduling"], kind["name"], cloud.immovable)
    nics = interfaces(cloud, zone, said.get("networkInterfaces") or [])
    disks, made = attach(cloud, zone, shown, said.get("disks", []))
    late = quotas.check(cloud, zone, shown, kind, nics, made)
    shown |= _filled(cloud, zone, shown, kind)
    shown |= {"networkInterfaces": nics, "disks": disks}
    market = "spot" if shown["scheduling"]["provisioningModel"] == "SPOT" else "on-demand"
    if broken is None and (kind["name"], zone, market) in cloud.dry:
        broken = STOCKOUT._replace(remains=cloud.stockout_remains)
    broken = broken or late
    shelf = cloud.shelf("disks", scope)
    shelf.update({disk["name"]: disk for disk in made})
    for attached in disks:
        shelf[links.last(attached["source"])]["users"] = [shown["selfLink"]]
    hold(cloud, zone, shown)
    cloud.shelf("instances", scope)[name] = shown
    machine = GceMachine(cloud=cloud, shown=shown, doomed=broken is not None)
    cloud.add(machine)
    return machine, broken


def _machine_type(cloud: LocalGce, zone: str, said: Json) -> Json:
    text = said.get("machineType", "")
    relative = links.relative(text, cloud.project)
    found = re.fullmatch(r"projects/[^/]+/zones/([^/]+)/machineTypes/([^/]+)", relative)
    if found is None:
        raise invalid("resource.machineType", text, "The URL is malformed.")
    if found[1] != zone:
        raise invalid("resource.machineType", text, f"It is not in zone '{zone}'.")
    kind = cloud.find("machineTypes", f"zones/{zone}", found[2])
    if kind is None:
        message = f"Machine type with name '{found[2]}' does not exist in zone '{zone}'."
        raise invalid("resource.machineType", text, message)
    return kind


def _filled(cloud: LocalGce, zone: str, shown: Json, kind: Json) -> Json:
    """Add what an answer has whether the request said it or not."""
    made: Json = {
        "machineType": kind["selfLink"],
        "zone": links.link(f"projects/{cloud.project}/zones/{zone}"),
        "cpuPlatform": "Unknown CPU Platform",
        "fingerprint": fixtures.fingerprint(),
        "labelFingerprint": fixtures.fingerprint(),
        "canIpForward": shown.get("canIpForward", False),
        "startRestricted": False,
        "deletionProtection": shown.get("deletionProtection", False),
        "metadata": {
            "kind": "compute#metadata",
            "fingerprint": fixtures.fingerprint(),
            **{k: v for k, v in shown.get("metadata", {}).items() if k == "items"},
        },
        "tags": tagged(shown.get("tags", {})),
        "shieldedInstanceConfig": {
            "enableSecureBoot": False,
            "enableVtpm": True,
            "enableIntegrityMonitoring": True,
        }
        | shown.get("shieldedInstanceConfig", {}),
        "shieldedInstanceIntegrityPolicy": {"updateAutoLearnPolicy": True},
    }
    if accounts := shown.get("serviceAccounts"):
        made["serviceAccounts"] = [_account(cloud, account) for account in accounts]
    return made


def _account(cloud: LocalGce, said: Json) -> Json:
    email = said.get("email", "default")
    if email == "default":
        email = f"{cloud.number}-compute@developer.gserviceaccount.com"
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.gserviceaccount\.com", email):
        raise GceRefusal(
            400,
            "serviceAccountNotFound",
            f"The resource '{email}' of type 'serviceAccount' was not found.",
        )
    return {"email": email, "scopes": said.get("scopes", [])}
