"""Things in a local EC2 that are past their deadline, or not, for the guard to judge."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final

import boto3
from vmrunner_localclouds.ec2 import Ec2Machine

from tests.support.ec2 import INSTALLATION, REGION, Amazon, make_order
from vmrunner.providers.ec2.provider import Ec2Provider

FOREIGN: Final = "00000000-0000-4000-8000-00000000000f"
GRACE: Final = 480.0


def tagged(aws: Amazon, late: float = GRACE + 1, **more: str) -> dict[str, str]:
    """The tags of something that is so many seconds past its deadline."""
    values = {"installation": INSTALLATION, "role": "build", "instance": "vm-1", **more}
    values.setdefault("expires_at", str(int(aws.cloud.now() - late)))
    return {f"vmrunner:{key.replace('_', '-')}": value for key, value in values.items()}


@functools.lru_cache(maxsize=4)
def provider_of(aws: Amazon, region: str = REGION, spot: str | None = None) -> Ec2Provider:
    site = aws.site if region == REGION else aws.cloud.furnish(region)
    return aws.provider(
        region=region,
        spot=spot,
        image=site.image,
        subnets=site.subnets,
        security_groups=(site.security_group,),
    )


def launch(aws: Amazon, tags: Mapping[str, str], *place: str) -> Ec2Machine:
    provider = provider_of(aws, *place)
    ref = provider.create(make_order(provider))
    machine = aws.cloud.by_id[ref.id]
    machine.backend.tags[machine.id] = dict(tags)
    return machine


def ec2(aws: Amazon, region: str = REGION) -> Any:
    return boto3.client("ec2", region_name=region)


def everything(aws: Amazon, tags: Mapping[str, str]) -> dict[str, str]:
    """One free thing of every kind with these tags; kind → id."""
    client, pairs = ec2(aws), [{"Key": key, "Value": value} for key, value in tags.items()]
    machine = launch(aws, tags, REGION, "only")
    *_, request = machine.backend.spot_instance_requests.values()
    volume = client.create_volume(Size=1, AvailabilityZone=f"{REGION}a")["VolumeId"]
    made = {
        "instance": machine.id,
        "spot_request": request.id,
        "disk": volume,
        "interface": client.create_network_interface(SubnetId=aws.site.subnets[0])[
            "NetworkInterface"
        ]["NetworkInterfaceId"],
        "address": client.allocate_address(Domain="vpc")["AllocationId"],
        "snapshot": client.create_snapshot(VolumeId=volume)["SnapshotId"],
    }
    client.create_tags(Resources=list(made.values()), Tags=pairs)
    return made


def left(aws: Amazon) -> set[str]:
    """The ids of all that exists of these kinds."""
    backend = aws.cloud.backend(REGION)
    found = {machine.id for machine in aws.cloud.alive}
    found |= {v.id for v in backend.volumes.values()} | {s.id for s in backend.snapshots.values()}
    found |= set(backend.enis) | {a.allocation_id for a in backend.addresses}
    requests = backend.spot_instance_requests.values()
    return found | {r.id for r in requests if r.state in ("open", "active")}


def lambda_function(aws: Amazon, code: bytes = b"PK\x05\x06" + bytes(18)) -> str:
    """A function under the guard's name, with this archive of code; returns its ARN. The local EC2
    keeps functions and never runs one."""
    name = f"vmrunner-guard-{INSTALLATION}"
    role = boto3.client("iam", region_name=REGION).create_role(
        RoleName=f"role-of-{name}"[:64],
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []}),
    )
    made = boto3.client("lambda", region_name=REGION).create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="guard.handler",
        Role=role["Role"]["Arn"],
        Code={"ZipFile": code},
        Environment={"Variables": {"VMRUNNER_ROLES": "build,pool,image"}},
    )
    return str(made["FunctionArn"])


def invocation(arn: str) -> Any:
    """What Lambda tells a handler beside the event."""
    return SimpleNamespace(invoked_function_arn=arn)
