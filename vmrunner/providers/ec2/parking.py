"""Parking: a VM that is stopped, with its disk and its private address, and started again."""

from __future__ import annotations

from typing import Any, Final

from vmrunner.errors import BadOrder, Uncertain
from vmrunner.model import Ref
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.ec2.client import NAMED_INSTANCES, START, STOP, Ec2Api, Ec2Client
from vmrunner.providers.ec2.describe_instances import instances

#: EC2's word where a stop or a start does not follow on the state that a VM is in.
_NOT_NOW: Final = "IncorrectInstanceState"
_ENDED: Final = ("shutting-down", "terminated")


def park(client: Ec2Client, ref: Ref) -> None:
    """Stop it. Of one that stops, or has, EC2 takes that too. Its guest is not asked, which may
    take minutes at full price: what it wrote lies on its disk since its warm-up ended. Raises
    `CallFailed`."""
    _ask(client, STOP, ref, SkipOsShutdown=True)


def wake(client: Ec2Client, ref: Ref) -> None:
    """Start it. Of one that starts, or runs, EC2 takes that too. Raises `CallFailed`, uncertain
    while it still stops."""
    _ask(client, START, ref)


def _ask(client: Ec2Client, api: Ec2Api[Any], ref: Ref, **more: bool) -> None:
    try:
        client(ref.scope.place, api, InstanceIds=[ref.id], **more)
    except CallFailed as failed:
        if failed.code != _NOT_NOW:
            raise
        (item,) = instances(client(ref.scope.place, NAMED_INSTANCES, InstanceIds=[ref.id]))
        error = BadOrder if item["State"]["Name"] in _ENDED else Uncertain
        raise CallFailed(failed.code, error(str(failed.error))) from failed
