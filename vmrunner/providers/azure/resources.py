"""Readers of each kind of resource that a group shows. A resource's id is its name: its kind and
its scope say the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from ulid import ULID

from vmrunner.model import TAG, Address, Kind, Power, Ref, Resource, Role, Scope, Seen, Start
from vmrunner.providers.azure import error_codes
from vmrunner.providers.azure.client import Answer, last, part
from vmrunner.providers.port_images import is_unfinished, unfinished

#: All but what is gone bills: a VM that its guest switched off bills as one that runs, and of one
#: that is deallocated the disk and the address do.
_POWER: Final[Mapping[str, Power]] = {
    "starting": Power.PENDING,
    "running": Power.RUNNING,
    "stopping": Power.STOPPING,
    "stopped": Power.STOPPED,
    "deallocating": Power.STOPPING,
    "deallocated": Power.STOPPED,
}
#: A VM's name, and that of all that is made with it; Azure may put something behind it.
_OURS: Final = re.compile(r"(?P<instance>vm-(?P<ulid>[0-9a-z]{26}))(?:[-_].*)?")


def statuses(item: Answer) -> list[Answer]:
    """The statuses of a VM's instance view; empty where it was not asked for."""
    return list(part(item, "properties", "instanceView", "statuses") or ())


def code(statuses: list[Answer], family: str) -> str:
    """Return a status without its family: `running` of `PowerState/running`; "": none."""
    codes = [str(status.get("code", "")) for status in statuses]
    return next((c.partition("/")[2] for c in codes if c.startswith(f"{family}/")), "")


def power(item: Answer) -> Power:
    """Power state of a VM. An unknown state is no state of the dead, and a VM that Azure calls
    failed may run."""
    state = str(part(item, "properties", "provisioningState") or "")
    power_state = code(statuses(item), "PowerState")
    if state == "Deleting":
        return Power.STOPPING
    if power_state in _POWER:
        return _POWER[power_state]
    if state == "Failed" and _unplaced(item):
        return Power.STOPPED
    return Power.PENDING if state == "Creating" else Power.RUNNING


def seen(scope: Scope, item: Answer, host: str) -> Seen:
    """View of one VM. `host`: where SSH goes; "": not known yet."""
    now = power(item)
    errors = [
        str(status.get("message") or "")
        for status in statuses(item)
        if status.get("level") == "Error"
    ]
    state = code(statuses(item), "PowerState") or part(item, "properties", "provisioningState")
    return Seen(
        ref=Ref(scope, Kind.INSTANCE, name_of(item)),
        power=now,
        address=Address(host) if host and now is Power.RUNNING else None,
        created_at=born(item),
        detail=next((text for text in errors if text), "") or str(state or ""),
        start=Start.COLD,
    )


def name_of(item: Answer) -> str:
    """Return a resource's name. Azure takes it in any case, and may show it in another."""
    return str(item.get("name") or last(str(item["id"]))).lower()


def image_name(item: Answer) -> str:
    """Return the name of a managed image, or `galleries/…/images/…/versions/…`."""
    _, found, rest = str(item["id"]).lower().partition("/providers/microsoft.compute/galleries/")
    return f"galleries/{rest}" if found else name_of(item)


def born(item: Answer) -> float | None:
    """Time when a resource was made, in epoch seconds. An interface or an address does not tell; a
    name of ours does, nearly."""
    created = part(item, "properties", "timeCreated") or part(item, "systemData", "createdAt")
    found = _OURS.fullmatch(name_of(item))
    try:
        if created:
            return datetime.fromisoformat(str(created)).timestamp()
        return float(ULID.from_str(found["ulid"].upper()).timestamp) if found else None
    except ValueError:
        return None


def tags(item: Answer) -> Mapping[str, str]:
    """The tags of a resource. Azure may show a name in another case."""
    shown = part(item, "tags") or {}
    return {key.lower() if key.lower().startswith(TAG) else key: str(v) for key, v in shown.items()}


def ours(kind: Kind, item: Answer, installation: str, attached: Ref | None) -> Mapping[str, str]:
    """Tags of a resource. A part with no tag of ours that nothing holds has those that its name
    tells, since not every part of a VM is known to inherit them. The group is one installation's
    alone, and no other program gives such a name; but a disk keeps the name that it was given, and
    one with more in its name is a copy."""
    shown = tags(item)
    found = _OURS.fullmatch(name_of(item))
    if kind is Kind.DISK and found is not None and found["instance"] != found[0]:
        return shown
    if found is None or attached is not None or any(key.startswith(TAG) for key in shown):
        return shown
    return {
        **shown,
        f"{TAG}installation": installation,
        f"{TAG}role": Role.BUILD.value,
        f"{TAG}instance": found["instance"],
    }


def vm_of(scope: Scope, identifier: object) -> Ref | None:
    """Return the VM with this id; None: there is none."""
    return Ref(scope, Kind.INSTANCE, last(str(identifier)).lower()) if identifier else None


def addresses(interface: Answer) -> Iterator[tuple[str, Answer]]:
    """Yield each private address of an interface, with its public one: all of it, or its id."""
    for configuration in part(interface, "properties", "ipConfigurations") or ():
        private = str(part(configuration, "properties", "privateIPAddress") or "")
        yield private, part(configuration, "properties", "publicIPAddress") or {}


# --- for a sweep ---------------------------------------------------------------------------------


class GroupReader:
    """Makes resources of what one group shows. Interfaces are read before addresses: those know
    the VM."""

    def __init__(self, scope: Scope, installation: str) -> None:
        self._scope = scope
        self._installation = installation
        self._holders: dict[str, Ref | None] = {}  # an interface's name → its VM

    def instance(self, item: Answer) -> Resource:
        near = f"resource group {self._scope.place}"
        return self._made(Kind.INSTANCE, item, None, power(item), tags(item), near)

    def disk(self, item: Answer) -> Resource:
        return self._part(Kind.DISK, item, vm_of(self._scope, item.get("managedBy")))

    def interface(self, item: Answer) -> Resource:
        holder = vm_of(self._scope, part(item, "properties", "virtualMachine", "id"))
        self._holders[name_of(item)] = holder
        return self._part(Kind.INTERFACE, item, holder)

    def address(self, item: Answer) -> Resource:
        config = str(part(item, "properties", "ipConfiguration", "id") or "")
        name = last(config.partition("/ipConfigurations/")[0]).lower()
        holder = self._holders.get(name) or (
            Ref(self._scope, Kind.INTERFACE, name) if name else None
        )
        return self._part(Kind.ADDRESS, item, holder)

    def snapshot(self, item: Answer) -> Resource:
        """Resource of a snapshot. No VM has any: one without tags was made to look at a build's
        disk."""
        return self._made(Kind.SNAPSHOT, item, None, _standing(item), tags(item))

    def image(self, item: Answer) -> Resource | None:
        """Return one that its build has not finished. Its name is no instance's; of a version it is
        all that follows the provider in its id."""
        image_tags = tags(item)
        if not is_unfinished(image_tags):
            return None
        ref = Ref(self._scope, Kind.IMAGE, image_name(item))
        return unfinished(ref, image_tags, born(item), _standing(item))

    def _part(self, kind: Kind, item: Answer, holder: Ref | None) -> Resource:
        part_tags = ours(kind, item, self._installation, holder)
        return self._made(kind, item, holder, _standing(item), part_tags)

    def _made(
        self,
        kind: Kind,
        item: Answer,
        holder: Ref | None,
        now: Power,
        tags: Mapping[str, str],
        near: str = "",
    ) -> Resource:
        return Resource(
            ref=Ref(self._scope, kind, name_of(item)),
            power=now,
            created_at=born(item),
            tags=tags,
            parent=holder,
            near=near,
        )


def _standing(item: Answer) -> Power:
    """Return the state of what has none but that it is there, or goes."""
    state = part(item, "properties", "provisioningState")
    return Power.STOPPING if state == "Deleting" else Power.RUNNING


def _unplaced(item: Any) -> bool:
    """True if it failed for want of a place, and never ran."""
    failure = code(statuses(item), "ProvisioningState").partition("/")[2]
    return failure in error_codes.CAPACITY or error_codes.is_quota(failure)
