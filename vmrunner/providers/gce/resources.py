"""Readers of each kind of resource that Compute Engine shows.

A resource's id is its path within the project, without what its scope says already: a VM's or a
disk's name, `regions/R/addresses/NAME`, `global/snapshots/NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from vmrunner.model import Address, Kind, Power, Ref, Resource, Scope, Seen, Start
from vmrunner.providers.common import packer_names
from vmrunner.providers.gce.labels import tags
from vmrunner.providers.port_images import is_unfinished, unfinished

#: All but what is gone bills: of a VM that is off, its disks do.
POWER: Final[Mapping[str, Power]] = {
    "PENDING": Power.PENDING,
    "PROVISIONING": Power.PENDING,
    "STAGING": Power.PENDING,
    "RUNNING": Power.RUNNING,
    "REPAIRING": Power.RUNNING,
    "PENDING_STOP": Power.STOPPING,
    "STOPPING": Power.STOPPING,
    "SUSPENDING": Power.STOPPING,
    "DEPROVISIONING": Power.STOPPING,
    "STOPPED": Power.STOPPED,
    "SUSPENDED": Power.STOPPED,
    "TERMINATED": Power.STOPPED,
}
#: Of a VM that is parked, or on its way there.
SUSPENSION: Final = frozenset({"SUSPENDING", "SUSPENDED"})


@dataclass(frozen=True, slots=True)
class GceNearness:
    """Marks beside the labels by which a VM looks like ours: a network of the builds' own, or a
    network tag of theirs. The network `default` is no mark."""

    network: str = ""
    subnetwork: str = ""
    tags: frozenset[str] = frozenset()

    def of(self, item: Any) -> str:
        for nic in item.network_interfaces:
            subnetwork, network = last(nic.subnetwork), last(nic.network)
            if self.subnetwork and subnetwork == self.subnetwork:
                return f"subnetwork {subnetwork}"
            if self.network not in ("", "default") and network == self.network:
                return f"network {network}"
        shared = self.tags & set(item.tags.items)
        return f"network tag {min(shared)}" if shared else ""


def power(item: Any) -> Power:
    """Power state of a VM. An unknown state is no state of the dead."""
    return POWER.get(item.status, Power.RUNNING)


def seen(scope: Scope, item: Any, *, public: bool) -> Seen:
    """View of one VM. `public`: over which address SSH goes."""
    host = _host(item, public=public)
    now = power(item)
    return Seen(
        ref=Ref(scope, Kind.INSTANCE, item.name),
        power=now,
        address=Address(host) if host and now is Power.RUNNING else None,
        created_at=when(item.creation_timestamp),
        detail=item.status_message or item.status,
        start=Start.COLD,
    )


def _host(item: Any, *, public: bool) -> str:
    for nic in item.network_interfaces:
        if not public:
            return str(nic.network_i_p)
        for config in nic.access_configs:
            if config.nat_i_p:
                return str(config.nat_i_p)
    return ""


def when(text: str) -> float | None:
    """RFC 3339, in epoch seconds."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


def last(link: str) -> str:
    """The name at the end of a link."""
    return link.rpartition("/")[2]


def place(link: str, kind: str) -> str:
    """Return the zone or region in a link: what follows `kind`, such as "zones"."""
    return link.partition(f"/{kind}/")[2].partition("/")[0] or last(link)


#: A VM's name, and of the disk that Packer makes an image of, which has no labels.
_OURS: Final = re.compile(r"vm-[0-9a-z]{26}")
#: The longest that a build of an image may last, by default; then such a disk is left over.
_LONGEST: Final = 4 * 3600.0


def instance(scope: Scope, item: Any, near: GceNearness) -> Resource:
    mark = near.of(item)
    return Resource(
        ref=Ref(scope, Kind.INSTANCE, item.name),
        power=power(item),
        created_at=when(item.creation_timestamp),
        tags=tags(item.labels),
        near=mark or packer_names.near(item.name),
        near_after=0.0 if mark else packer_names.OLD,
    )


def disk(scope: Scope, item: Any, _: GceNearness) -> Resource | None:
    if item.status == "DELETING":
        return None
    user = next(iter(item.users), "")
    leftover = not user and _OURS.fullmatch(item.name)
    return Resource(
        ref=Ref(scope, Kind.DISK, item.name),
        power=Power.PENDING if item.status in ("CREATING", "RESTORING") else Power.RUNNING,
        created_at=when(item.creation_timestamp),
        tags=tags(item.labels),
        near="a build of an image, by its name" if leftover else packer_names.near(item.name),
        near_after=_LONGEST if leftover else packer_names.OLD,
        parent=Ref(scope._replace(place=place(user, "zones")), Kind.INSTANCE, last(user))
        if user
        else None,
    )


def address(scope: Scope, item: Any, _: GceNearness) -> Resource:
    where = f"regions/{last(item.region)}" if item.region else "global"
    user = next(iter(item.users), "")
    holder = scope._replace(place=place(user, "zones"))
    return Resource(
        ref=Ref(scope, Kind.ADDRESS, f"{where}/addresses/{item.name}"),
        power=Power.RUNNING,
        created_at=when(item.creation_timestamp),
        tags=tags(item.labels),
        parent=Ref(holder, Kind.INSTANCE, last(user)) if "/instances/" in user else None,
    )


#: Of an image that no build finished, after the family that it could be promoted to.
UNFINISHED: Final = "-unfinished"


def is_left(item: Any) -> bool:
    """True if an image is one that no build finished: by its family, which changes where no label
    may, and by its time limit, which it has from its creation."""
    return item.family.endswith(UNFINISHED) and is_unfinished(tags(item.labels))


def image(scope: Scope, item: Any, _: GceNearness) -> Resource | None:
    """Return one that no build finished."""
    if item.status == "DELETING" or not is_left(item):
        return None
    ref = Ref(scope, Kind.IMAGE, f"global/images/{item.name}")
    now = Power.PENDING if item.status == "PENDING" else Power.RUNNING
    return unfinished(ref, tags(item.labels), when(item.creation_timestamp), now)


def snapshot(scope: Scope, item: Any, _: GceNearness) -> Resource | None:
    if item.status == "DELETING":
        return None
    return Resource(
        ref=Ref(scope, Kind.SNAPSHOT, f"global/snapshots/{item.name}"),
        power=Power.PENDING if item.status in ("CREATING", "UPLOADING") else Power.RUNNING,
        created_at=when(item.creation_timestamp),
        tags=tags(item.labels),
    )
