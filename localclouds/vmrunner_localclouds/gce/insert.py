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
    machine, broken = _create(cloud, request.path["zone"], request.resource, broken)
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
    zone, resource = request.path["zone"], request.resource
    properties = resource.get("instanceProperties")
    if properties is None:
        raise invalid("resource.instanceProperties", "", "It is required.")
    names = _names(cloud, zone, resource)
    for name in names:
        if cloud.find("instances", request.scope, name) is not None:
            raise exists(f"projects/{cloud.project}/{request.scope}/instances/{name}")
    machines = []
    for name in names:
        body = copy.deepcopy(properties) | {"name": name}
        kind = properties.get("machineType", "")
        body["machineType"] = f"zones/{zone}/machineTypes/{kind}"
        machine, fate = _create(cloud, zone, body, broken)
        machines.append(machine)
        broken = broken or fate
    for machine in machines:
        machine.never_runs = machine.never_runs or broken is not None
    target = cloud.shelf("zones", "global")[zone]

    def undo() -> None:
        for machine in machines:
            machine.give_up(remains=False)

    return operations.run(cloud, request, "bulkInsert", target, broken=broken, failed=undo)


def _names(cloud: LocalGce, zone: str, resource: Json) -> list[str]:
    count = int(resource.get("count", "0"))
    given = resource.get("perInstanceProperties", {})
    if given:
        return [instance.get("name") or key for key, instance in given.items()]
    pattern = resource.get("namePattern", "")
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


def _create(
    cloud: LocalGce, zone: str, resource: Json, broken: BrokenOperation | None
) -> tuple[GceMachine, BrokenOperation | None]:
    """The new VM, and the failure in which its operation will end, if any."""
    scope = f"zones/{zone}"
    ignored = discovery.outputs("Instance") | {"params"}  # accepted by an insert, never shown
    resource = {key: value for key, value in resource.items() if key not in ignored}
    name = resource["name"]
    if cloud.find("instances", scope, name) is not None:
        raise exists(f"projects/{cloud.project}/{scope}/instances/{name}")
    kind = _machine_type(cloud, zone, resource)
    check_labels(resource.get("labels", {}), "resource.labels")
    check_metadata(resource.get("metadata", {}), "resource.metadata")
    shown = fixtures.resource(cloud, "instance", f"{scope}/instances", name, cloud.now()) | resource
    shown["scheduling"] = scheduling.filled(resource.get("scheduling", {}), cloud.now())
    scheduling.check_type(shown["scheduling"], kind["name"], cloud.immovable)
    nics = interfaces(cloud, zone, resource.get("networkInterfaces") or [])
    disks, made = attach(cloud, zone, shown, resource.get("disks", []))
    quota_failure = quotas.check(cloud, zone, shown, kind, nics, made)
    shown |= _filled(cloud, zone, shown, kind)
    shown |= {"networkInterfaces": nics, "disks": disks}
    market = "spot" if shown["scheduling"]["provisioningModel"] == "SPOT" else "on-demand"
    if broken is None and (kind["name"], zone, market) in cloud.dry:
        broken = STOCKOUT._replace(remains=cloud.stockout_remains)
    broken = broken or quota_failure
    shelf = cloud.shelf("disks", scope)
    shelf.update({disk["name"]: disk for disk in made})
    for attached in disks:
        shelf[links.last(attached["source"])]["users"] = [shown["selfLink"]]
    hold(cloud, zone, shown)
    cloud.shelf("instances", scope)[name] = shown
    machine = GceMachine(cloud=cloud, shown=shown, never_runs=broken is not None)
    cloud.add(machine)
    return machine, broken


def _machine_type(cloud: LocalGce, zone: str, resource: Json) -> Json:
    text = resource.get("machineType", "")
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
    """Add the fields that an answer has, whether the request had them or not."""
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


def _account(cloud: LocalGce, account: Json) -> Json:
    email = account.get("email", "default")
    if email == "default":
        email = f"{cloud.number}-compute@developer.gserviceaccount.com"
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.gserviceaccount\.com", email):
        raise GceRefusal(
            400,
            "serviceAccountNotFound",
            f"The resource '{email}' of type 'serviceAccount' was not found.",
        )
    return {"email": email, "scopes": account.get("scopes", [])}
