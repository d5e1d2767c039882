"""One-shot schedules in EventBridge Scheduler: each ends one VM past its deadline, with nothing of
vmrunner's running, and then itself.

They carry no tags: whose they are is told by their group, which VM's and until when by their name.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Final

from vmrunner.model import TAG, Kind, Power, Ref, Resource, Role, Scope
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.ec2.client import (
    CREATE_GROUP,
    CREATE_SCHEDULE,
    DELETE_SCHEDULE,
    SCHEDULES,
    Answer,
    Ec2Client,
)
from vmrunner.providers.ec2.options import Ec2Options
from vmrunner.providers.ec2.resources import Ec2KindReader, Ec2Nearness

#: So long past E it ends the VM, in seconds: the guest's own timer and the reaper come first.
AFTER: Final = 600
#: So long past that it may be there: it is precise to a minute, and removes itself.
GONE: Final = 300
PREFIX: Final = "vm-"
PAGE: Final = 100  # items, the most that Scheduler gives

NO_GROUP: Final = "ResourceNotFoundException"
_EXISTS: Final = "ConflictException"
_NAME: Final = re.compile(r"(?P<instance>vm-[0-9a-z]+)\.(?P<deadline>\d{1,12})")


def arm(
    client: Ec2Client, options: Ec2Options, partition: str, ref: Ref, instance: str, deadline: float
) -> Ref:
    """Let this VM be ended `AFTER` its deadline. What was armed before is the same. Raises
    `CallFailed`."""
    when = datetime.fromtimestamp(int(deadline) + AFTER, UTC)
    group, name = options.schedule_group, f"{instance}.{int(deadline)}"
    schedule: Answer = {
        "GroupName": group,
        "Name": name,
        "ScheduleExpression": f"at({when:%Y-%m-%dT%H:%M:%S})",
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "Target": {
            "Arn": f"arn:{partition}:scheduler:::aws-sdk:ec2:terminateInstances",
            "RoleArn": options.scheduler_role,
            "Input": json.dumps({"InstanceIds": [ref.id]}),
        },
    }
    region = ref.scope.place
    try:
        try:
            client(region, CREATE_SCHEDULE, **schedule)
        except CallFailed as failed:
            if failed.code != NO_GROUP:
                raise
            _make_group(client, region, options)
            client(region, CREATE_SCHEDULE, **schedule)
    except CallFailed as failed:
        if failed.code != _EXISTS:
            raise
    return Ref(ref.scope, Kind.SCHEDULE, f"{group}/{name}")


def _make_group(client: Ec2Client, region: str, options: Ec2Options) -> None:
    tags = [{"Key": f"{TAG}installation", "Value": options.installation}]
    try:
        client(region, CREATE_GROUP, Name=options.schedule_group, Tags=tags)
    except CallFailed as failed:
        if failed.code != _EXISTS:  # another process was faster
            raise


def disarm(client: Ec2Client, region: str, name: str) -> None:
    """`name`: with its group. Raises `CallFailed`."""
    group, _, name = name.partition("/")
    client(region, DELETE_SCHEDULE, GroupName=group, Name=name)


def reader(options: Ec2Options) -> Ec2KindReader:
    """Reader of this installation's schedules."""

    def make(scope: Scope, item: Answer, _: Ec2Nearness) -> Resource | None:
        found = _NAME.fullmatch(item["Name"])
        if found is None:
            return None
        created = item.get("CreationDate")
        until = int(found["deadline"]) + AFTER + GONE
        return Resource(
            ref=Ref(scope, Kind.SCHEDULE, f"{options.schedule_group}/{item['Name']}"),
            power=Power.RUNNING,
            created_at=created.timestamp() if created is not None else None,
            tags={
                f"{TAG}installation": options.installation,
                f"{TAG}role": Role.BUILD.value,
                f"{TAG}instance": found["instance"],
                f"{TAG}expires-at": str(until),
            },
        )

    params = {"GroupName": options.schedule_group, "NamePrefix": PREFIX}
    return Ec2KindReader(
        Kind.SCHEDULE, SCHEDULES, "Schedules", make, params, page=PAGE, nothing=NO_GROUP
    )
