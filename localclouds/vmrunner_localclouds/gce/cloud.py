"""The local GCE: what exists, the knobs, and the endpoint."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final

from vmrunner_localclouds.common.faults import RequestFate
from vmrunner_localclouds.common.json_cloud import JsonCloud
from vmrunner_localclouds.gce import fixtures, guest_vms, leftovers
from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.gce.endpoint import GceEndpoint
from vmrunner_localclouds.gce.faults import THROTTLED, BrokenOperation, GceFaults
from vmrunner_localclouds.gce.fixtures import GceSite
from vmrunner_localclouds.gce.machines import GceMachine
from vmrunner_localclouds.gce.networks import nth
from vmrunner_localclouds.gce.operations import Operation
from vmrunner_localclouds.gce.requests import GceRequest
from vmrunner_localclouds.gce.vendor_limits import Throttles
from vmrunner_localclouds.vms import Vms

PROJECT: Final = "vmrunner-test"


class LocalGce(JsonCloud[GceMachine, GceRequest, BrokenOperation]):
    """One project. All plain attributes may be changed at any time. With a virtual `clock`, `sleep`
    makes it go on while a client waits for an operation; without, such a wait ends at once. With
    `vms` a real VM is behind every instance; then the clock must be the real one."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] | None = None,
        project: str = PROJECT,
        vms: Vms | None = None,
    ) -> None:
        super().__init__(clock, sleep, GceFaults(), vms)
        self.project = project
        self.number = f"{secrets.randbelow(9 * 10**11) + 10**11}"  # of the project
        self.operation_seconds = 0.0  # from the first sight of an operation to its end
        self.boot_seconds = 0.0  # from an insert to RUNNING, and from a resume
        self.stop_seconds = 0.0  # from STOPPING to TERMINATED
        self.suspend_seconds = 0.0  # from SUSPENDING to SUSPENDED
        self.deaf_guests = False  # nothing in a guest obeys: it is RUNNING again after that time
        self.delete_seconds = 0.0  # from STOPPING to nothing
        self.deadline_late = 0.0  # so long past its time a deadline strikes; the real one: 30
        self.visibility_lag = 0.0  # so long new machines are not visible
        self.token_seconds = 3600.0  # so long a `requestId` is remembered
        self.dry: set[tuple[str, str, str]] = set()  # (type, zone, market) without capacity
        self.immovable: set[str] = set()  # machine types that cannot migrate
        self.stockout_remains = False  # a new VM without capacity stays, TERMINATED
        self.quota_in_operation = False  # a quota is looked at after the request is accepted
        self.sparse_pages = False  # a filter empties pages instead of filling them
        self.unreachable: set[str] = set()  # scopes: `zones/z`, `regions/r`
        self.partial_lists = True  # else a list over all zones fails when one is out of reach
        self.by_link: dict[str, GceMachine] = {}
        self.hidden: set[str] = set()  # links of machines that no list shows yet
        self.operations: dict[str, Operation] = {}  # by link
        self.tokens: dict[tuple[str, str], tuple[float, Operation]] = {}
        self.quotas: dict[str, dict[str, float]] = {}  # region, or "" → metric → limit
        self.common_metadata: dict[str, str] = {}  # of the project
        self.jobs: dict[str, Json] = {}  # of Cloud Scheduler, by name
        self.accounts: dict[str, Json] = {}  # of services, by address
        #: Of the catalog: description, unit, USD, regions.
        self.prices: list[tuple[str, str, float, list[str]]] = []
        self.throttles = True  # requests above Google's own rates are refused
        self.rates = Throttles(self.now)
        self._shelves: dict[str, dict[str, dict[str, Json]]] = {}
        self._addresses = 0
        self._endpoint = GceEndpoint(self)
        fixtures.build(self)

    def plan(self, request: GceRequest) -> RequestFate | BrokenOperation | None:
        """The fate of a request before it is looked at; None: no fault is planned."""
        fate = super().plan(request)
        if fate is not None or not self.throttles or self.rates.admit(request):
            return fate
        return THROTTLED

    # --- what is there ---

    def furnish(
        self, *, family: str = "vmrunner", ssh_from: str = "192.0.2.0/24", disk_gb: int = 10
    ) -> GceSite:
        """Make what a launch needs: an image in a family, and a network in which builds do not
        reach each other."""
        with self.lock:
            return fixtures.furnish(self, family=family, ssh_from=ssh_from, disk_gb=disk_gb)

    def image(
        self, name: str, *, family: str = "", disk_gb: int = 10, project: str = "", **more: object
    ) -> Json:
        """A new image, of this project unless another one is named; `more` are fields of it."""
        with self.lock:
            owner = project or self.project
            return fixtures.add_image(self, owner, name, family=family, disk_gb=disk_gb, **more)

    def disk(self, zone: str, name: str, *, size_gb: int = 10, **more: object) -> Json:
        """A disk that no VM has; `more` are fields of it, such as `labels`."""
        with self.lock:
            return leftovers.add_disk(self, zone, name, size_gb, more)

    def reserve(self, region: str, name: str, **more: object) -> Json:
        """A static external address that no VM uses; a global one with the region ""."""
        with self.lock:
            return leftovers.add_address(self, region, name, more)

    def snapshot(self, name: str, *, disk: str = "", **more: object) -> Json:
        """Add a snapshot of a former disk, by its link."""
        with self.lock:
            return leftovers.add_snapshot(self, name, disk, more)

    def shelf(self, collection: str, scope: str) -> dict[str, Json]:
        """All resources of a kind in `zones/z`, `regions/r` or `global`, by name."""
        return self._shelves.setdefault(collection, {}).setdefault(scope, {})

    def shelves(self, collection: str) -> dict[str, dict[str, Json]]:
        """All resources of a kind by scope and name."""
        return self._shelves.setdefault(collection, {})

    def find(self, collection: str, scope: str, name: str) -> Json | None:
        """Find a resource by name or by number, as the API does."""
        shelf = self.shelf(collection, scope)
        if name in shelf or not name.isdigit():
            return shelf.get(name)
        return next((found for found in shelf.values() if found["id"] == name), None)

    def images(self, project: str) -> dict[str, Json]:
        """Images by name: of this project, or of another's that are public."""
        return self.shelf("images", "global" if project == self.project else project)

    def address(self, cidr: str) -> str:
        """A new address in a network."""
        self._addresses += 1
        return nth(cidr, self._addresses)

    def add(self, machine: GceMachine) -> None:
        """Add a new machine."""
        self.machines.append(machine)
        self.by_link[machine.shown["selfLink"]] = machine
        if self.bodies is not None and not machine.never_runs:
            guest_vms.embody(machine, self.bodies)
        machine.begin()

    def machine(self, link: str) -> GceMachine:
        """The machine of a link, or the last that had it."""
        return self.by_link[link]

    @property
    def disks(self) -> list[Json]:
        """All disks that bill, attached or not."""
        self.settle()
        return [disk for shelf in self.shelves("disks").values() for disk in shelf.values()]
