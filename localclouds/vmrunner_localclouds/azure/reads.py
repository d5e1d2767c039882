"""Calls that only read: one resource, or all of a kind, page by page."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.azure import filters, fixtures, quotas, timestamps
from vmrunner_localclouds.azure.api_error import ArmRefusal, Json, no_group, not_found
from vmrunner_localclouds.azure.faults import FailedLater
from vmrunner_localclouds.azure.operations import ArmAnswer
from vmrunner_localclouds.azure.requests import AzureRequest
from vmrunner_localclouds.azure.resource_ids import NIC, TYPES, VM, key

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

_TOKEN: Final = "$skiptoken"  # noqa: S105 - a page's


def get(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    group_of(cloud, request)
    found = found_of(cloud, request)
    return ArmAnswer(200, dressed(cloud, found, request.query.get("$expand", "")))


def listed(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """List all of a kind: of a group, of a location, or of the whole subscription."""
    path = request.path
    if path.group:
        group_of(cloud, request)
    expand = request.query.get("$expand", "")
    if request.flag("statusOnly"):
        expand = "instanceView"
    within = f"/resourcegroups/{path.group.lower()}/" if path.group else ""
    found = (
        resource
        for at, resource in cloud.shelf(path.kind).items()
        if at not in cloud.hidden
        and within in at
        and (not path.location or resource["location"] == path.location.lower())
    )
    return _page(cloud, request, [dressed(cloud, resource, expand) for resource in found])


def resources(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """All of a group, of every kind, with no properties."""
    group_of(cloud, request)
    wanted = filters.of_resources(request.query.get("$filter", ""))
    within = f"/resourcegroups/{request.path.group.lower()}/"
    created = "createdTime" in request.query.get("$expand", "")
    found = [
        _short(cloud, resource, created=created)
        for kind in TYPES
        for at, resource in cloud.shelf(kind).items()
        if within in at and at not in cloud.hidden
    ]
    return _page(cloud, request, [resource for resource in found if wanted(resource)])


def group(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    return ArmAnswer(200, group_of(cloud, request))


def groups(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    return _page(cloud, request, list(cloud.groups.values()))


def found_of(cloud: LocalAzure, request: AzureRequest) -> Json:
    """The resource that a request names. Raises `ArmRefusal`."""
    path = request.path
    found = cloud.shelf(path.kind).get(key(path.id))
    if found is None:
        raise not_found(f"{path.kind}/{path.name}", path.group)
    return found


def child_of(cloud: LocalAzure, request: AzureRequest) -> Json:
    """The definition in a gallery, or the version of one, that a request names. Raises
    `ArmRefusal`."""
    path = request.path
    found = cloud.shelf(path.child).get(key(path.child_id))
    if found is None:
        raise not_found("/".join((path.kind, path.name, *path.rest)), path.group)
    return found


def group_of(cloud: LocalAzure, request: AzureRequest) -> Json:
    """The group that a request is in. Raises `ArmRefusal`."""
    found = cloud.groups.get(request.path.group.lower())
    if found is None:
        raise no_group(request.path.group)
    return found


def instance_view(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    group_of(cloud, request)
    return ArmAnswer(200, cloud.machine(request).instance_view())


def subnets(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """All of a network, or the one that the path names."""
    group_of(cloud, request)
    path = request.path
    name = path.rest[1].lower() if len(path.rest) > 1 else ""
    existing: list[Json] = found_of(cloud, request)["properties"]["subnets"]
    if not name:
        return _page(cloud, request, existing)
    for subnet in existing:
        if subnet["name"].lower() == name:
            return ArmAnswer(200, subnet)
    raise not_found(f"{path.kind}/{path.name}/subnets/{name}", path.group)


def child(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """A definition of images in a gallery, or a version of one."""
    group_of(cloud, request)
    return ArmAnswer(200, child_of(cloud, request))


def children(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """All definitions in a gallery, or all versions of one, if that is there."""
    group_of(cloud, request)
    path = request.path
    above = key(path.child_id).rpartition("/")[0]
    if above not in cloud.shelf(path.child.rpartition("/")[0]):
        raise not_found("/".join((path.kind, path.name, *path.rest[:-1])), path.group)
    within = f"{key(path.child_id)}/"
    shelf = cloud.shelf(path.child)
    return _page(
        cloud, request, [resource for at, resource in shelf.items() if at.startswith(within)]
    )


def usages(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    location = request.path.location.lower()
    if location not in fixtures.LOCATIONS:
        text = f"The location '{request.path.location}' is invalid."
        raise ArmRefusal(400, "InvalidLocation", text)
    network = request.path.provider == "Microsoft.Network"
    return _page(cloud, request, quotas.shown(cloud, location, network=network))


def sizes(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """Sizes in every location that a filter names, with what they can and may not."""
    wanted = filters.equal(request.query.get("$filter", ""), "location").lower()
    locations = [wanted] if wanted else list(fixtures.LOCATIONS)
    found = [
        sku
        for location in locations
        if location in fixtures.LOCATIONS
        for sku in _skus(cloud, location)
    ]
    return _page(cloud, request, found)


def dressed(cloud: LocalAzure, found: Json, expand: str = "") -> Json:
    """A resource as an answer has it."""
    if found["type"] == NIC and expand.lower() == "ipconfigurations/publicipaddress":
        return _with_addresses(cloud, found) if cloud.expands else found
    if found["type"] != VM:
        return found
    machine = cloud.living[key(found["id"])]
    if "instanceview" in expand.lower():
        view = {"instanceView": machine.instance_view()}
        return found | {"properties": found["properties"] | view}
    return found


def _with_addresses(cloud: LocalAzure, interface: Json) -> Json:
    """An interface with all of its public addresses instead of their ids."""
    shown = copy.deepcopy(interface)
    for config in shown["properties"]["ipConfigurations"]:
        if public := config["properties"].get("publicIPAddress"):
            config["properties"]["publicIPAddress"] = cloud.resource(public["id"]) or public
    return shown


def _short(cloud: LocalAzure, found: Json, *, created: bool) -> Json:
    kept = ("id", "name", "type", "location", "tags", "sku", "zones", "managedBy")
    shown = {name: found[name] for name in kept if name in found}
    when = cloud.created[key(found["id"])]
    return shown | ({"createdTime": timestamps.written(when)} if created else {})


def _page(cloud: LocalAzure, request: AzureRequest, found: Iterable[Json]) -> ArmAnswer:
    whole = list(found)
    begin = int(request.query.get(_TOKEN) or 0)
    end = begin + cloud.page_size
    body: Json = {"value": whole[begin:end]}
    if end < len(whole):
        head = request.url.partition(f"{_TOKEN}=")[0].rstrip("&?")
        head = head.partition("%24skiptoken=")[0].rstrip("&?")
        mark = "&" if "?" in head else "?"
        body["nextLink"] = f"{cloud.url}{head}{mark}{_TOKEN}={end}"
    return ArmAnswer(200, body)


def _skus(cloud: LocalAzure, location: str) -> list[Json]:
    return [_sku(cloud, location, name, size) for name, size in fixtures.SIZES.items()]


def _sku(cloud: LocalAzure, location: str, name: str, size: fixtures.Size) -> Json:
    zones = list(fixtures.LOCATIONS[location])
    forbidden = (
        [
            {
                "type": "Location",
                "values": [location],
                "restrictionInfo": {"locations": [location]},
                "reasonCode": "NotAvailableForSubscription",
            }
        ]
        if (location, name) in cloud.restricted
        else []
    )
    return {
        "resourceType": "virtualMachines",
        "name": name,
        "tier": "Standard",
        "size": name.removeprefix("Standard_"),
        "family": size.family,
        "locations": [location],
        "locationInfo": [{"location": location, "zones": zones, "zoneDetails": []}],
        "capabilities": [
            {"name": key, "value": value}
            for key, value in (
                ("MaxResourceVolumeMB", str(size.local * 1024)),
                *((("CachedDiskBytes", str(size.cache << 30)),) if size.cache else ()),
                ("vCPUs", str(size.cpus)),
                ("HyperVGenerations", size.generations),
                *((("DiskControllerTypes", size.controllers),) if size.controllers else ()),
                *((("NvmeDiskSizeInMiB", str(size.nvme << 10)),) if size.nvme else ()),
                *(
                    (("SupportedEphemeralOSDiskPlacements", ",".join(size.placements)),)
                    if size.nvme
                    else ()
                ),
                ("MemoryGB", f"{size.memory:g}"),
                ("CpuArchitectureType", size.architecture),
                ("LowPriorityCapable", "True"),
                ("EphemeralOSDiskSupported", str(bool(size.placements))),
                ("HibernationSupported", str(size.hibernates)),
                ("PremiumIO", "True"),
            )
        ],
        "restrictions": forbidden,
    }
