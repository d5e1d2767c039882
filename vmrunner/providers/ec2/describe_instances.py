"""DescribeInstances, in any state: by a filter, or zone by zone.

While a zone of the region is disrupted, EC2 answers lists of ids that are all in other zones, and
nothing else. Which instance is where, the network interfaces tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from vmrunner.errors import Uncertain
from vmrunner.providers.common.batches import batches
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.ec2.client import (
    INSTANCES,
    INTERFACES,
    NAMED_INSTANCES,
    Answer,
    Ec2Api,
    Ec2Caller,
)
from vmrunner.providers.ec2.error_codes import UNKNOWN_INSTANCE
from vmrunner.providers.ec2.resources import PAGE

if TYPE_CHECKING:
    from types_boto3_ec2 import type_defs as ec2

FILTER: Final = 200  # values, the most that one filter takes

INSTANCE_ID: Final = "instance-id"
#: A filter of instances that is called otherwise for interfaces.
_OF_INTERFACES: Final = {INSTANCE_ID: "attachment.instance-id"}

Filters = Mapping[str, Sequence[str]]


#: Answers that come in pages.
PagedT = TypeVar(
    "PagedT",
    "ec2.DescribeInstancesResultTypeDef",
    "ec2.DescribeNetworkInterfacesResultTypeDef",
)


class ZonePart(NamedTuple):
    """The instances of one zone ("": unknown), or why they cannot be read."""

    zone: str
    items: Sequence[ec2.InstanceTypeDef]
    failed: CallFailed | None = None


def filtered(
    client: Ec2Caller, region: str, name: str, values: Sequence[str], also: Filters | None = None
) -> Iterator[ec2.InstanceTypeDef]:
    """The instances for which the filter `name` has one of these values, and `also` holds. Raises
    `CallFailed` after all that could be read."""
    for part in batches(values, FILTER):
        filters = {name: part, **(also or {})}
        try:
            for answer in _pages(client, region, INSTANCES, filters):
                yield from instances(answer)
        except CallFailed as failed:
            if not disrupted(failed):
                raise
            broken = None
            for zone in apart(client, region, filters):
                yield from zone.items
                broken = zone.failed or broken
            if broken is not None:
                raise broken from failed


def disrupted(failed: CallFailed) -> bool:
    """True if EC2 answered that it cannot tell: then it may tell of some zones."""
    return bool(failed.code) and isinstance(failed.error, Uncertain)


def apart(client: Ec2Caller, region: str, filters: Filters) -> Iterator[ZonePart]:
    """Yield the same instances zone by zone. Raises `CallFailed` when no interface can be
    listed."""
    zones: dict[str, dict[str, None]] = {}
    interface_filters = {_OF_INTERFACES.get(name, name): values for name, values in filters.items()}
    for answer in _pages(client, region, INTERFACES, interface_filters):
        for interface in answer["NetworkInterfaces"]:
            instance = interface.get("Attachment", {}).get("InstanceId")
            if instance:
                zones.setdefault(interface["AvailabilityZone"], {})[instance] = None
    shown = {name for names in zones.values() for name in names}
    # A VM that has ended has no interface any more.
    zones[""] = {name: None for name in filters.get(INSTANCE_ID, ()) if name not in shown}
    for zone, names in zones.items():
        for part in batches(list(names), FILTER):
            yield from _named(client, region, zone, part)


def instances(answer: ec2.DescribeInstancesResultTypeDef) -> Iterator[ec2.InstanceTypeDef]:
    for reservation in answer["Reservations"]:
        yield from reservation["Instances"]


# --- within --------------------------------------------------------------------------------------


def _named(client: Ec2Caller, region: str, zone: str, ids: Sequence[str]) -> Iterator[ZonePart]:
    """Yield those of these instances that exist. A list is refused whole for one that does not, or
    is in a zone that is disrupted: halve it until that one is alone."""
    try:
        yield ZonePart(
            zone, list(instances(client(region, NAMED_INSTANCES, InstanceIds=list(ids))))
        )
    except CallFailed as failed:
        unknown = UNKNOWN_INSTANCE.fullmatch(failed.code) is not None
        if len(ids) > 1 and (unknown or (not zone and disrupted(failed))):
            half = len(ids) // 2
            yield from _named(client, region, zone, ids[:half])
            yield from _named(client, region, zone, ids[half:])
        elif not unknown:
            yield ZonePart(zone, (), failed)


def _pages(
    client: Ec2Caller, region: str, api: Ec2Api[PagedT], filters: Filters
) -> Iterator[PagedT]:
    params: Answer = {
        "Filters": [{"Name": name, "Values": list(values)} for name, values in filters.items()],
        "MaxResults": PAGE,
    }
    while True:
        answer = client(region, api, **params)
        yield answer
        if not answer.get("NextToken"):
            return
        params["NextToken"] = answer["NextToken"]
