"""Readers of each kind of resource that EC2 shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from vmrunner.model import Address, Kind, Power, Reason, Ref, Resource, Role, Scope, Seen, Start
from vmrunner.providers.common import packer_names
from vmrunner.providers.ec2 import client
from vmrunner.providers.ec2.client import Answer, Ec2Api
from vmrunner.providers.port_images import FINISH_BY, is_unfinished, unfinished

if TYPE_CHECKING:
    from types_boto3_ec2 import type_defs as ec2

#: `shutting-down` does not bill any more, but it is not seen dead either.
POWER: Final[Mapping[str, Power]] = {
    "pending": Power.PENDING,
    "running": Power.RUNNING,
    "stopping": Power.STOPPING,
    "stopped": Power.STOPPED,
    "shutting-down": Power.STOPPING,
    "terminated": Power.DEAD,
}
#: All that may bill.
LIVING: Final = ("pending", "running", "stopping", "stopped")
#: What a sweep shows: a row is not closed while its VM is still shutting down.
LISTED: Final = (*LIVING, "shutting-down")

PAGE: Final = 1000  # items, the most that EC2 gives

#: Why a machine ended, by the beginning of EC2's reason.
_PREEMPTED: Final = ("Server.SpotInstanceTermination", "Server.SpotInstanceShutdown")
_BY_GUEST: Final = "Client.InstanceInitiatedShutdown"
#: … and of one that EC2 took, and could not launch.
_UNFIT: Final = {
    "Client.InternalError": (Reason.CREDENTIALS, "may the key of its disks be used?"),
    "Client.InvalidKMSKey": (Reason.CREDENTIALS, "may the key of its disks be used?"),
    "Client.InvalidSnapshot": (Reason.IMAGE, "is there the image's snapshot?"),
    "Client.VolumeLimitExceeded": (Reason.QUOTA, "raise the account's quota of volumes"),
}


@dataclass(frozen=True, slots=True)
class Ec2Nearness:
    """Marks beside the tags by which a machine looks like ours."""

    images: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    def of(self, item: Mapping[str, Any]) -> str:
        groups = {g["GroupId"] for g in _groups(item)} & self.groups
        if groups:
            return f"security group {min(groups)}"
        image = item.get("ImageId", "")
        return f"image {image}" if image in self.images else ""


@dataclass(frozen=True, slots=True)
class Ec2KindReader:
    """The way to list one kind. `key`: where the answer has the items."""

    kind: Kind
    api: Ec2Api[Any]
    key: str
    make: Callable[[Scope, Any, Ec2Nearness], Resource | None]
    params: Answer = field(default_factory=dict)
    page: int | None = PAGE  # items; None: it is not paged
    mine: bool = False  # only what has this installation's tag is listed
    nothing: str = ""  # the error that says: there is none at all
    unused: bool = False  # only snapshots of which no image consists

    def items(self, answer: Answer) -> list[Answer]:
        found: list[Answer] = answer[self.key]
        if self.kind is Kind.INSTANCE:
            return [instance for reservation in found for instance in reservation["Instances"]]
        return found


def seen(scope: Scope, item: ec2.InstanceTypeDef, *, public: bool) -> Seen:
    """View of one instance. `public`: over which address SSH goes."""
    reason = item.get("StateReason", {}).get("Code", "")
    detail = item.get("StateReason", {}).get("Message", "")
    unfit, hint = next((why for code, why in _UNFIT.items() if reason.startswith(code)), (None, ""))
    host = item.get("PublicIpAddress") if public else item.get("PrivateIpAddress")
    return Seen(
        ref=Ref(scope, Kind.INSTANCE, item["InstanceId"]),
        power=POWER[item["State"]["Name"]],
        address=Address(host) if host else None,
        created_at=born(item),
        detail=f"EC2 could not launch it: {detail} ({hint})" if unfit is not None else detail,
        preempted=reason in _PREEMPTED,
        self_ended=reason == _BY_GUEST,
        unfit=unfit,
        start=Start.COLD,
    )


def born(item: ec2.InstanceTypeDef) -> float | None:
    """Time of an instance's first launch, epoch seconds. LaunchTime starts anew with each start;
    the attachment of its first interface does not."""
    times = [item.get("LaunchTime")] + [
        nic.get("Attachment", {}).get("AttachTime")
        for nic in item.get("NetworkInterfaces", ())
        if nic.get("Attachment", {}).get("DeviceIndex") == 0
    ]
    return min((t.timestamp() for t in times if t is not None), default=None)


def tags(item: Mapping[str, Any], key: str = "Tags") -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in item.get(key, ())}


def _groups(item: Mapping[str, Any]) -> list[Answer]:
    """An instance's, and those of its interfaces."""
    found: list[Answer] = [*item.get("SecurityGroups", ()), *item.get("Groups", ())]
    for nic in item.get("NetworkInterfaces", ()):
        found += nic.get("Groups", ())
    return found


def _time(value: Any) -> float | None:
    return value.timestamp() if isinstance(value, datetime) else None


def _parent(scope: Scope, instance: str | None) -> Ref | None:
    return Ref(scope, Kind.INSTANCE, instance) if instance else None


def _instance(scope: Scope, item: ec2.InstanceTypeDef, near: Ec2Nearness) -> Resource:
    instance_tags, mark = tags(item), near.of(item)
    return Resource(
        ref=Ref(scope, Kind.INSTANCE, item["InstanceId"]),
        power=POWER[item["State"]["Name"]],
        created_at=born(item),
        tags=instance_tags,
        near=mark or packer_names.near(instance_tags.get("Name", "")),
        near_after=0.0 if mark else packer_names.OLD,
    )


def _volume(scope: Scope, item: ec2.VolumeTypeDef, _: Ec2Nearness) -> Resource | None:
    if item["State"] in ("deleting", "deleted"):
        return None
    attached = next(iter(item.get("Attachments", ())), None) or {}
    return Resource(
        ref=Ref(scope, Kind.DISK, item["VolumeId"]),
        power=Power.PENDING if item["State"] == "creating" else Power.RUNNING,
        created_at=_time(item.get("CreateTime")),
        tags=tags(item),
        parent=_parent(scope, attached.get("InstanceId")),
    )


def _address(scope: Scope, item: ec2.AddressTypeDef, _: Ec2Nearness) -> Resource:
    return Resource(
        ref=Ref(scope, Kind.ADDRESS, item["AllocationId"]),
        power=Power.RUNNING,
        tags=tags(item),
        parent=_parent(scope, item.get("InstanceId")),
    )


def _interface(scope: Scope, item: ec2.NetworkInterfaceTypeDef, near: Ec2Nearness) -> Resource:
    attached = item.get("Attachment", {})
    return Resource(
        ref=Ref(scope, Kind.INTERFACE, item["NetworkInterfaceId"]),
        power=Power.RUNNING,
        created_at=_time(attached.get("AttachTime")),
        tags=tags(item, "TagSet"),
        parent=_parent(scope, attached.get("InstanceId")),
        near=near.of(item) if not item.get("RequesterManaged") else "",
    )


def _snapshot(scope: Scope, item: ec2.SnapshotTypeDef, _: Ec2Nearness) -> Resource:
    return Resource(
        ref=Ref(scope, Kind.SNAPSHOT, item["SnapshotId"]),
        power=Power.RUNNING,
        created_at=_time(item.get("StartTime")),
        tags=tags(item),
    )


def _image(scope: Scope, item: ec2.ImageTypeDef, _: Ec2Nearness) -> Resource | None:
    """Resource of an image that no build finished; else None."""
    image_tags = tags(item)
    if not is_unfinished(image_tags):
        return None
    ref = Ref(scope, Kind.IMAGE, item["ImageId"])
    now = Power.PENDING if item.get("State") == "pending" else Power.RUNNING
    return unfinished(ref, image_tags, client.moment(item.get("CreationDate")), now)


def snapshots(image: Mapping[str, Any]) -> tuple[str, ...]:
    """Snapshots of which an image consists. A pending image may not tell them."""
    disks = (mapping.get("Ebs", {}) for mapping in image.get("BlockDeviceMappings", ()))
    return tuple(disk["SnapshotId"] for disk in disks if disk.get("SnapshotId"))


def _image_snapshot(scope: Scope, item: ec2.SnapshotTypeDef, _: Ec2Nearness) -> Resource | None:
    """Resource of a snapshot of such an image; else None. It has the mark until the image loses
    it."""
    snapshot_tags = tags(item)
    if not is_unfinished(snapshot_tags):
        return None
    ref = Ref(scope, Kind.SNAPSHOT, item["SnapshotId"])
    return unfinished(ref, snapshot_tags, _time(item.get("StartTime")), Power.RUNNING)


def _key(scope: Scope, item: ec2.KeyPairInfoTypeDef, _: Ec2Nearness) -> Resource | None:
    created = _time(item.get("CreateTime"))
    return _of_builder(Ref(scope, Kind.KEY, item["KeyName"]), item, item["KeyName"], created)


def _group(scope: Scope, item: ec2.SecurityGroupTypeDef, _: Ec2Nearness) -> Resource | None:
    """EC2 does not tell when it was made; its name may."""
    name = item["GroupName"]
    return _of_builder(Ref(scope, Kind.GROUP, item["GroupId"]), item, name, packer_names.born(name))


def _of_builder(
    ref: Ref, item: Mapping[str, Any], name: str, created: float | None
) -> Resource | None:
    """Resource of a thing made for a builder; None: it is the user's own, also with our tags, and
    never ends."""
    made = Resource(
        ref=ref,
        power=Power.RUNNING,
        created_at=created,
        tags=tags(item),
        near=packer_names.near(name),
        near_after=packer_names.OLD,
    )
    return made if made.role is Role.IMAGE or made.near else None


def _spot_request(scope: Scope, item: ec2.SpotInstanceRequestTypeDef, _: Ec2Nearness) -> Resource:
    return Resource(
        ref=Ref(scope, Kind.SPOT_REQUEST, item["SpotInstanceRequestId"]),
        power=Power.RUNNING,
        created_at=_time(item.get("CreateTime")),
        tags=tags(item),
        parent=_parent(scope, item.get("InstanceId")),
    )


def _only(name: str, *values: str) -> Answer:
    return {"Filters": [{"Name": name, "Values": list(values)}]}


#: Disks and snapshots an account may have a million of, of which those without our tag say nothing.
#: Of the others some count without it: one that lost its tags is still there, and the audit tells
#: what is near.
READERS: Final = (
    Ec2KindReader(
        Kind.INSTANCE,
        client.INSTANCES,
        "Reservations",
        _instance,
        _only("instance-state-name", *LISTED),
    ),
    Ec2KindReader(Kind.DISK, client.VOLUMES, "Volumes", _volume, mine=True),
    Ec2KindReader(Kind.ADDRESS, client.ADDRESSES, "Addresses", _address, page=None, mine=True),
    Ec2KindReader(Kind.INTERFACE, client.INTERFACES, "NetworkInterfaces", _interface),
    Ec2KindReader(
        Kind.SNAPSHOT,
        client.SNAPSHOTS,
        "Snapshots",
        _snapshot,
        {"OwnerIds": ["self"]},
        mine=True,
    ),
    Ec2KindReader(
        Kind.SPOT_REQUEST,
        client.SPOT_REQUESTS,
        "SpotInstanceRequests",
        _spot_request,
        _only("state", "open", "active"),
        mine=True,
    ),
    # Only those with the mark: an account has many that others made, or that last.
    Ec2KindReader(
        Kind.IMAGE,
        client.IMAGES,
        "Images",
        _image,
        {"Owners": ["self"], **_only("tag-key", FINISH_BY)},
        page=None,
    ),
    # … and of their snapshots those that outlived them.
    Ec2KindReader(
        Kind.SNAPSHOT,
        client.SNAPSHOTS,
        "Snapshots",
        _image_snapshot,
        {"OwnerIds": ["self"], **_only("tag-key", FINISH_BY)},
        unused=True,
    ),
    # What a builder of an image needs beside. They bill nothing, and a builder's disk goes with it.
    Ec2KindReader(Kind.KEY, client.KEYS, "KeyPairs", _key, page=None),
    Ec2KindReader(Kind.GROUP, client.GROUPS, "SecurityGroups", _group),
)

#: What only goes once its VM is gone, and does not say which that is: our tag does.
BESIDE: Final = (Kind.KEY, Kind.GROUP)
