"""The local EC2, by the SDK alone: what it adds to moto is what EC2 does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError
from botocore.parsers import ResponseParserError
from vmrunner_localclouds.ec2 import (
    AFTER_ALL,
    GARBAGE,
    LOST_ANSWER,
    LOST_REQUEST,
    Ec2Site,
    LocalCloud,
    Mapping,
)

from vmrunner.providers.fake import Clock

REGION = "eu-west-1"
TAG = [{"Key": "vmrunner:instance", "Value": "vm-1"}]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cloud(clock: Clock) -> Iterator[LocalCloud]:
    with LocalCloud(clock=clock) as cloud:
        yield cloud


@pytest.fixture
def site(cloud: LocalCloud) -> Ec2Site:
    disks = [Mapping(device="/dev/xvda"), Mapping(device="/dev/xvdb", delete_on_termination=False)]
    return cloud.furnish(REGION, mappings=disks)


def client(cloud: LocalCloud, service: Any = "ec2", **more: Any) -> Any:
    return boto3.client(
        service,
        endpoint_url=cloud.url,
        region_name=more.pop("region", REGION),
        aws_access_key_id=more.pop("key", "AKIALOCALLOCALLOCAL0"),
        aws_secret_access_key="local",
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def ec2(cloud: LocalCloud) -> Any:
    return client(cloud)


def run(ec2: Any, site: Ec2Site, **more: Any) -> str:
    kinds = ["instance", "volume", "network-interface"]
    if "InstanceMarketOptions" in more:
        kinds.append("spot-instances-request")
    options: dict[str, Any] = {
        "ImageId": site.image,
        "InstanceType": "m7i.large",
        "MinCount": 1,
        "MaxCount": 1,
        "NetworkInterfaces": [
            {"DeviceIndex": 0, "SubnetId": site.subnets[0], "Groups": [site.security_group]}
        ],
        "TagSpecifications": [{"ResourceType": kind, "Tags": TAG} for kind in kinds],
    }
    name: str = ec2.run_instances(**(options | more))["Instances"][0]["InstanceId"]
    return name


def state(ec2: Any, name: str) -> str:
    shown: str = _one(ec2, name)["State"]["Name"]
    return shown


def _one(ec2: Any, name: str) -> Any:
    return ec2.describe_instances(InstanceIds=[name])["Reservations"][0]["Instances"][0]


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def test_a_client_token_is_one_machine(cloud: LocalCloud, site: Ec2Site, ec2: Any) -> None:
    cloud.throttles = False  # six starts in a second
    first = run(ec2, site, ClientToken="t")
    assert run(ec2, site, ClientToken="t") == first
    other = {"UserData": "other", "ClientToken": "t"}
    assert refused(lambda: run(ec2, site, **other)) == "IdempotentParameterMismatch"
    # It is idempotent within a zone: the same token in another one is another machine.
    elsewhere = [{"DeviceIndex": 0, "SubnetId": site.subnets[1]}]
    assert run(ec2, site, ClientToken="t", NetworkInterfaces=elsewhere) != first
    ec2.terminate_instances(InstanceIds=[first])
    again = "IdempotentInstanceTerminated"
    assert refused(lambda: run(ec2, site, ClientToken="t")) == again
    cloud.token_seconds = 0
    assert run(ec2, site, ClientToken="t") != first


def test_a_life(cloud: LocalCloud, clock: Clock, site: Ec2Site, ec2: Any) -> None:
    cloud.boot_seconds, cloud.delete_seconds = 5, 7
    name = run(ec2, site, UserData="hello")
    assert state(ec2, name) == "pending"
    clock.advance(5)
    assert state(ec2, name) == "running"
    assert _one(ec2, name)["LaunchTime"].timestamp() == clock() - 5
    (done,) = ec2.terminate_instances(InstanceIds=[name])["TerminatingInstances"]
    assert (done["PreviousState"]["Name"], done["CurrentState"]["Name"]) == (
        "running",
        "shutting-down",
    )
    clock.advance(7)
    assert state(ec2, name) == "terminated"
    assert _one(ec2, name)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    clock.advance(cloud.tombstone)
    assert refused(lambda: state(ec2, name)) == "InvalidInstanceID.NotFound"
    assert cloud.by_id[name].history == ["pending", "running", "shutting-down", "terminated"]


def test_tags_and_disks_follow_the_call_and_the_image(
    clock: Clock, site: Ec2Site, ec2: Any
) -> None:
    spot = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}}
    name = run(ec2, site, InstanceMarketOptions=spot)
    volumes = ec2.describe_volumes()["Volumes"]
    (nic,) = ec2.describe_network_interfaces()["NetworkInterfaces"]
    (request,) = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert len(volumes) == 2
    assert all(volume["Tags"] == TAG for volume in volumes)
    assert nic["TagSet"] == request["Tags"] == TAG
    assert request["InstanceId"] == name
    assert request["CreateTime"].timestamp() == clock()
    used = nic["NetworkInterfaceId"]
    assert refused(lambda: ec2.delete_network_interface(NetworkInterfaceId=used)) == (
        "InvalidParameterValue"
    )
    ec2.terminate_instances(InstanceIds=[name])
    (remaining,) = ec2.describe_volumes()["Volumes"]
    assert (remaining["State"], remaining["Attachments"]) == ("available", [])  # as the image says
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    (request,) = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert request["State"] == "closed"


def test_one_bad_item_and_nothing_is_terminated(cloud: LocalCloud, site: Ec2Site, ec2: Any) -> None:
    names = [run(ec2, site) for _ in range(3)]
    cloud.by_id[names[1]].protected = True
    kill = lambda ids, **more: lambda: ec2.terminate_instances(InstanceIds=ids, **more)  # noqa: E731
    assert refused(kill(names)) == "OperationNotPermitted"
    assert refused(kill([names[0], "i-0123456789abcdef0"])) == "InvalidInstanceID.NotFound"
    assert refused(kill([names[0], "nonsense"])) == "InvalidInstanceID.Malformed"
    assert refused(kill(names[:1], DryRun=True)) == "DryRunOperation"
    assert len(cloud.alive) == 3
    ec2.modify_instance_attribute(InstanceId=names[1], DisableApiTermination={"Value": False})
    ec2.terminate_instances(InstanceIds=names)
    assert cloud.alive == []


def test_stop_protection_protects_from_termination_too(
    cloud: LocalCloud, site: Ec2Site, ec2: Any
) -> None:
    name = run(ec2, site, DisableApiStop=True)
    kill = lambda: ec2.terminate_instances(InstanceIds=[name])  # noqa: E731
    for off in ("DisableApiTermination", "DisableApiStop"):
        assert refused(kill) == "OperationNotPermitted"
        ec2.modify_instance_attribute(InstanceId=name, **{off: {"Value": False}})
    kill()
    assert cloud.alive == []


def test_with_a_zone_disrupted_only_other_ids_are_answered(
    cloud: LocalCloud, site: Ec2Site, ec2: Any
) -> None:
    first, second = (
        run(ec2, site, NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnet}])
        for subnet in site.subnets[:2]
    )
    cloud.outages.add(f"{REGION}a")
    assert refused(ec2.describe_instances) == "Unavailable"
    mine = [{"Name": "instance-id", "Values": [second]}]
    assert refused(lambda: ec2.describe_instances(Filters=mine)) == "Unavailable"
    assert refused(lambda: state(ec2, first)) == "Unavailable"
    assert refused(lambda: run(ec2, site)) == "InsufficientInstanceCapacity"
    assert state(ec2, second) == "running"
    cloud.outages.clear()
    assert state(ec2, first) == "running"


def test_a_stuck_machine_needs_force(cloud: LocalCloud, site: Ec2Site, ec2: Any) -> None:
    name = run(ec2, site)
    cloud.by_id[name].stuck = True
    ec2.terminate_instances(InstanceIds=[name])
    ec2.terminate_instances(InstanceIds=[name])
    assert state(ec2, name) == "shutting-down"
    ec2.terminate_instances(InstanceIds=[name], Force=True)
    assert state(ec2, name) == "terminated"


def test_a_guest_and_the_cloud_end_a_machine_too(
    cloud: LocalCloud, site: Ec2Site, ec2: Any
) -> None:
    stays, goes, spot = (
        run(ec2, site),
        run(ec2, site, InstanceInitiatedShutdownBehavior="terminate"),
        run(ec2, site, InstanceMarketOptions={"MarketType": "spot"}),
    )
    cloud.by_id[stays].power_off()
    cloud.by_id[goes].power_off()
    cloud.by_id[spot].preempt()
    assert [state(ec2, name) for name in (stays, goes, spot)] == [
        "stopped",
        "terminated",
        "terminated",
    ]
    assert _one(ec2, goes)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert _one(ec2, spot)["StateReason"]["Code"] == "Server.SpotInstanceTermination"


def test_one_that_is_stopped_starts_from_its_disk(
    cloud: LocalCloud, clock: Clock, site: Ec2Site, ec2: Any
) -> None:
    cloud.boot_seconds, cloud.delete_seconds = 5, 7
    nic = {"DeviceIndex": 0, "SubnetId": site.subnets[0], "AssociatePublicIpAddress": True}
    name = run(ec2, site, NetworkInterfaces=[nic])
    mine = {"InstanceIds": [name]}
    assert refused(lambda: ec2.stop_instances(**mine)) == "IncorrectInstanceState"  # pending
    clock.advance(5)
    machine = _one(ec2, name)
    for before in ("running", "stopping"):
        (change,) = ec2.stop_instances(**mine)["StoppingInstances"]
        assert change["PreviousState"]["Name"] == before
        assert change["CurrentState"] == {"Code": 64, "Name": "stopping"}
    assert refused(lambda: ec2.start_instances(**mine)) == "IncorrectInstanceState"
    clock.advance(7)
    ec2.stop_instances(**mine)
    stopped = _one(ec2, name)
    assert stopped["State"]["Name"] == "stopped"
    assert stopped["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert stopped["BlockDeviceMappings"] == machine["BlockDeviceMappings"]
    assert "PublicIpAddress" not in stopped
    for before in ("stopped", "pending"):
        (change,) = ec2.start_instances(**mine)["StartingInstances"]
        assert change["PreviousState"]["Name"] == before
        assert change["CurrentState"] == {"Code": 0, "Name": "pending"}
    clock.advance(5)
    ec2.start_instances(**mine)
    woken = _one(ec2, name)
    assert woken["State"]["Name"] == "running"
    assert not woken.get("StateReason", {}).get("Code")
    assert woken["LaunchTime"].timestamp() == clock() - 5 > machine["LaunchTime"].timestamp()
    assert woken["PrivateIpAddress"] == machine["PrivateIpAddress"]
    assert woken["PublicIpAddress"] != machine["PublicIpAddress"]
    ec2.terminate_instances(**mine)
    for call in (ec2.stop_instances, ec2.start_instances):
        assert refused(lambda call=call: call(**mine)) == "IncorrectInstanceState"


def test_one_bad_item_and_nothing_is_stopped(cloud: LocalCloud, site: Ec2Site, ec2: Any) -> None:
    well, protected = run(ec2, site), run(ec2, site, DisableApiStop=True)
    spot = run(ec2, site, InstanceMarketOptions={"MarketType": "spot"})
    for bad, code in ((protected, "OperationNotPermitted"), (spot, "UnsupportedOperation")):
        assert refused(lambda bad=bad: ec2.stop_instances(InstanceIds=[well, bad])) == code
    assert {machine.state for machine in cloud.machines} == {"running"}


def test_a_newborn_is_not_visible_for_a_while(
    cloud: LocalCloud, clock: Clock, site: Ec2Site, ec2: Any
) -> None:
    cloud.visibility_lag = 3
    name = run(ec2, site)
    assert ec2.describe_instances()["Reservations"] == []
    assert refused(lambda: state(ec2, name)) == "InvalidInstanceID.NotFound"
    kill = lambda: ec2.terminate_instances(InstanceIds=[name])  # noqa: E731
    assert refused(kill) == "InvalidInstanceID.NotFound"
    clock.advance(3)
    assert state(ec2, name) == "running"


def test_pages_are_cut_by_item(site: Ec2Site, ec2: Any) -> None:
    run(ec2, site, MaxCount=12)
    pages = [
        [i["InstanceId"] for r in page["Reservations"] for i in r["Instances"]]
        for page in ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": "instance-state-name", "Values": ["running"]}],
            PaginationConfig={"PageSize": 5},
        )
    ]
    assert [len(page) for page in pages] == [5, 5, 2]
    assert len({name for page in pages for name in page}) == 12
    volumes = ec2.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 10})
    assert [len(page["Volumes"]) for page in volumes] == [10, 10, 4]
    bad = lambda: ec2.describe_volumes(MaxResults=10, NextToken="?")  # noqa: E731
    assert refused(bad) == "InvalidNextToken"
    assert refused(lambda: ec2.describe_volumes(MaxResults=1001)) == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"UserData": "x" * 16385}, "InvalidParameterValue"),
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "debian"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "m7.enormous"}, "InvalidParameterValue"),
        ({"CreditSpecification": {"CpuCredits": "standard"}}, "InvalidParameterCombination"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_a_bad_launch_is_refused(
    cloud: LocalCloud, site: Ec2Site, ec2: Any, more: dict[str, Any], code: str
) -> None:
    assert refused(lambda: run(ec2, site, **more)) == code
    assert cloud.machines == []


@pytest.mark.parametrize(
    ("kind", "tags", "code"),
    [
        ("instance", {"aws:x": "y"}, "InvalidParameterValue"),
        ("instance", {"k" * 129: "v"}, "InvalidParameterValue"),
        ("instance", {"k": "v" * 257}, "InvalidParameterValue"),
        ("instance", {f"k{n}": "v" for n in range(51)}, "TagLimitExceeded"),
        ("spot-instances-request", {"k": "v"}, "InvalidParameterValue"),  # it is not spot
    ],
)
def test_tags_have_limits(
    cloud: LocalCloud, site: Ec2Site, ec2: Any, kind: str, tags: dict[str, str], code: str
) -> None:
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    spec = [{"ResourceType": kind, "Tags": pairs}]
    assert refused(lambda: run(ec2, site, TagSpecifications=spec)) == code
    assert cloud.machines == []


def test_pools_run_dry_and_quotas_end(cloud: LocalCloud, site: Ec2Site, ec2: Any) -> None:
    cloud.dry.add(("m7i.large", site.subnets[0], "on-demand"))
    assert refused(lambda: run(ec2, site)) == "InsufficientInstanceCapacity"
    run(ec2, site, InstanceMarketOptions={"MarketType": "spot"})
    cloud.quota = {"spot": 1, "on-demand": 0}
    assert refused(lambda: run(ec2, site, InstanceType="c7i.large")) == "VcpuLimitExceeded"
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}}
    assert refused(lambda: run(ec2, site, **spot)) == "MaxSpotInstanceCountExceeded"


def test_what_goes_wrong_happens_or_does_not(cloud: LocalCloud, site: Ec2Site, ec2: Any) -> None:
    for trouble, error, machines in (
        (LOST_REQUEST, ConnectionClosedError, 0),
        (LOST_ANSWER, ConnectionClosedError, 1),
        (AFTER_ALL, ClientError, 2),
        (GARBAGE, ResponseParserError, 2),
    ):
        cloud.faults.fail("RunInstances", trouble)
        with pytest.raises(error):
            run(ec2, site)
        assert len(cloud.machines) == machines
    cloud.faults.deny("DescribeVolumes")
    assert refused(ec2.describe_volumes) == "UnauthorizedOperation"
    cloud.faults.allow("DescribeVolumes")
    assert len(ec2.describe_volumes()["Volumes"]) == 4
    assert cloud.count("RunInstances") == 4


def test_every_answer_tells_the_clouds_own_time(
    cloud: LocalCloud, clock: Clock, site: Ec2Site, ec2: Any
) -> None:
    cloud.skew = 3600
    answer = ec2.describe_instances()
    from email.utils import parsedate_to_datetime

    date = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    assert date.timestamp() == clock() + 3600


def test_accounts_regions_rights_and_quotas(cloud: LocalCloud) -> None:
    assert client(cloud, "sts").get_caller_identity()["Account"] == cloud.account
    other = "AKIAOTHEROTHEROTHER0"
    cloud.accounts[other] = "111122223333"
    assert client(cloud, "sts", key=other).get_caller_identity()["Account"] == "111122223333"
    cloud.disabled.add("me-south-1")
    assert refused(client(cloud, region="me-south-1").describe_instances) == "AuthFailure"
    cloud.faults.deny("TerminateInstances")
    decisions = client(cloud, "iam").simulate_principal_policy(
        PolicySourceArn="arn:aws:iam::111122223333:user/ci",
        ActionNames=["ec2:TerminateInstances", "ec2:RunInstances"],
    )["EvaluationResults"]
    assert [decision["EvalDecision"] for decision in decisions] == ["explicitDeny", "allowed"]
    cloud.quotas["L-1216C47A"] = 5.0
    quotas = client(cloud, "service-quotas")
    quota = quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-1216C47A")["Quota"]
    assert quota["Value"] == 5.0
