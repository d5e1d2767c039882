"""EC2 as the cloud of a fault world: the real driver over HTTP at a local endpoint, what exists
there in the world's words, and each request as a call that may go wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from unittest import mock

import boto3

from tests.amazon import REGION, Amazon, credentials
from vmrunner.model import TAG, Kind, Power, Ref, Role, Scope
from vmrunner.providers.ec2.kinds import POWER
from vmrunner.providers.ec2.options import GROUP
from vmrunner.providers.ec2.provider import KIND, Ec2Provider
from vmrunner.providers.fake import Call, Clock, Fault, Plan
from vmrunner.testing.localcloud import (
    DENIED,
    INTERNAL,
    LOST_ANSWER,
    LOST_REQUEST,
    NO_CAPACITY,
    THROTTLED,
    LocalCloud,
    Machine,
    Request,
    Trouble,
)

#: Whoever else uses the account. What goes wrong with our requests spares theirs.
THEIRS: Final = "AKIATHEIRSTHEIRS0000"

#: What a request is through the port. Others go by their own names.
METHODS: Final = MappingProxyType(
    {
        "RunInstances": "create",
        "CreateSchedule": "arm",
        "CreateScheduleGroup": "arm",
        "ModifyInstanceMetadataOptions": "seal",
        "DescribeVolumes": "sweep",
        "DescribeAddresses": "sweep",
        "DescribeNetworkInterfaces": "sweep",
        "DescribeSnapshots": "sweep",
        "DescribeSpotInstanceRequests": "sweep",
        "ListSchedules": "sweep",
    }
)
#: What ends something: its kind, and where the request says which.
DELETES: Final = MappingProxyType(
    {
        "TerminateInstances": (Kind.INSTANCE, "InstanceId"),
        "DeleteVolume": (Kind.DISK, "VolumeId"),
        "DeleteNetworkInterface": (Kind.INTERFACE, "NetworkInterfaceId"),
        "CancelSpotInstanceRequests": (Kind.SPOT_REQUEST, "SpotInstanceRequestId"),
        "DeleteSchedule": (Kind.SCHEDULE, ""),
    }
)
TROUBLES: Final = MappingProxyType(
    {
        Fault.OK: None,
        Fault.LOST_REQUEST: LOST_REQUEST,
        Fault.LOST_RESPONSE: LOST_ANSWER,
        Fault.SERVER_ERROR: INTERNAL,
        Fault.THROTTLE: THROTTLED,
        Fault.NO_CAPACITY: NO_CAPACITY,
        Fault.QUOTA: Trouble("VcpuLimitExceeded", 400, "more than your limit"),
        Fault.CREDENTIALS: DENIED,
        Fault.PARTIAL_PAGE: INTERNAL,
    }
)


class Wish(NamedTuple):
    """What was asked for, by the tags of the request."""

    instance: str
    build: str
    deadline: float


@dataclass(eq=False, kw_only=True)
class Thing:
    """What is no VM."""

    ref: Ref
    tags: Mapping[str, str]
    created_at: float
    born_of_us: bool
    there: Callable[[], bool]
    order: Wish | None = None
    hung: bool = False  # the guest is dead, the machine bills
    stopped = preempted = sealed = False
    reverted_at = None

    @property
    def power(self) -> Power:
        return Power.RUNNING if self.there() else Power.DEAD

    @property
    def alive(self) -> bool:
        return self.there()


@dataclass(eq=False, kw_only=True)
class Vm(Thing):
    """A VM, `local` being the endpoint's own view of it."""

    local: Machine
    there: Callable[[], bool] = field(default=lambda: True)

    @property
    def power(self) -> Power:
        return POWER[self.local.state]

    @property
    def alive(self) -> bool:
        return self.local.alive

    @property
    def stopped(self) -> bool:
        return self.local.state == "stopped" or self._ended_by("Client.InstanceInitiated")

    @property
    def preempted(self) -> bool:
        return self._ended_by("Server.SpotInstance")

    @property
    def sealed(self) -> bool:
        return not self.local.metadata

    def _ended_by(self, reason: str) -> bool:
        told = self.local.moto.state_reason
        return told is not None and str(told.message).startswith(reason)


@functools.cache
def _sdk() -> boto3.Session:
    """One for the process: each reads the whole of EC2's model anew."""
    return boto3.Session()


class OverHttp:
    """An account of its own, on the world's clock."""

    name = "aws"
    seals = True

    def __init__(self, clock: Clock) -> None:
        self._sdk = mock.patch("boto3.Session", lambda **_: _sdk())
        self._credentials = credentials()
        self._credentials.__enter__()
        _sdk().get_credentials()
        self._sdk.start()
        self.local = LocalCloud(clock=clock)
        self.local.boot_seconds = self.local.delete_seconds = 2.0
        self.local.faults.on_request = self._asked
        self.local.start()
        self.amazon = Amazon(self.local, clock)
        self.scope = Scope(KIND, self.local.account, REGION)
        self.unreachable: set[Scope] = set()
        self.options: dict[str, Any] = {}  # of the providers to come
        self.disks_stay = False  # somebody sees to it that each VM's disk outlives it
        self.on_call: Callable[[Call], Any] | None = None
        self._all: dict[Ref, Any] = {}
        self._planting = False

    def close(self) -> None:
        self.local.stop()
        self._sdk.stop()
        self._credentials.__exit__(None, None, None)

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
        for name, spot in list(backend.spot_instance_requests.items()):
            self._add(Kind.SPOT_REQUEST, name, lambda s=spot: s.state in ("open", "active"))
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
            aws_secret_access_key="theirs",  # noqa: S106 - it means nothing
        )

    # --- what goes wrong ---

    def _asked(self, request: Request) -> Trouble | None:
        """In the server's thread, while whoever asked waits."""
        if request.key == THEIRS or self.on_call is None:
            return None
        if self.unreachable:
            return LOST_REQUEST
        try:
            fate = self.on_call(self._call(request))
        except Exception:  # noqa: BLE001 - the world has noted it, and tells at its next check
            return LOST_REQUEST
        return TROUBLES[fate.fault] if isinstance(fate, Plan) else fate

    def _call(self, request: Request) -> Call:
        action = request.action
        method, about = METHODS.get(action, action), None
        if action == "RunInstances":
            about = request.params["ClientToken"]
        elif action == "DescribeInstances":
            listing = request.params.get("Filter.1.Name") == "instance-state-name"
            method = "sweep" if listing else "look"
        elif action in DELETES and request.params.get("DryRun") != "true":
            kind, key = DELETES[action]
            named = request.all(key) or [request.params[key]] if key else []
            method, about = "delete", tuple(Ref(self.scope, kind, name) for name in named)
        return Call(method, action, self.scope, about)


def _written(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
