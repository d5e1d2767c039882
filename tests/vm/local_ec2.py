"""The local EC2 of a process of its own, and what a test asks of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, ClassVar

import boto3
import pytest
from vmrunner_localclouds.ec2.__main__ import ENVIRONMENT

from deploy.aws import guard
from tests.vm.home import wait_until
from tests.vm.local_cloud import Local

BY_GUEST = "Client.InstanceInitiatedShutdown"
BY_USER = "Client.UserInitiatedShutdown"


@dataclass(frozen=True)
class LocalEc2(Local):
    MODULE: ClassVar[str] = "vmrunner_localclouds.ec2"
    NAME: ClassVar[str] = "aws"

    @property
    def client(self) -> Any:
        return self._client("ec2")

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.provider["endpoint_url"],
            region_name=self.provider["region"],
            aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        )

    def all_of(self, build: str) -> list[str]:
        wanted = [{"Name": "tag:vmrunner:build", "Values": [build]}]
        found = self.client.describe_instances(Filters=wanted)["Reservations"]
        return [str(reservation["Instances"][0]["InstanceId"]) for reservation in found]

    def item(self, instance: str) -> dict[str, Any]:
        """What the API says of an instance."""
        answer = self.client.describe_instances(InstanceIds=[instance])
        found: dict[str, Any] = answer["Reservations"][0]["Instances"][0]
        return found

    def tags(self, instance: str) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self.item(instance).get("Tags", [])}

    def deadline(self, instance: str) -> int:
        """Epoch seconds."""
        return int(self.tags(instance)["vmrunner:expires-at"])

    def state(self, instance: str) -> str:
        return str(self.item(instance)["State"]["Name"])

    def wait_terminated(self, instance: str, *, seconds: float) -> str:
        """Until it is; returns why."""
        wait_until(
            lambda: self.state(instance) == "terminated", seconds=seconds, what="its termination"
        )
        assert self.vms(instance) == []
        return str(self.item(instance)["StateReason"]["Code"])

    @property
    def scheduler(self) -> Any:
        return self._client("scheduler")

    def schedules(self, instance: str) -> list[tuple[str, str]]:
        """Those that would end it: group and name."""
        name = self.tags(instance).get("vmrunner:instance", instance)
        found = self.scheduler.list_schedules(NamePrefix=f"{name}.")["Schedules"]
        return [(schedule["GroupName"], schedule["Name"]) for schedule in found]

    def fire(self, instance: str, seconds: float) -> None:
        """Put its schedule forward, so that it fires in so many seconds."""
        ((group, name),) = self.schedules(instance)
        at = datetime.fromtimestamp(time.time() + seconds, UTC)
        current = self.scheduler.get_schedule(GroupName=group, Name=name)
        kept = ("FlexibleTimeWindow", "ScheduleExpressionTimezone", "State", "Target")
        self.scheduler.update_schedule(
            GroupName=group,
            Name=name,
            ScheduleExpression=f"at({at:%Y-%m-%dT%H:%M:%S})",
            **{key: current[key] for key in kept},
        )

    def furniture(self, instance: str) -> list[str]:
        """Disks and interfaces that hang on it, or did and are left."""
        client = self.client
        name = self.tags(instance).get("vmrunner:instance", instance)
        found = client.describe_volumes()["Volumes"]
        found += client.describe_network_interfaces()["NetworkInterfaces"]
        return [text for text in map(str, found) if name in text or instance in text]


def pass_by_guard(ec2: LocalEc2, installation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass of the installed function, which the local EC2 keeps and never runs."""
    _environment(ec2, installation, monkeypatch)
    functions = ec2._client("lambda").list_functions()["Functions"]
    (arn,) = [item["FunctionArn"] for item in functions if installation in item["FunctionName"]]
    guard.handler({}, SimpleNamespace(invoked_function_arn=arn))


def _environment(ec2: LocalEc2, installation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_DEFAULT_REGION": ec2.provider["region"],
        "AWS_ENDPOINT_URL": ec2.provider["endpoint_url"],
        "VMRUNNER_INSTALLATION": installation,
        "VMRUNNER_REGIONS": ec2.provider["region"],
    }.items():
        monkeypatch.setenv(name, value)


def end_by_guard(ec2: LocalEc2, instance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard's handler ends it once its grace is over, and not before; nothing is left."""
    _environment(ec2, ec2.tags(instance)["vmrunner:installation"], monkeypatch)
    ended = []
    before = ec2.state(instance)
    for late in (-1, guard.GRACE, guard.GRACE + 1):
        hour = SimpleNamespace(time=lambda late=late: ec2.deadline(instance) + late)
        monkeypatch.setattr(guard, "time", hour)
        assert ec2.state(instance) == before
        ended.append([line["id"] for line in guard.handler({})["ended"]])
    assert ended == [[], [], [instance]]
    assert ec2.wait_terminated(instance, seconds=60) == BY_USER
    assert ec2.furniture(instance) == []
