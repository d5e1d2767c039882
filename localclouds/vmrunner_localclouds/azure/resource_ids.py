"""Names of resources: paths that say subscription, group, type and name. Case counts in none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

#: Types that are resources, as the service writes them.
TYPES: Final = (
    "Microsoft.Compute/virtualMachines",
    "Microsoft.Compute/disks",
    "Microsoft.Compute/snapshots",
    "Microsoft.Compute/images",
    "Microsoft.Compute/galleries",
    "Microsoft.Network/networkInterfaces",
    "Microsoft.Network/publicIPAddresses",
    "Microsoft.Network/virtualNetworks",
    "Microsoft.Network/networkSecurityGroups",
)
VM, DISK, SNAPSHOT, IMAGE, GALLERY, NIC, ADDRESS, NETWORK, FIREWALL = TYPES

#: Of a gallery: definitions of images, and versions of those, by what follows its name in a path.
DEFINITION, VERSION = f"{GALLERY}/images", f"{GALLERY}/images/versions"

_KNOWN: Final = {kind.lower(): kind for kind in TYPES}
_PROVIDERS: Final = {
    name.lower(): name
    for name in ("Microsoft.Compute", "Microsoft.ComputeSchedule", "Microsoft.Network")
}
_LOCATED: Final = "locations"


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmPath:
    """One path. `kind` is a type, or what a location or the subscription has (`usages`, `skus`);
    `rest` follows the name: an action, or a child with its name."""

    subscription: str = ""
    group: str = ""
    provider: str = ""
    kind: str = ""
    name: str = ""
    location: str = ""
    rest: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """The last part of the type: `virtualMachines`."""
        return self.kind.rpartition("/")[2]

    @property
    def id(self) -> str:
        """The id of the resource, without what follows its name."""
        return resource_id(self.subscription, self.group, self.kind, self.name)

    @property
    def child(self) -> str:
        """The type of the resource that the whole path names: `…/galleries/images/versions`."""
        return "/".join((self.kind, *self.rest[::2])) if self.kind == GALLERY else self.kind

    @property
    def child_id(self) -> str:
        """The id of the resource that the whole path names."""
        return "/".join((self.id, *self.rest))


def parse(path: str) -> ArmPath | None:
    """The parts of a path; None: it is no path of Resource Manager's."""
    parts = [part for part in path.split("/") if part]
    if len(parts) < 2 or parts[0].lower() != "subscriptions":
        return None
    fields: dict[str, Any] = {"subscription": parts[1]}
    rest = parts[2:]
    if rest and rest[0].lower() == "resourcegroups":
        fields["group"] = rest[1] if len(rest) > 1 else ""
        if len(rest) < 3 or rest[2].lower() != "providers":
            kind = "resourceGroups"
            return ArmPath(**fields, kind=kind, name=fields["group"], rest=tuple(rest[2:]))
        rest = rest[2:]
    if not rest or rest[0].lower() != "providers":
        return ArmPath(**fields, kind="/".join(rest) or "subscriptions")
    if len(rest) < 2:
        return None
    fields["provider"] = _PROVIDERS.get(rest[1].lower(), rest[1])
    rest = rest[2:]
    if rest and rest[0].lower() == _LOCATED and len(rest) > 2:
        fields["location"], rest = rest[1], rest[2:]
    kind = f"{fields['provider']}/{rest[0]}" if rest else fields["provider"]
    return ArmPath(
        **fields,
        kind=_KNOWN.get(kind.lower(), kind),
        name=rest[1] if len(rest) > 1 else "",
        rest=tuple(rest[2:]),
    )


def resource_id(subscription: str, group: str, kind: str, name: str) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{kind}/{name}"


def key(identifier: str) -> str:
    """An id in the form in which two of the same resource are equal."""
    return identifier.rstrip("/").lower()


def shouted(identifier: str) -> str:
    """Write a group's name in capitals, as Microsoft.Compute does in some places."""
    head, mark, rest = identifier.partition("/resourceGroups/")
    group, slash, tail = rest.partition("/")
    return f"{head}{mark}{group.upper()}{slash}{tail}"


def last(identifier: str) -> str:
    return identifier.rpartition("/")[2]
