"""PUT and PATCH of a VM: its disk, its interfaces and its addresses are made with it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.azure import (
    attributes,
    fixtures,
    interfaces,
    operations,
    os_disks,
    quotas,
    timestamps,
)
from vmrunner_localclouds.azure.api_error import ArmRefusal, Json, invalid, missing, not_allowed
from vmrunner_localclouds.azure.faults import CROWDED, NO_ROOM, NO_ROOM_IN_ZONE, NO_SKU, FailedLater
from vmrunner_localclouds.azure.limits import DEPLOYMENTS, REPLICA_DEPLOYMENTS
from vmrunner_localclouds.azure.machines import AzureMachine
from vmrunner_localclouds.azure.operations import ArmAnswer
from vmrunner_localclouds.azure.reads import dressed, group_of
from vmrunner_localclouds.azure.requests import AzureRequest
from vmrunner_localclouds.azure.resource_ids import IMAGE, VERSION, VM, key

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

#: Parts of a VM that a later PUT or PATCH may not say otherwise.
_FIXED: Final = ("osProfile", "storageProfile", "networkProfile", "priority", "userData")


def put(cloud: LocalAzure, request: AzureRequest, broken: FailedLater | None) -> ArmAnswer:
    """Create a VM, or change one. Everything is checked before anything is made."""
    group = group_of(cloud, request)
    body = request.body_of("VirtualMachine")
    existing = _existing(cloud, request)
    if existing is not None and existing.deleting:
        text = f"Operation 'create' is not allowed on VM '{existing.name}' since the VM is marked "
        text += "for deletion. You can only retry the Delete operation (or wait for an ongoing one "
        raise not_allowed(f"{text}to complete).")
    _check_condition(request, existing)
    if existing is not None:
        return _change(cloud, request, existing, body)
    machine, broken = _create(cloud, request, group["name"], body, broken)
    location = machine.location
    operation = operations.begin(cloud, request.path.provider, location)
    first = operations.copied(dressed(cloud, machine.shown))
    headers = operations.headers(operation, request)

    def fail() -> None:
        assert broken is not None
        if not machine.deleting:
            machine.give_up(broken)
        operation.finish(broken)

    if broken is not None:
        if broken.runs:
            machine.begin()
        cloud.later(cloud.operation_seconds, fail)
    else:
        machine.begin(operation.finish)
    return ArmAnswer(201, first, headers)


def patch(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    group_of(cloud, request)
    body = request.body_of("VirtualMachineUpdate")
    machine = cloud.machine(request)
    _check_condition(request, machine)
    return _change(cloud, request, machine, body)


def _existing(cloud: LocalAzure, request: AzureRequest) -> AzureMachine | None:
    return cloud.living.get(key(request.path.id))


def _check_condition(request: AzureRequest, existing: AzureMachine | None) -> None:
    """Raises `ArmRefusal` where a condition fails. If-None-Match takes `*` alone."""
    unless, only = (request.headers.get(name, "") for name in ("if-none-match", "if-match"))
    if unless not in ("", "*"):
        text = f"The value '{unless}' of header If-None-Match is not supported."
        raise ArmRefusal(400, "InvalidHeaderValue", text)
    if (unless and existing is not None) or (
        only and (existing is None or only not in ("*", _tag(existing)))
    ):
        text = "The precondition given in one or more of the request headers evaluated to false."
        raise ArmRefusal(412, "PreconditionFailed", text)


def _tag(machine: AzureMachine) -> str:
    return str(machine.shown["etag"])


def _change(
    cloud: LocalAzure, request: AzureRequest, machine: AzureMachine, resource: Json
) -> ArmAnswer:
    """Change the tags. Values equal to the present ones pass; other changes are refused here."""
    properties = resource.get("properties") or {}
    for name in _FIXED:
        if name in properties and request.verb == "PATCH":
            text = f"Changing property '{name}' is not allowed."
            raise ArmRefusal(409, "PropertyChangeNotAllowed", text, target=name)
    size = (properties.get("hardwareProfile") or {}).get("vmSize", machine.size)
    if size != machine.size:
        raise ArmRefusal(501, "NotImplemented", "not in this cloud: another size")
    attributes.check_tags(resource.get("tags"))
    if "tags" in resource or request.verb == "PUT":
        machine.shown["tags"] = resource.get("tags") or {}
    machine.shown["etag"] = f'"{int(_tag(machine).strip(chr(34))) + 1}"'
    body = dressed(cloud, machine.shown)
    return operations.run(cloud, request, machine.location, status=200, body=body)


def _create(
    cloud: LocalAzure,
    request: AzureRequest,
    group: str,
    body: Json,
    broken: FailedLater | None,
) -> tuple[AzureMachine, FailedLater | None]:
    """The new VM, and the failure in which its operation will end, if any."""
    name = request.path.name
    attributes.check_vm_name(name)
    location = attributes.place(body, VM)
    attributes.check_zones(body, location, f"{VM}/{name}")
    attributes.check_tags(body.get("tags"))
    properties = body.get("properties") or {}
    size = _size(cloud, location, properties)
    attributes.check_os(properties.get("osProfile"))
    data = attributes.custom_data(properties["osProfile"])
    user = attributes.user_data(properties)
    _check_market(properties)
    shown = fixtures.resource(cloud, group, VM, name, location)
    disk, reference = os_disks.plan(cloud, group, shown, body, size)
    planned = interfaces.plan(cloud, group, shown, body)
    spot = properties.get("priority") in ("Spot", "Low")
    quotas.check(cloud, location, size, spot=spot)
    shown |= {"tags": body.get("tags") or {}, "etag": '"1"'}
    shown |= {"zones": body["zones"]} if body.get("zones") else {}
    shown["properties"] = _filled(cloud, properties, reference, planned.references)
    machine = AzureMachine(cloud=cloud, shown=shown, custom_data=data, user_data=user)
    if broken is None and machine.dry:
        broken = NO_ROOM_IN_ZONE if machine.zone else NO_ROOM
    if broken is None and _is_crowded(cloud, disk, shown):
        broken = CROWDED
    machine.never_runs = broken is not None and not broken.runs
    planned.keep(cloud)
    if disk is not None:
        fixtures.keep(cloud, disk["type"], disk)
    cloud.add(machine)
    return machine, broken


def _is_crowded(cloud: LocalAzure, disk: Json | None, shown: Json) -> bool:
    """True if as many VMs boot from its image as that can serve."""
    image = _image_of(shown)
    most = _deployments(cloud, image, shown["location"])
    if disk is None or most is None:
        return False
    booting = [
        machine
        for machine in cloud.living.values()
        if machine.state == "starting"
        and not machine.deleting
        and _image_of(machine.shown) == image
    ]
    return len(booting) >= most


def _deployments(cloud: LocalAzure, image: str, location: str) -> int | None:
    """Number of VMs that may boot from an image at once; None: it is not known here."""
    if image in cloud.shelf(IMAGE):
        return DEPLOYMENTS
    version = cloud.shelf(VERSION).get(image)
    if version is None:
        return None
    profile = version["properties"].get("publishingProfile") or {}
    regions = profile.get("targetRegions") or ()
    counts = [
        region.get("regionalReplicaCount", profile.get("replicaCount", 1))
        for region in regions
        if region["name"].replace(" ", "").lower() == location
    ]
    return REPLICA_DEPLOYMENTS * (counts[0] if counts else 1)


def _image_of(shown: Json) -> str:
    return key(shown["properties"]["storageProfile"].get("imageReference", {}).get("id", ""))


def _size(cloud: LocalAzure, location: str, properties: Json) -> str:
    vm_size = (properties.get("hardwareProfile") or {}).get("vmSize")
    if not vm_size:
        raise missing("hardwareProfile.vmSize")
    sizes = {name.lower(): name for name in fixtures.SIZES}
    if vm_size.lower() not in sizes:
        text = f"The value {vm_size} provided for the VM size is not valid. The valid sizes in the "
        raise invalid("vmSize", f"{text}current region are: {', '.join(fixtures.SIZES)}.")
    size = sizes[vm_size.lower()]
    if (location, size) in cloud.restricted:
        text = NO_SKU.message.replace("Standard_D2s_v5", size).replace("westeurope", location)
        raise ArmRefusal(NO_SKU.status, NO_SKU.code, text, target="vmSize")
    return size


def _check_market(properties: Json) -> None:
    spot = properties.get("priority") in ("Spot", "Low")
    if properties.get("evictionPolicy") and not spot:
        text = "Eviction policy can be set only on Azure Spot Virtual Machines."
        raise invalid("evictionPolicy", text)
    price = (properties.get("billingProfile") or {}).get("maxPrice")
    if price is not None and not spot:
        raise invalid("billingProfile.maxPrice", "Max price is for Azure Spot alone.")
    hibernates = (properties.get("additionalCapabilities") or {}).get("hibernationEnabled")
    size = properties["hardwareProfile"]["vmSize"]
    if hibernates and not fixtures.SIZES[size].hibernates:
        text = f"The VM size '{size}' does not support hibernation."
        raise invalid("additionalCapabilities.hibernationEnabled", text)


def _filled(cloud: LocalAzure, properties: Json, os_disk: Json, nics: list[Json]) -> Json:
    """The properties of an answer: with the service's own, without secrets."""
    profile = {
        k: v for k, v in properties["osProfile"].items() if k not in ("customData", "adminPassword")
    }
    storage = properties.get("storageProfile") or {}
    kept = {k: v for k, v in properties.items() if k not in ("userData", "networkProfile")}
    spot = properties.get("priority") in ("Spot", "Low")
    return kept | {
        "vmId": str(uuid.uuid4()),
        "provisioningState": "Creating",
        "timeCreated": timestamps.written(cloud.now()),
        "osProfile": {"secrets": [], "allowExtensionOperations": True} | profile,
        "storageProfile": {
            "dataDisks": [],
            "diskControllerType": storage.get("diskControllerType", "SCSI"),
            **{k: v for k, v in storage.items() if k == "imageReference"},
            "osDisk": os_disk,
        },
        "networkProfile": {"networkInterfaces": nics},
        **({"evictionPolicy": properties.get("evictionPolicy", "Deallocate")} if spot else {}),
    }
