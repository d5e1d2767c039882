"""EC2 as the cloud of a fault world: the real driver over HTTP at a local endpoint, what exists
there in the world's words, and each request as a call that may go wrong."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from unittest import mock

import boto3

from tests.amazon import REGION, Amazon, credentials
from tests.faults.ec2calls import TROUBLES, call_of
from tests.faults.ec2things import Thing, Vm, Wish
from vmrunner.model import TAG, Kind, Power, Ref, Role, Scope
from vmrunner.providers.ec2.options import GROUP
from vmrunner.providers.ec2.provider import KIND, Ec2Provider
from vmrunner.providers.fake import Call, Clock, Plan
from vmrunner.testing.localcloud import LOST_REQUEST, LocalCloud, Machine, Request, Trouble

#: Whoever else uses the account. What goes wrong with our requests spares theirs.
THEIRS: Final = "AKIATHEIRSTHEIRS0000"


@functools.cache
def _sdk() -> boto3.Session:
    """One for all worlds: each reads the whole of EC2's model anew."""
    session = boto3.Session()
    session.get_credentials()
    return session


class Sdk:
    """One for a world: making clients takes longer than most of what they are asked."""

    def __init__(self) -> None:
        self.get_credentials = _sdk().get_credentials
        self._clients: dict[str, Any] = {}

    def client(self, service: str, **options: Any) -> Any:
        if service not in self._clients:
            self._clients[service] = _sdk().client(service, **options)
        return self._clients[service]


class OverHttp:
    """An account of its own, on the world's clock."""

    name = "aws"
    seals = True

    def __init__(self, clock: Clock) -> None:
        self._within = contextlib.ExitStack()
        self._within.enter_context(credentials())
        self._within.enter_context(mock.patch("boto3.Session", return_value=Sdk()))
        self.local = LocalCloud(clock=clock)
        self.local.boot_seconds = self.local.delete_seconds = 2.0
        self.local.faults.on_request = self._asked
        self._within.enter_context(self.local)
        self.amazon = Amazon(self.local, clock)
        self.scope = Scope(KIND, self.local.account, REGION)
        self.unreachable: set[Scope] = set()
        self.options: dict[str, Any] = {}  # of the providers to come
        self.disks_stay = False  # somebody sees to it that each VM's disk outlives it
        self.on_call: Callable[[Call], Any] | None = None
        self._all: dict[Ref, Any] = {}
        self._planting = False

    def close(self) -> None:
        self._within.close()

    def provider(self, installation: str) -> Ec2Provider:
        return self.amazon.provider(
            name=self.name,
            installation=installation,
            scheduler_role=f"arn:aws:iam::{self.local.account}:role/vmrunner-scheduler",
            **self.options,
        )

    # --- time ---

    @property
    def skew(self) -> float:
        return self.local.skew

    @skew.setter
    def skew(self, seconds: float) -> None:
        self.local.skew = seconds

    def now(self) -> float:
        return self.local.now()

    def settle(self) -> None:
        self.local.settle()

    # --- what exists ---

    @property
    def machines(self) -> Mapping[Ref, Any]:
        self._take_in()
        return self._all

    def standing(self) -> list[Any]:
        self.settle()
        return [thing for thing in self.machines.values() if thing.power is not Power.DEAD]

    def die(self, machine: Vm) -> None:
        machine.local.die()

    def preempt(self, machine: Vm) -> None:
        machine.local.preempt()

    def power_off(self, machine: Vm) -> None:
        machine.local.power_off()

    def _take_in(self) -> None:
        """Whatever came into being since."""
        from moto.scheduler.models import scheduler_backends

        backend = self.local.backend(REGION)
        for machine in self.local.machines:
            if Ref(self.scope, Kind.INSTANCE, machine.id) not in self._all:
                self._add_vm(machine)
        for name in list(backend.volumes):
            self._add(Kind.DISK, name, lambda n=name: n in backend.volumes)
        for name in list(backend.enis):
            self._add(Kind.INTERFACE, name, lambda n=name: n in backend.enis)
        spots = backend.spot_instance_requests
        for name in list(spots):
            wanted = functools.partial(_wanted, spots, name)
            self._add(Kind.SPOT_REQUEST, name, wanted)
        schedules = scheduler_backends[self.local.account][REGION].schedule_groups
        for group in list(schedules.values()):
            for name, one in list(group.schedules.items()):
                there = functools.partial(lambda g, n, o: g.schedules.get(n) is o, group, name, one)
                installation = group.name.removeprefix(GROUP) if group.name != "default" else ""
                tags = {f"{TAG}installation": installation, f"{TAG}role": Role.BUILD.value}
                self._add(Kind.SCHEDULE, f"{group.name}/{name}", there, tags)

    def _add_vm(self, machine: Machine) -> None:
        tags = machine.tags
        wish = None
        if not self._planting:
            deadline = float(tags[f"{TAG}expires-at"])
            wish = Wish(tags[f"{TAG}instance"], tags[f"{TAG}build"], deadline)
            for disk in machine.moto.block_device_mapping.values():
                disk.delete_on_termination = not self.disks_stay
        ref = Ref(self.scope, Kind.INSTANCE, machine.id)
        self._all[ref] = Vm(
            ref=ref,
            tags=tags,
            created_at=machine.moto.launch_time.replace(tzinfo=UTC).timestamp(),
            born_of_us=wish is not None,
            order=wish,
            local=machine,
        )

    def _add(
        self,
        kind: Kind,
        name: str,
        there: Callable[[], bool],
        tags: Mapping[str, str] | None = None,
    ) -> None:
        ref = Ref(self.scope, kind, name)
        if ref not in self._all:
            found = self.local.backend(REGION).tags.get(name, {}) if tags is None else tags
            self._all[ref] = Thing(
                ref=ref,
                tags=dict(found),
                created_at=self.now(),
                born_of_us=not self._planting and bool(found),
                there=there,
            )

    # --- what others make ---

    def plant(
        self,
        _: Scope,
        tags: Mapping[str, str],
        *,
        kind: Kind = Kind.INSTANCE,
        created_at: float | None = None,
    ) -> Any:
        """A VM (with what belongs to it, tagged alike), a disk or a schedule."""
        before = set(self.machines)
        self._planting = True
        try:
            {Kind.INSTANCE: self._launch, Kind.DISK: self._disk, Kind.SCHEDULE: self._schedule}[
                kind
            ](tags)
            made = [thing for ref, thing in self.machines.items() if ref not in before]
        finally:
            self._planting = False
        planted = next(thing for thing in made if thing.ref.kind is kind)
        if created_at is not None and kind is Kind.INSTANCE:
            then = datetime.fromtimestamp(created_at, UTC).replace(tzinfo=None)
            planted.local.moto.launch_time = then
        return planted

    def _launch(self, tags: Mapping[str, str]) -> None:
        site, said = self.amazon.site, _written(tags)
        kinds = ("instance", "volume", "network-interface") if tags else ()
        self._theirs("ec2").run_instances(
            ImageId=site.image,
            InstanceType="m7i.large",
            SubnetId=site.subnets[0],
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": kind, "Tags": said} for kind in kinds],
        )

    def _disk(self, tags: Mapping[str, str]) -> None:
        said = [{"ResourceType": "volume", "Tags": _written(tags)}] if tags else []
        self._theirs("ec2").create_volume(
            AvailabilityZone=f"{REGION}a", Size=1, TagSpecifications=said
        )

    def _schedule(self, tags: Mapping[str, str]) -> None:
        """In the group of whoever the tags say, or in none."""
        client, group = self._theirs("scheduler"), "default"
        if f"{TAG}installation" in tags:
            group = GROUP + tags[f"{TAG}installation"]
            client.create_schedule_group(Name=group)
        client.create_schedule(
            Name=f"vm-{len(self._all)}.1",
            GroupName=group,
            ScheduleExpression="rate(1 hour)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": "arn:aws:lambda:::function:f", "RoleArn": "arn:aws:iam:::role/r"},
        )

    def _theirs(self, service: str) -> Any:
        return _sdk().client(
            service,
            region_name=REGION,
            endpoint_url=self.local.url,
            aws_access_key_id=THEIRS,
            aws_secret_access_key="theirs",
        )

    # --- what goes wrong ---

    def _asked(self, request: Request) -> Trouble | None:
        """In the server's thread, while whoever asked waits."""
        if request.key == THEIRS or self.on_call is None:
            return None
        if self.unreachable:
            return LOST_REQUEST
        try:
            fate = self.on_call(call_of(request, self.scope))
        except Exception:  # noqa: BLE001 - the world has noted it, and tells at its next check
            return LOST_REQUEST
        return TROUBLES[fate.fault] if isinstance(fate, Plan) else fate


def _wanted(requests: Mapping[str, Any], name: str) -> bool:
    """Does this spot request stand? Cancelled, it is shown no more."""
    return name in requests and requests[name].state in ("open", "active")


def _written(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
