"""Azure as the cloud of a fault world."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self
from unittest import mock

import httpx2
from vmrunner_localclouds.azure import AzureMachine, AzureRequest, LocalAzure
from vmrunner_localclouds.azure.fixtures import add_version
from vmrunner_localclouds.azure.resource_ids import VERSION
from vmrunner_localclouds.azure.timestamps import read, written
from vmrunner_localclouds.common.machine import GONE

from tests.faults import azure_requests, images
from tests.faults.http_resources import HttpResource, HttpVm, OrderTags
from tests.faults.http_side import HttpSide, in_turn
from tests.support.arm import body_of
from vmrunner.model import Kind, Power, Ref, Scope
from vmrunner.providers.azure.client import QUOTAS
from vmrunner.providers.azure.galleries import gallery_of
from vmrunner.providers.azure.guard import ROLES, name_of
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.azure.provider import KIND, AzureProvider
from vmrunner.providers.azure.resources import image_name
from vmrunner.providers.common.rate_limits import Buckets
from vmrunner.providers.fake import Call, Clock
from vmrunner.providers.port_images import FINISH_BY

THEIRS: Final = "theirs"
SIZE: Final = "Standard_D2s_v5"
#: In the place of one for each world, which reads a file of authorities.
_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_POWER: Final = {
    "starting": Power.PENDING,
    "running": Power.RUNNING,
    "stopping": Power.STOPPING,
    "stopped": Power.STOPPED,
    "deallocating": Power.STOPPING,
    "deallocated": Power.STOPPED,
    "": Power.STOPPED,  # it never had room
    GONE: Power.DEAD,
}
_SHELVES: Final = {
    "Microsoft.Compute/disks": Kind.DISK,
    "Microsoft.Network/networkInterfaces": Kind.INTERFACE,
    "Microsoft.Network/publicIPAddresses": Kind.ADDRESS,
    "Microsoft.Compute/snapshots": Kind.SNAPSHOT,
    "Microsoft.Compute/images": Kind.IMAGE,
    VERSION: Kind.IMAGE,
}


class AzureVm(HttpVm):
    """A VM, in Azure's words."""

    @property
    def power(self) -> Power:
        return _POWER[self.local.state]

    @property
    def stopped(self) -> bool:
        """True also of one that never ran: its create failed, and it stays."""
        failed = self.local.failure is not None and not self.local.failure.runs
        return failed or self.local.state in ("stopped", "deallocated")

    @property
    def preempted(self) -> bool:
        return bool(self.local.evicted)


class AzureSide(HttpSide):
    """A resource group of its own. A create that waits for its operation makes the clock go on; a
    scheduled deallocation, which stops every VM past E, is off unless a test wants it."""

    name = "azure"
    driver = "azure"
    theirs = THEIRS
    leftovers = (Kind.DISK, Kind.INTERFACE, Kind.ADDRESS, Kind.SNAPSHOT)
    plantable = (Kind.INSTANCE, *leftovers, Kind.IMAGE)
    listings = azure_requests.LISTINGS
    ending = "virtualMachines.delete"
    strikes = ("die", "preempt", "power off", "hang")  # a VM there protects itself from nothing
    page = "vmrunner_localclouds.azure.cloud.PAGE"
    fates = azure_requests.FATES
    troubles = azure_requests.TROUBLES
    more = azure_requests.MORE
    denied = azure_requests.FORBIDDEN
    retagged = {"tags": {"team": "core"}}  # noqa: RUF012 - nobody changes it
    asks = staticmethod(azure_requests.asks)

    def __init__(self, clock: Clock) -> None:
        super().__init__(LocalAzure(clock=clock, sleep=clock.sleep))
        self.clock = clock
        self.local.operation_seconds = 1.0
        self.local.poll_seconds = 0.0  # who waits for an operation sleeps himself
        self.local.deadline_late = 1e9
        # Requests go out one by one: an episode is a function of its seed.
        azure = "vmrunner.providers.azure"
        for part, stand_in in (
            ("describe.ThreadPoolExecutor", _InTurn),
            ("delete.ThreadPoolExecutor", _InTurn),
            ("sweep.merged", in_turn),
        ):
            self._within.enter_context(mock.patch(f"{azure}.{part}", stand_in))
        self._within.enter_context(self.local)
        self.site = self.local.furnish()
        self.scope = Scope(KIND, self.local.subscription, self.site.group)
        self._others = self._within.enter_context(
            httpx2.Client(
                base_url=self.local.url,
                headers={"Authorization": f"Bearer {THEIRS}"},
                verify=_NO_TLS,
            )
        )
        self._planted = 0

    def provider(self, installation: str) -> AzureProvider:
        values: dict[str, Any] = {
            "name": self.name,
            "installation": installation,
            "subscription": self.local.subscription,
            "resource_group": self.site.group,
            "location": self.site.location,
            "image": self.site.image,
            "subnet": self.site.subnet,
            "endpoint": self.local.url,
        }
        buckets = Buckets(QUOTAS, now=self.clock, sleep=self.clock.sleep)
        options = AzureOptions(**(values | self.options))
        return AzureProvider(options, buckets=buckets, elapsed=self.clock, sleep=self.clock.sleep)

    def call_of(self, request: AzureRequest) -> Call:
        return azure_requests.call_of(request, self.scope)

    def guard(self, installation: str, roles: str) -> None:
        """There is a guard for these roles, and the providers to come are told where."""
        self.local.group("guards")
        now = self.local.now()
        self.local.site("guards", name_of(installation), last_pass=now, tags={ROLES: roles})
        self.options = {**self.options, "guard": "guards"}

    def dry_up(self) -> None:
        self.local.dry |= {(SIZE, zone, "on-demand") for zone in ("", *self.site.zones)}

    def die(self, machine: AzureVm) -> None:
        """Somebody deletes it, and it is gone at once."""
        with self.local.lock:
            machine.local.vanish()

    def preempt(self, machine: AzureVm) -> None:
        machine.local.evict()

    # --- what exists ---

    def _take_in(self) -> None:
        for machine in self.local.machines:
            ref = Ref(self.scope, Kind.INSTANCE, machine.name.lower())
            if ref not in self._all or self._all[ref].local is not machine:
                self._add_vm(ref, machine)
        for shelf, kind in _SHELVES.items():
            self._children(kind, self.local.shelf(shelf))

    def _children(self, kind: Kind, shelf: Mapping[str, Any]) -> None:
        for at, item in list(shelf.items()):
            ref = Ref(self.scope, kind, image_name(item))
            if ref not in self._all or self._all[ref].local is not item:
                exists = lambda at=at, item=item: shelf.get(at) is item  # noqa: E731
                tags = item.get("tags") or {}
                self._add(
                    ref, images.words(tags) if kind is Kind.IMAGE else tags, exists, local=item
                )

    def _add_vm(self, ref: Ref, machine: AzureMachine) -> None:
        tags = machine.tags
        if self.disks_stay:
            machine.shown["properties"]["storageProfile"]["osDisk"]["deleteOption"] = "Detach"
        self._all[ref] = AzureVm(
            ref=ref,
            tags=tags,
            created_at=read(machine.shown["properties"]["timeCreated"]),
            born_of_us=not self._planting,
            order=None if self._planting else OrderTags.of(tags),
            local=machine,
        )

    # --- what others make ---

    def _make(self, kind: Kind, scope: Scope, tags: Mapping[str, str]) -> None:
        del scope  # there is one
        self._planted += 1
        name, own = f"planted-{self._planted:03d}", dict(tags)
        local, group = self.local, self.site.group
        if kind is Kind.INSTANCE:
            self._launch(name, own)
        elif kind is Kind.DISK:
            local.disk(group, name, tags=own)
        elif kind is Kind.INTERFACE:
            local.interface(group, name, self.site.subnet, tags=own)
        elif kind is Kind.ADDRESS:
            local.reserve(group, name, tags=own)
        elif kind is Kind.IMAGE:
            self._image(images.marks(own))
        else:
            local.snapshot(group, name, tags=own)

    def _image(self, tags: Mapping[str, str]) -> None:
        """Make a version of every second one."""
        group, number = self.site.group, len(self._all)
        if number % 2:
            self.local.image(group, f"image-{number}", tags=dict(tags))
            return
        where = (gallery_of(group), "vmrunner-default", f"1.0.{number}", self.site.location)
        with self.local.lock:
            add_version(self.local, group, *where, tags=dict(tags))

    def finish(self, image: HttpResource) -> None:
        del image.local["tags"][FINISH_BY]

    def _launch(self, name: str, tags: dict[str, str]) -> None:
        path = f"/subscriptions/{self.local.subscription}/resourceGroups/{self.site.group}"
        path += f"/providers/Microsoft.Compute/virtualMachines/{name}"
        answer = self._others.put(
            path, params={"api-version": "2026-04-01"}, json=body_of(self.site, name, tags)
        )
        assert answer.status_code == 201, answer.text

    def _born_at(self, planted: HttpResource, then: float) -> None:
        local = planted.local
        shown = local.shown if planted.ref.kind is Kind.INSTANCE else local
        if "timeCreated" in shown["properties"]:  # interfaces and addresses do not tell
            shown["properties"]["timeCreated"] = written(then)


class _InTurn:
    """An executor in the thread of whoever asks."""

    def __init__(self, _workers: int) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return [work(item) for item in items]
