"""The local Azure: what exists, the knobs, and the endpoint."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from vmrunner_localclouds.azure import fixtures, guest_vms, interfaces, timestamps
from vmrunner_localclouds.azure.api_error import Json, not_found
from vmrunner_localclouds.azure.endpoint import AzureEndpoint
from vmrunner_localclouds.azure.faults import AzureFaults, FailedLater
from vmrunner_localclouds.azure.fixtures import AzureSite
from vmrunner_localclouds.azure.limits import Throttles
from vmrunner_localclouds.azure.machines import AzureMachine
from vmrunner_localclouds.azure.operations import ArmOperation
from vmrunner_localclouds.azure.requests import AzureRequest
from vmrunner_localclouds.azure.resource_ids import ADDRESS, DISK, NIC, SNAPSHOT, VM, key
from vmrunner_localclouds.azure.schedules import ScheduledAction
from vmrunner_localclouds.common.json_cloud import JsonCloud
from vmrunner_localclouds.vms import Vms

GROUP: Final = "vmrunner-test"
LOCATION: Final = "westeurope"
PAGE = 100
_PRIVATE: Final = "10.8.0.0/16"


class LocalAzure(JsonCloud[AzureMachine, AzureRequest, FailedLater]):
    """One subscription. All plain attributes may be changed at any time. With a virtual `clock`,
    `sleep` makes it go on while a client polls an operation. With `vms` a real VM is behind every
    one; then the clock must be the real one."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] | None = None,
        vms: Vms | None = None,
    ) -> None:
        super().__init__(clock, sleep, AzureFaults(), vms)
        self.subscription = str(uuid.uuid4())
        self.operation_seconds = 0.0  # from a change to the end of its operation
        self.boot_seconds = 0.0  # from a create, or a start, to a guest that says it is up
        self.stop_seconds = 0.0  # from `stopping` or `deallocating` to its end
        self.delete_seconds = 0.0  # from a delete to nothing
        self.eviction_seconds = 0.0  # from simulateEviction to the eviction
        self.deadline_late = 0.0  # so long past its time a scheduled deallocation begins
        self.schedules_become = "Scheduled"  # the state of one that was submitted
        self.visibility_lag = 0.0  # so long new resources are in no list
        self.reserved_seconds = 0.0  # so long an interface of a failed VM is kept for it; here: 180
        self.retry_after = 0  # seconds, sent with an operation that runs; 0: not sent
        self.poll_seconds = 10.0  # that pass, at most, while a client polls an operation
        self.throttle_seconds: int | str = 5  # sent with a 429, as `Retry-After`
        self.throttles = True  # requests above the service's own rates are refused
        self.rates = Throttles()
        self.page_size = PAGE
        self.dry: set[tuple[str, str, str]] = set()  # (size, zone, market) without capacity
        self.restricted: set[tuple[str, str]] = set()  # (location, size) refused to all
        self.down: set[str] = set()  # zones without room, and locations that do not answer
        self.keeps_children: set[str] = set()  # types of which `deleteOption` is forgotten
        self.expands = True  # `$expand` shows an interface's addresses whole
        self.disks_inherit_tags = True  # a VM's disk has the VM's tags
        self.shouts = True  # Microsoft.Compute writes a group's name in capitals in some ids
        self.living: dict[str, AzureMachine] = {}  # by key; the last that was
        self.hidden: set[str] = set()  # keys of what no list shows yet
        self.created: dict[str, float] = {}  # key → epoch seconds
        self.reserved: dict[str, float] = {}  # key of an interface → until when
        self.groups: dict[str, Json] = {}
        self.locks: dict[str, str] = {}  # a group's name in lower case → `CanNotDelete`
        self.operations: dict[str, ArmOperation] = {}  # by name
        self.schedules: dict[str, ScheduledAction] = {}  # likewise
        self.signatures: dict[str, tuple[AzureMachine, float]] = {}  # of blobs, until when
        self.quotas = {place: dict(fixtures.QUOTAS) for place in fixtures.LOCATIONS}
        #: (publisher, offer, sku) → GiB of its disk.
        self.marketplace = {("Debian", "debian-13", "13-gen2"): 30}
        self.prices: list[Json] = []  # as `prices.price` makes them
        self._shelves: dict[str, dict[str, Json]] = {}
        self._addresses = 0
        self._endpoint = AzureEndpoint(self)

    # --- what is there ---

    def furnish(
        self,
        *,
        group: str = GROUP,
        location: str = LOCATION,
        ssh_from: str = "192.0.2.0/24",
        disk_gb: int = 10,
    ) -> AzureSite:
        """Make what a launch needs: a resource group, an image, a subnet with a firewall."""
        with self.lock:
            return fixtures.furnish(
                self, group=group, location=location, ssh_from=ssh_from, disk_gb=disk_gb
            )

    def group(self, name: str, location: str = LOCATION) -> Json:
        with self.lock:
            return fixtures.add_group(self, name, location)

    def remove_group(self, name: str) -> None:
        """Delete a group, after all that is in it."""
        within = f"/resourcegroups/{name.lower()}/"
        with self.lock:
            for machine in [m for at, m in self.living.items() if within in at]:
                machine.vanish()
            for shelf in self._shelves.values():
                for at in [at for at in shelf if within in at]:
                    del shelf[at]
            del self.groups[name.lower()]

    def image(self, group: str, name: str, *, disk_gb: int = 10, **more: object) -> Json:
        """A managed image; `more` are fields of it, such as `tags`."""
        with self.lock:
            return fixtures.add_image(self, group, name, LOCATION, disk_gb=disk_gb, **more)

    def disk(self, group: str, name: str, *, size_gb: int = 10, **more: Any) -> Json:
        """A disk that no VM has."""
        return self._leftover(
            DISK, group, name, more, diskSizeGB=size_gb, diskState="Unattached", **_empty(self)
        )

    def snapshot(self, group: str, name: str, **more: Any) -> Json:
        return self._leftover(SNAPSHOT, group, name, more, diskSizeGB=10, **_empty(self))

    def address(self, cidr: str = _PRIVATE) -> str:
        """A new address in a network."""
        self._addresses += 1
        return fixtures.nth(cidr, self._addresses)

    def reserve(self, group: str, name: str, **more: Any) -> Json:
        """A public address that no VM uses."""
        sku = {"name": "Standard", "tier": "Regional"}
        address = interfaces.new_address(self, {"sku": sku, "location": LOCATION})
        return self._leftover(ADDRESS, group, name, {"sku": sku, **more}, **address)

    def interface(self, group: str, name: str, subnet: str, **more: Any) -> Json:
        """An interface that no VM has."""
        shown = fixtures.resource(self, group, NIC, name, LOCATION)
        config = {"name": "ip", "properties": {"subnet": {"id": subnet}}}
        body = {"properties": {"ipConfigurations": [config]}}
        properties = interfaces.new_interface(self, shown, body)
        return self._leftover(NIC, group, name, more, **properties)

    def site(self, group: str, name: str, *, last_pass: float | None = None, **more: Any) -> Json:
        """A function app, as far as a guard is seen by it: it is read, and never runs. `last_pass`:
        the time that it left as a tag of its group."""
        if last_pass is not None:
            self.groups[group.lower()]["tags"]["vmrunner:last-pass"] = str(int(last_pass))
        return self._leftover("Microsoft.Web/sites", group, name, more, state="Running")

    def shelf(self, kind: str) -> dict[str, Json]:
        """All resources of a type, by key."""
        return self._shelves.setdefault(kind, {})

    def resource(self, identifier: str) -> Json | None:
        """A resource of any type by its id."""
        at = key(identifier)
        return next((shelf[at] for shelf in self._shelves.values() if at in shelf), None)

    def add(self, machine: AzureMachine) -> None:
        """Add a new machine."""
        self.machines.append(machine)
        self.living[key(machine.id)] = machine
        fixtures.keep(self, VM, machine.shown)
        if self.visibility_lag > 0:
            at = key(machine.id)
            self.hidden.add(at)
            self.later(self.visibility_lag, lambda: self.hidden.discard(at))
        if self.bodies is not None and not machine.never_runs:
            guest_vms.embody(machine, self.bodies)

    def machine(self, request: AzureRequest) -> AzureMachine:
        """The machine that a request names. Raises `ArmRefusal`."""
        found = self.living.get(key(request.path.id))
        if found is None:
            raise not_found(f"{VM}/{request.path.name}", request.path.group)
        return found

    def forget(self, machine: AzureMachine) -> None:
        """Free a name for another machine."""
        self.shelf(VM).pop(key(machine.id), None)
        if self.living.get(key(machine.id)) is machine:
            del self.living[key(machine.id)]

    @property
    def remaining(self) -> list[Json]:
        """All disks, interfaces, addresses and snapshots, used or not."""
        self.settle()
        kinds = (DISK, NIC, ADDRESS, SNAPSHOT)
        return [resource for kind in kinds for resource in self.shelf(kind).values()]

    # --- within ---

    def _leftover(
        self, kind: str, group: str, name: str, more: dict[str, Any], **properties: Any
    ) -> Json:
        with self.lock:
            shown = fixtures.resource(self, group, kind, name, LOCATION)
            shown |= {"properties": {"provisioningState": "Succeeded", **properties}, **more}
            return fixtures.keep(self, kind, shown)


def _empty(cloud: LocalAzure) -> dict[str, Any]:
    return {
        "creationData": {"createOption": "Empty"},
        "timeCreated": timestamps.written(cloud.now()),
    }
