"""The metadata service of one VM, switched off from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrunner.errors import Uncertain
from vmrunner.model import Ref
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.ec2.client import INSTANCES, SEAL, Ec2Client
from vmrunner.providers.ec2.describe_instances import instances

if TYPE_CHECKING:
    from types_boto3_ec2 import type_defs as ec2


def seal(calls: Ec2Client, ref: Ref) -> None:
    """Switch it off, and see that it is. Raises `CallFailed`, uncertain while EC2 is at it."""
    options = _options(calls, ref)
    if options.get("HttpEndpoint") != "disabled":
        calls(ref.scope.place, SEAL, InstanceId=ref.id, HttpEndpoint="disabled")
        options = _options(calls, ref)
    if options.get("State") != "applied":
        text = f"the metadata service of {ref.id} is {options.get('State')}, not off yet"
        raise CallFailed("", Uncertain(text))


def _options(calls: Ec2Client, ref: Ref) -> ec2.InstanceMetadataOptionsResponseTypeDef:
    (item,) = instances(calls(ref.scope.place, INSTANCES, InstanceIds=[ref.id]))
    return item.get("MetadataOptions", {})
