"""The metadata service of VMs, switched off from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from vmrunner.errors import Uncertain
from vmrunner.model import Ref
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.coalesced_read import CoalescedRead
from vmrunner.providers.ec2.client import SEAL, Ec2Client
from vmrunner.providers.ec2.describe_instances import INSTANCE_ID, filtered

if TYPE_CHECKING:
    from types_boto3_ec2 import type_defs as ec2

    Options = ec2.InstanceMetadataOptionsResponseTypeDef


class MetadataService:
    """Metadata services of all VMs of one account. Their states are read together, since many
    builds may start at once."""

    def __init__(self, client: Ec2Client) -> None:
        self._client = client
        #: VMs of which EC2 was asked to switch it off: they are looked at before it is asked again.
        self._requested: set[str] = set()
        self._reads: dict[str, CoalescedRead[str, Options]] = {}  # by region

    def switch_off(self, ref: Ref) -> None:
        """Switch it off, and see that it is. Raises `CallFailed`, uncertain while EC2 is at it."""
        region = ref.scope.place
        if ref.id not in self._requested:
            self._client(region, SEAL, InstanceId=ref.id, HttpEndpoint="disabled")
            self._requested.add(ref.id)
        read = self._reads.setdefault(region, CoalescedRead(partial(self._options, region)))
        options = read(ref.id) or {}  # the answer says "pending", however fast EC2 is
        off, state = options.get("HttpEndpoint") == "disabled", options.get("State")
        if state == "applied":
            self._requested.discard(ref.id)
        if not off or state != "applied":
            text = f"the metadata service of {ref.id} is {state or 'not to be seen'}, not off yet"
            raise CallFailed("", Uncertain(text))

    def _options(self, region: str, ids: Sequence[str]) -> Mapping[str, Options]:
        """Options of those that can be seen: a disrupted zone holds up no build in another."""
        found: dict[str, Options] = {}
        try:
            for item in filtered(self._client, region, INSTANCE_ID, ids):
                found[item["InstanceId"]] = item.get("MetadataOptions", {})
        except CallFailed:
            if not found:
                raise
        return found
