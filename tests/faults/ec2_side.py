"""EC2 as the cloud of a fault world."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from unittest import mock

import boto3
from botocore.client import ClientCreator
from vmrunner_localclouds.ec2 import Ec2Machine, Ec2Request, LocalCloud

from tests.faults import ec2_requests, images
from tests.faults.http_resources import HttpResource, HttpVm, OrderTags
from tests.faults.http_side import HttpSide
from tests.support.ec2 import REGION, Amazon, credentials
from vmrunner.model import TAG, Kind, Power, Ref, Role, Scope
from vmrunner.providers.ec2.options import GROUP
from vmrunner.providers.ec2.provider import KIND, Ec2Provider
from vmrunner.providers.ec2.resources import POWER
from vmrunner.providers.fake import Call, Clock
from vmrunner.providers.port_images import FINISH_BY

THEIRS: Final = "AKIATHEIRSTHEIRS0000"


@functools.cache
def _sdk() -> boto3.Session:
    """One for all worlds: each reads the whole of EC2's model anew."""
    session = boto3.Session()
    session.get_credentials()
    return session


_CLASSES: Final[dict[str, Any]] = {}
_make_class: Final = ClientCreator._create_client_class  # type: ignore[attr-defined]


def _class_of(creator: ClientCreator, service: str, model: Any) -> Any:
    """Return the class of a service's clients, made once: EC2's has 780 methods."""
    if service not in _CLASSES:
        _CLASSES[service] = _make_class(creator, service, model)
    return _CLASSES[service]


class Sdk:
    """One for a world: making clients takes longer than most of what they are asked."""

    def __init__(self) -> None:
        self.get_credentials = _sdk().get_credentials
        self._clients: dict[tuple[str, str | None], Any] = {}

    def client(self, service: str, **options: Any) -> Any:
        which = service, options.get("region_name")
        if which not in self._clients:
            self._clients[which] = _sdk().client(service, **options)
        return self._clients[which]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


class Ec2Vm(HttpVm):
    """A VM, in EC2's words."""

    @property
    def power(self) -> Power:
        return POWER[self.local.state]

    @property
    def stopped(self) -> bool:
        off = self.local.state in ("stopping", "stopped")
        return off or self._ended_by("Client.InstanceInitiated")

    @property
    def preempted(self) -> bool:
        return self._ended_by("Server.SpotInstance")

    @property
    def protected(self) -> bool:
        return bool(self.local.protected)

    @protected.setter
    def protected(self, value: bool) -> None:
        self.local.protected = value

    @property
    def sealed(self) -> bool:
        return not self.local.metadata

    def _ended_by(self, reason: str) -> bool:
        state_reason = self.local.moto.state_reason
        return state_reason is not None and str(state_reason.message).startswith(reason)


class Ec2Side(HttpSide):
    """An AWS account of its own."""

    name = "aws"
    driver = "ec2"
    seals = True
    theirs = THEIRS
    plantable = (Kind.INSTANCE, Kind.DISK, Kind.SCHEDULE, Kind.IMAGE)
    listings = ec2_requests.LISTINGS
    ending = "TerminateInstances"
    fates = ec2_requests.FATES
    troubles = ec2_requests.TROUBLES
    more = ec2_requests.MORE
    denied = ec2_requests.UNAUTHORIZED
    retagged = {"tags": {"team": "core"}}  # noqa: RUF012 - nobody changes it
    asks = staticmethod(ec2_requests.asks)

    def __init__(self, clock: Clock) -> None:
        super().__init__(LocalCloud(clock=clock))
        self._within.enter_context(credentials())
        ours, self._others = Sdk(), Sdk()
        for sdk in (ours, self._others):
            self._within.callback(sdk.close)
        self._within.enter_context(mock.patch("boto3.Session", return_value=ours))
        made = mock.patch.object(ClientCreator, "_create_client_class", _class_of)
        self._within.enter_context(made)
        self._within.enter_context(self.local)
        self.amazon = Amazon(self.local, clock)
        self.scope = Scope(KIND, self.local.account, REGION)

    def provider(self, installation: str) -> Ec2Provider:
        return self.amazon.provider(
            name=self.name,
            installation=installation,
            scheduler_role=f"arn:aws:iam::{self.local.account}:role/vmrunner-scheduler",
            **self.options,
        )

    def call_of(self, request: Ec2Request) -> Call:
        return ec2_requests.call_of(request, self.scope)

    def dry_up(self) -> None:
        for subnet in self.amazon.site.subnets:
            self.local.dry |= {(t, subnet, "on-demand") for t in ("m7i.large", "c7i.large")}

    # --- what exists ---

    def _take_in(self) -> None:
        from moto.scheduler.models import scheduler_backends

        backend = self.local.backend(REGION)
        for machine in self.local.machines:
            if Ref(self.scope, Kind.INSTANCE, machine.id) not in self._all:
                self._add_vm(machine)
        for name in list(backend.volumes):
            self._child(Kind.DISK, name, backend.volumes)
        for name in list(backend.enis):
            self._child(Kind.INTERFACE, name, backend.enis)
        for kind, shelf in ((Kind.IMAGE, backend.amis), (Kind.SNAPSHOT, backend.snapshots)):
            for name in list(shelf):
                self._child(kind, name, shelf)
        spots = backend.spot_instance_requests
        for name in list(spots):
            ref = Ref(self.scope, Kind.SPOT_REQUEST, name)
            if ref not in self._all:
                tags = backend.tags.get(name, {})
                self._add(ref, tags, functools.partial(_wanted, spots, name))
        schedules = scheduler_backends[self.local.account][REGION].schedule_groups
        for group in list(schedules.values()):
            for name, schedule in list(group.schedules.items()):
                ref = Ref(self.scope, Kind.SCHEDULE, f"{group.name}/{name}")
                if ref not in self._all:
                    exists = functools.partial(lambda g, n, o: g.schedules.get(n) is o, group)
                    of = group.name.removeprefix(GROUP) if group.name != "default" else ""
                    tags = {f"{TAG}installation": of, f"{TAG}role": Role.BUILD.value}
                    self._add(ref, tags, functools.partial(exists, name, schedule))

    def _child(self, kind: Kind, name: str, shelf: Mapping[str, Any]) -> None:
        ref = Ref(self.scope, kind, name)
        if ref not in self._all:
            tags = self.local.backend(REGION).tags.get(name, {})
            if kind in (Kind.IMAGE, Kind.SNAPSHOT):  # no build has any: an image's is as that is
                tags = images.words(tags)
            self._add(ref, tags, lambda: name in shelf)

    def _add_vm(self, machine: Ec2Machine) -> None:
        tags = machine.tags
        if not self._planting:
            for disk in machine.moto.block_device_mapping.values():
                disk.delete_on_termination = not self.disks_stay
        ref = Ref(self.scope, Kind.INSTANCE, machine.id)
        self._all[ref] = Ec2Vm(
            ref=ref,
            tags=tags,
            created_at=machine.moto.launch_time.replace(tzinfo=UTC).timestamp(),
            born_of_us=not self._planting,
            order=None if self._planting else OrderTags.of(tags),
            local=machine,
        )

    # --- what others make ---

    def _make(self, kind: Kind, scope: Scope, tags: Mapping[str, str]) -> None:
        del scope  # there is one
        made: dict[Kind, Callable[[Mapping[str, str]], None]] = {
            Kind.INSTANCE: self._launch,
            Kind.DISK: self._disk,
            Kind.SCHEDULE: self._schedule,
            Kind.IMAGE: lambda image_tags: self._image(images.marks(image_tags)),
        }
        made[kind](tags)

    def _image(self, tags: Mapping[str, str]) -> None:
        """With its snapshot, tagged alike; with a VM's tags that would be one of a VM's disk."""
        ami = self.local.image(REGION, f"image-{len(self._all)}", tags=tags)
        snapshot_tags = {} if f"{TAG}installation" in tags else dict(tags)
        self.local.backend(REGION).amis[ami].ebs_snapshot.add_tags(snapshot_tags)

    def finish(self, image: HttpResource) -> None:
        del self.local.backend(REGION).tags[image.ref.id][FINISH_BY]

    def _born_at(self, planted: HttpResource, then: float) -> None:
        if planted.ref.kind is Kind.INSTANCE:
            planted.local.moto.launch_time = datetime.fromtimestamp(then, UTC).replace(tzinfo=None)

    def _launch(self, tags: Mapping[str, str]) -> None:
        site, tag_list = self.amazon.site, _written(tags)
        kinds = ("instance", "volume", "network-interface") if tags else ()
        self._theirs("ec2").run_instances(
            ImageId=site.image,
            InstanceType="m7i.large",
            SubnetId=site.subnets[0],
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": kind, "Tags": tag_list} for kind in kinds],
        )

    def _disk(self, tags: Mapping[str, str]) -> None:
        specifications = [{"ResourceType": "volume", "Tags": _written(tags)}] if tags else []
        self._theirs("ec2").create_volume(
            AvailabilityZone=f"{REGION}a", Size=1, TagSpecifications=specifications
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
        return self._others.client(
            service,
            region_name=REGION,
            endpoint_url=self.local.url,
            aws_access_key_id=THEIRS,
            aws_secret_access_key="theirs",
        )


def _wanted(requests: Mapping[str, Any], name: str) -> bool:
    """Does this spot request stand? Cancelled, it is shown no more."""
    return name in requests and requests[name].state in ("open", "active")


def _written(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
