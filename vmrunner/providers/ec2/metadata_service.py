"""The metadata service of one VM, switched off from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrunner.errors import Uncertain
from vmrunner.model import Ref
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.ec2.client import NAMED_INSTANCES, SEAL, Ec2Client
from vmrunner.providers.ec2.describe_instances import instances

if TYPE_CHECKING:
    from types_boto3_ec2 import type_defs as ec2


def seal(client: Ec2Client, ref: Ref, requested: set[str]) -> None:
    """Switch it off, and see that it is. Raises `CallFailed`, uncertain while EC2 is at it.
    `requested`: the VMs of which EC2 was asked to, which are looked at before it is asked again."""
    if ref.id not in requested:
        client(ref.scope.place, SEAL, InstanceId=ref.id, HttpEndpoint="disabled")
        requested.add(ref.id)
    options = _options(client, ref)  # the answer says "pending", however fast EC2 is
    off, state = options.get("HttpEndpoint") == "disabled", options.get("State")
    if state == "applied":
        requested.discard(ref.id)
    if not off or state != "applied":
        text = f"the metadata service of {ref.id} is {state}, not off yet"
        raise CallFailed("", Uncertain(text))


def _options(client: Ec2Client, ref: Ref) -> ec2.InstanceMetadataOptionsResponseTypeDef:
    (item,) = instances(client(ref.scope.place, NAMED_INSTANCES, InstanceIds=[ref.id]))
    return item.get("MetadataOptions", {})
