"""The schedule that invokes the function, in the installation's group."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from vmrunner.errors import Conflict
from vmrunner.providers.ec2.client import SCHEDULES, Answer
from vmrunner.providers.ec2.deadline_schedules import PREFIX
from vmrunner.providers.ec2.guard.names import SCHEDULE, GuardSite
from vmrunner.providers.ec2.guard.part import api
from vmrunner.providers.ec2.guard.roles_and_queue import IamRole
from vmrunner.providers.port_guard import GUARD_INTERVAL

RATE: Final = f"rate({GUARD_INTERVAL // 60} minutes)"
GET_SCHEDULE: Final = api("scheduler", "get_schedule")


class ScheduleGroup:
    """The installation's schedules: the guard's, and the one-shot deadlines of VMs."""

    name = "group"

    def __init__(self, site: GuardSite) -> None:
        self._site = site
        self.id = site.names.group

    def wanted(self) -> Answer:
        return {}

    def look(self) -> Answer | None:
        found = self._site.find(api("scheduler", "get_schedule_group"), Name=self.id)
        return None if found is None else {}

    def make(self) -> None:
        tags = [{"Key": key, "Value": value} for key, value in self._site.names.tags.items()]
        self._site.call(api("scheduler", "create_schedule_group"), Name=self.id, Tags=tags)

    def mend(self, _: Collection[str]) -> None:
        """Do nothing: there is nothing to mend."""

    def remove(self) -> None:
        """Remove the group, unless a VM's deadline is in it: it would go with the group."""
        check_unused(self._site)
        self._site.call(api("scheduler", "delete_schedule_group"), Name=self.id)


class DeadlineRole(IamRole):
    """The role of the one-shot deadlines of VMs: `scheduler_role` in the configuration."""

    def __init__(self, site: GuardSite) -> None:
        role = site.names.deadline_role
        super().__init__(site, "deadline role", role, "deadline", trust="schedule")

    def remove(self) -> None:
        """Remove the role, unless a deadline needs it."""
        check_unused(self._site)
        super().remove()


def check_unused(site: GuardSite) -> None:
    """Raises `Conflict` while deadlines of VMs are armed."""
    group = site.names.group
    answer = site.find(SCHEDULES, GroupName=group, NamePrefix=PREFIX) or {}
    others = [schedule["Name"] for schedule in answer.get("Schedules", ())]
    if others:
        raise Conflict(f"it stays: VMs have their deadlines there, {others[0]} among them")


class Schedule:
    """The schedule that invokes the function."""

    name = "schedule"

    def __init__(self, site: GuardSite) -> None:
        self._site = site
        self.id = f"{site.names.group}/{SCHEDULE}"
        self._where = {"GroupName": site.names.group, "Name": SCHEDULE}

    def wanted(self) -> Answer:
        names = self._site.names
        return {
            "ScheduleExpression": RATE,
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "State": "ENABLED",
            "Target": {
                "Arn": names.function_arn,
                "RoleArn": names.role_arn(names.schedule_role),
                "Input": "{}",
                "DeadLetterConfig": {"Arn": names.queue_arn},
                "RetryPolicy": {
                    "MaximumEventAgeInSeconds": GUARD_INTERVAL,
                    "MaximumRetryAttempts": 2,
                },
            },
        }

    def look(self) -> Answer | None:
        found = self._site.find(GET_SCHEDULE, **self._where)
        if found is None:
            return None
        wanted = self.wanted()
        seen = {key: found.get(key) for key in wanted}
        target: Any = found.get("Target") or {}
        return {**seen, "Target": {key: target.get(key) for key in wanted["Target"]}}

    def make(self) -> None:
        self._site.settle(api("scheduler", "create_schedule"), **self._where, **self.wanted())

    def mend(self, _: Collection[str]) -> None:
        self._site.settle(api("scheduler", "update_schedule"), **self._where, **self.wanted())

    def remove(self) -> None:
        self._site.call(api("scheduler", "delete_schedule"), **self._where)
