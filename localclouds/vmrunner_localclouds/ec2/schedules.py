"""EventBridge Scheduler, as far as one-shot schedules that end instances go: moto keeps them, and
never fires one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from moto.scheduler.exceptions import ScheduleGroupNotFound
from moto.scheduler.models import EventBridgeSchedulerBackend, Schedule

from vmrunner_localclouds.ec2 import quotas
from vmrunner_localclouds.ec2.api_error import Ec2Refusal

if TYPE_CHECKING:
    from vmrunner_localclouds.ec2.cloud import LocalCloud

_AT: Final = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
_TERMINATE: Final = re.compile(r"arn:[\w-]+:scheduler:::aws-sdk:ec2:terminateInstances")

Backend = EventBridgeSchedulerBackend


def create_schedule(
    cloud: LocalCloud, backend: Backend, original: Callable[..., Schedule], **arguments: Any
) -> Schedule:
    """Create a schedule, which fires if it is a one-shot that ends instances."""
    expression = str(arguments["schedule_expression"])
    quotas.check_schedule(arguments["group_name"] or "default", arguments["name"], expression)
    _check_group(backend, arguments["group_name"])
    if not (_AT.fullmatch(expression) or expression.startswith(("rate(", "cron("))):
        raise Ec2Refusal("ValidationException", f"Invalid Schedule Expression {expression}.")
    made = original(backend, **arguments)
    _wind(cloud, backend, made)
    return made


def update_schedule(
    cloud: LocalCloud, backend: Backend, original: Callable[..., Schedule], **arguments: Any
) -> Schedule:
    """Update a schedule, which then fires at its new time."""
    changed = original(backend, **arguments)
    _wind(cloud, backend, changed)
    return changed


def create_group(
    _: LocalCloud, backend: Backend, original: Callable[..., Any], name: str, tags: Any
) -> Any:
    """moto makes the same one again, and forgets what was in it."""
    quotas.check_group(name)
    if name in backend.schedule_groups:
        raise Ec2Refusal("ConflictException", f"Schedule group {name} already exists.", status=409)
    return original(backend, name=name, tags=tags or [])


def list_schedules(
    _: LocalCloud, backend: Backend, original: Callable[..., Any], *args: Any, **arguments: Any
) -> Any:
    """List schedules. Raises `Ec2Refusal` for a group that does not exist."""
    for name in args[0] or ():
        _check_group(backend, name)
    return original(backend, *args, **arguments)


def _check_group(backend: Backend, name: str | None) -> None:
    if (name or "default") not in backend.schedule_groups:
        raise ScheduleGroupNotFound(name or "default")


def _wind(cloud: LocalCloud, backend: Backend, schedule: Schedule) -> None:
    at = _time(schedule)
    if at is not None and _TERMINATE.fullmatch(schedule.target["Arn"]):
        cloud.later(at - cloud.now(), lambda: _fire(cloud, backend, schedule))


def _time(schedule: Schedule) -> float | None:
    """Epoch seconds at which a one-shot fires; None where it recurs."""
    found = _AT.fullmatch(schedule.schedule_expression)
    return datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp() if found else None


def _fire(cloud: LocalCloud, backend: Backend, schedule: Schedule) -> None:
    """Fire a one-shot. It is over then, whatever its outcome, and deletes itself where it asked for
    that."""
    group = backend.schedule_groups.get(schedule.group_name)
    exists = group is not None and group.schedules.get(schedule.name) is schedule
    at = _time(schedule)
    early = at is None or cloud.now() < at  # it was put off meanwhile
    if not exists or early or schedule.state == "DISABLED":
        return
    for name in json.loads(schedule.target.get("Input", "{}")).get("InstanceIds", ()):
        machine = cloud.by_id.get(name)
        same_region = machine is not None and machine.backend.region_name == backend.region_name
        if machine is not None and same_region and not machine.protected:
            machine.end()
    if schedule.action_after_completion == "DELETE" and group is not None:
        group.delete_schedule(schedule.name)
