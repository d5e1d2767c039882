"""Compute Engine as the cloud of a fault world."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from unittest import mock

from google.cloud import compute_v1
from google.oauth2.credentials import Credentials
from vmrunner_localclouds.gce import GceMachine, GceRequest, LocalGce, operations
from vmrunner_localclouds.gce.timestamps import read, written

from tests.faults import gce_requests, images
from tests.faults.http_resources import HttpResource, HttpVm, OrderTags
from tests.faults.http_side import HttpSide, in_turn
from tests.support.gce import Google
from vmrunner.model import TAG, Kind, Power, Ref, Scope
from vmrunner.providers.common.guard_liveness import SIGN
from vmrunner.providers.fake import Call, Clock
from vmrunner.providers.gce.guard import name_of
from vmrunner.providers.gce.labels import PREFIX, tags
from vmrunner.providers.gce.provider import KIND, GceProvider
from vmrunner.providers.gce.resources import POWER
from vmrunner.providers.port_images import FINISH_BY, OWNER

THEIRS: Final = "theirs"
TYPE: Final = "e2-standard-2"
UNFINISHED: Final = "vmrunner-unfinished"


class GceVm(HttpVm):
    """A VM, in Compute Engine's words."""

    @property
    def power(self) -> Power:
        return POWER.get(self.local.state, Power.DEAD)

    @property
    def stopped(self) -> bool:
        return self.local.state in ("TERMINATED", "SUSPENDED")

    @property
    def preempted(self) -> bool:
        return bool(self.local.shown.get("statusMessage") == "Instance was preempted.")

    @property
    def protected(self) -> bool:
        return bool(self.local.shown["deletionProtection"])

    @protected.setter
    def protected(self, value: bool) -> None:
        self.local.shown["deletionProtection"] = value


class GceSide(HttpSide):
    """A project of its own. A create that waits for its operation makes the clock go on; the
    cloud's own deadline, which ends all VMs at E, is off unless a test wants it."""

    name = "google"
    driver = "gce"
    least_life = 40.0  # what the service takes, and the seconds in which others are made
    theirs = THEIRS
    leftovers = (Kind.DISK, Kind.ADDRESS, Kind.SNAPSHOT)
    plantable = (Kind.INSTANCE, *leftovers, Kind.IMAGE)
    listings = gce_requests.LISTINGS
    ending = "instances.delete"
    fates = gce_requests.FATES
    troubles = gce_requests.TROUBLES
    more = gce_requests.MORE
    denied = gce_requests.FORBIDDEN
    retagged = {"labels": {"team": "core"}}  # noqa: RUF012 - nobody changes it
    asks = staticmethod(gce_requests.asks)

    def __init__(self, clock: Clock) -> None:
        super().__init__(LocalGce(clock=clock, sleep=clock.sleep))
        self.local.operation_seconds = 1.0
        self.local.deadline_late = 1e9
        # Requests go out one by one: an episode is a function of its seed.
        self._within.enter_context(mock.patch("vmrunner.providers.gce.delete.AT_ONCE", 1))
        for module in ("describe", "sweep"):
            part = f"vmrunner.providers.gce.{module}.merged"
            self._within.enter_context(mock.patch(part, in_turn))
        self._within.enter_context(self.local)
        self.google = Google(self.local, clock)
        self._within.callback(self.google.close)
        self.scope = Scope(KIND, self.google.project, self.google.zone)
        self._others: Any = None  # their client
        self._planted = 0

    def provider(self, installation: str) -> GceProvider:
        return self.google.provider(name=self.name, installation=installation, **self.options)

    def call_of(self, request: GceRequest) -> Call:
        return gce_requests.call_of(request, self.scope)

    def guard(self, installation: str, roles: str) -> None:
        """There is a guard for these roles, and the providers to come are told where."""
        where = f"projects/{self.google.project}/locations/{self.google.site.region}/jobs"
        job = f"{where}/{name_of(installation)}"
        self.local.jobs[job] = {"name": job, "description": f"Roles: {roles}."}
        account = f"{name_of(installation)}@{self.google.project}.iam.gserviceaccount.com"
        self.local.accounts[account] = {"description": f"{SIGN}={int(self.local.now())}"}
        self.options = {**self.options, "guard": self.google.site.region}

    def dry_up(self) -> None:
        self.local.dry |= {(TYPE, zone, "on-demand") for zone in self.google.site.zones}

    def die(self, machine: GceVm) -> None:
        """Somebody deletes it, and it is gone at once."""
        with self.local.lock:
            operation = operations.begin(
                self.local, "delete", machine.local.scope, machine.local.shown
            )
            machine.local.vanish()
            operation.finish()

    # --- what exists ---

    def _take_in(self) -> None:
        for machine in self.local.machines:
            ref = Ref(self._zone(machine.scope), Kind.INSTANCE, machine.name)
            if ref not in self._all or self._all[ref].local is not machine:
                self._add_vm(ref, machine)
        for scope, shelf in self.local.shelves("disks").items():
            self._children(Kind.DISK, shelf, self._zone(scope), "")
        for scope, shelf in self.local.shelves("addresses").items():
            self._children(Kind.ADDRESS, shelf, self.scope, f"{scope}/addresses/")
        snapshots = self.local.shelf("snapshots", "global")
        self._children(Kind.SNAPSHOT, snapshots, self.scope, "global/snapshots/")
        made = self.local.images(self.google.project)
        self._children(Kind.IMAGE, made, self.scope, "global/images/")

    def _zone(self, scope: str) -> Scope:
        return self.scope._replace(place=scope.partition("/")[2])

    def _children(self, kind: Kind, shelf: Mapping[str, Any], scope: Scope, path: str) -> None:
        for name, item in shelf.items():
            ref = Ref(scope, kind, path + name)
            if ref not in self._all or self._all[ref].local is not item:
                exists = lambda name=name, item=item: shelf.get(name) is item  # noqa: E731
                found = tags(item.get("labels", {}))
                if kind is Kind.IMAGE:  # in another family it is finished
                    found = images.words(found) if item.get("family") == UNFINISHED else {}
                self._add(ref, found, exists, local=item)

    def _add_vm(self, ref: Ref, machine: GceMachine) -> None:
        found = tags(machine.labels)
        for attached in machine.shown["disks"]:
            attached["autoDelete"] = not self.disks_stay
        self._all[ref] = GceVm(
            ref=ref,
            tags=found,
            created_at=read(machine.shown["creationTimestamp"]),
            born_of_us=not self._planting,
            order=None if self._planting else OrderTags.of(found),
            local=machine,
        )

    # --- what others make ---

    def _make(self, kind: Kind, scope: Scope, tags: Mapping[str, str]) -> None:
        self._planted += 1
        name, labels = f"planted-{self._planted:03d}", _written(tags)
        local = self.local
        if kind is Kind.INSTANCE:
            self._launch(scope.place, name, labels)
        elif kind is Kind.DISK:
            local.disk(scope.place, name, labels=labels)
        elif kind is Kind.ADDRESS:
            local.reserve(self.google.site.region, name, labels=labels)
        elif kind is Kind.IMAGE:
            self._image(images.marks(tags))
        else:
            local.snapshot(name, labels=labels)

    def _image(self, tags: Mapping[str, str], family: str = UNFINISHED) -> None:
        self.local.image(f"image-{len(self._all)}", family=family, labels=_written(tags))

    def finish(self, image: HttpResource) -> None:
        image.local["family"] = "vmrunner-candidates"

    def plant_lasting_images(self, installation: str) -> None:
        super().plant_lasting_images(installation)
        marked = {OWNER: installation, FINISH_BY: "1"}
        for family in ("vmrunner", "vmrunner-candidates", "theirs", ""):
            self._by_others(lambda family=family: self._image(marked, family))  # type: ignore[misc]

    def _launch(self, zone: str, name: str, labels: dict[str, str]) -> None:
        if self._others is None:
            self._others = compute_v1.InstancesClient(
                credentials=Credentials(THEIRS),  # type: ignore[no-untyped-call]
                client_options={"api_endpoint": self.local.url},
            )
            self._within.callback(self._others.transport.close)
        body = self.google.body(name, labels=labels, disks=[self.google.boot_disk(labels=labels)])
        body.machine_type = f"zones/{zone}/machineTypes/{TYPE}"
        where = {"project": self.google.project, "zone": zone}
        self._others.insert_unary(request=where | {"instance_resource": body}, retry=None)

    def _born_at(self, planted: HttpResource, then: float) -> None:
        shown = planted.local.shown if planted.ref.kind is Kind.INSTANCE else planted.local
        shown["creationTimestamp"] = written(then)


def _written(tags: Mapping[str, str]) -> dict[str, str]:
    """Labels take lower case and few other signs."""
    return {
        PREFIX + key.removeprefix(TAG): re.sub(r"[^a-z0-9_-]", "_", value.lower())
        for key, value in tags.items()
    }
