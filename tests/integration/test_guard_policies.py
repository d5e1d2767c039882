"""The policies name exactly the calls that are made, and what ends something demands our tag."""

from __future__ import annotations

import inspect
import io
import json
import zipfile
from typing import Any, Final

import pytest

from deploy.aws import guard
from tests.support.ec2 import INSTALLATION, REGION, Amazon, amazon, credentials, make_order
from tests.support.expired import ec2, everything, invocation, lambda_function, launch, tagged
from vmrunner.model import TAG, Kind
from vmrunner.providers.ec2 import client as calls
from vmrunner.providers.ec2 import create_request, delete, resources, sweep
from vmrunner.providers.ec2.client import Ec2Api
from vmrunner.providers.ec2.guard import documents, function, health, schedule
from vmrunner.providers.ec2.guard import names as site
from vmrunner.providers.port_guard import Policy

READS: Final = ("Describe", "Get", "List", "Simulate")
#: The prefix in a policy, where it is not the service's name.
PREFIX: Final = {"service-quotas": "servicequotas"}


def document(audience: Policy) -> dict[str, Any]:
    with amazon() as aws:
        found: dict[str, Any] = json.loads(aws.provider().guard().policy(audience))
    return found


def actions(policy: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    for statement in policy["Statement"]:
        named = statement["Action"]
        found |= {named} if isinstance(named, str) else set(named)
    return found


def for_ours(statement: dict[str, Any]) -> bool:
    """Does it hold for what is tagged as ours alone?"""
    conditions = statement.get("Condition", {})
    return any(
        f"aws:ResourceTag/{TAG}{key}" in conditions.get(operator, {})
        for operator in ("StringEquals", "StringLike")
        for key in ("installation", "image-of")
    )


def test_vmrunner_may_do_what_the_driver_does_and_nothing_else() -> None:
    made = [value for value in vars(calls).values() if isinstance(value, Ec2Api)]
    made += [schedule.GET_SCHEDULE, health.METRICS, health.TAGS, function.GET]
    # What a managed policy may have; it does not count blanks.
    assert len(json.dumps(document(Policy.VMRUNNER), separators=(",", ":"))) < 6144
    expected = {f"{PREFIX.get(api.service, api.service)}:{api.action}" for api in made}
    # What tags and roles in a call ask for as well.
    beside = {"ec2:CreateTags", "scheduler:TagResource", "iam:PassRole"}
    beside |= {"iam:CreateServiceLinkedRole"}  # by EC2, for the first spot VM
    assert actions(document(Policy.VMRUNNER)) == expected | beside


@pytest.mark.parametrize("audience", [Policy.VMRUNNER, Policy.GUARD])
def test_what_ends_or_changes_something_demands_our_tag(audience: Policy) -> None:
    creating = {"ec2:RunInstances", "ec2:CreateTags"}
    for statement in document(audience)["Statement"]:
        assert statement["Effect"] == "Allow"
        names = actions({"Statement": [statement]})
        ec2 = {name for name in names if name.startswith("ec2:")}
        changing = {n for n in ec2 - creating if not n.partition(":")[2].startswith(READS)}
        # An address of ours may be with anybody: EC2 asks about both, and one must be ours.
        lost = statement["Resource"] == "arn:aws:ec2:*:*:network-interface/*"
        taken = lost and names == {"ec2:DisassociateAddress"}
        assert not changing or for_ours(statement) or taken, statement["Sid"]
        assert not any("*" in name for name in names)
        if statement["Resource"] == "*":
            assert all(name.partition(":")[2].startswith(READS) for name in names)


def test_a_launch_is_allowed_with_the_drivers_own_tags() -> None:
    (allowed,) = (
        statement
        for statement in document(Policy.VMRUNNER)["Statement"]
        if statement["Sid"] == "LaunchWithTags"
    )
    named = {arn.rpartition(":")[2].removesuffix("/*") for arn in allowed["Resource"]}
    with amazon() as aws:
        provider = aws.provider(spot="only")
        order = make_order(provider)
        request = create_request.request(
            order, provider.options, provider.catalog.image(order.offer.image)
        )
    for spec in request["TagSpecifications"]:
        tags = {tag["Key"]: tag["Value"] for tag in spec["Tags"]}
        wanted = allowed["Condition"]["StringEquals"]
        assert all(
            tags[key.removeprefix("aws:RequestTag/")] == value for key, value in wanted.items()
        )
        assert all(
            key.removeprefix("aws:RequestTag/") in tags for key in allowed["Condition"]["Null"]
        )
    assert {spec["ResourceType"] for spec in request["TagSpecifications"]} == named


def test_the_guard_may_do_what_it_does_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that it asks for where there is something of every kind to end."""
    with amazon() as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.cloud.url)
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        mine = everything(aws, tagged(aws))
        everything(aws, tagged(aws))
        launch(aws, tagged(aws)).protected = True
        holder = launch(aws, {})
        ec2(aws).associate_address(AllocationId=mine["address"], InstanceId=holder.id)
        *_, request = holder.backend.spot_instance_requests.values()
        request.instance = None  # open: there was no capacity
        _fired(aws)
        arn = lambda_function(aws)
        aws.cloud.requests.clear()
        monkeypatch.setenv("VMRUNNER_INSTALLATION", INSTALLATION)
        monkeypatch.setattr(guard.time, "time", aws.cloud.now)
        report = guard.handler({}, invocation(arn))
        assert report["failures"] == []
        requested = {f"{request.service}:{request.action}" for request in aws.cloud.requests}
    allowed = actions(document(Policy.GUARD))
    beside = {"logs:CreateLogStream", "logs:PutLogEvents", "sqs:SendMessage"}  # Lambda's own
    assert allowed == requested | beside


def _fired(aws: Amazon) -> None:
    import boto3

    client = boto3.client("scheduler", region_name=REGION)
    client.create_schedule_group(Name=f"{site.GROUP}{INSTALLATION}")
    client.create_schedule(
        GroupName=f"{site.GROUP}{INSTALLATION}",
        Name="vm-1",
        ScheduleExpression="at(2020-01-01T00:00:00)",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances", "RoleArn": "x"},
    )


def test_the_handler_and_the_driver_use_the_same_words() -> None:
    assert (guard.TAG, guard.GROUP, guard.GRACE) == (TAG, site.GROUP, site.GUARD_GRACE)
    assert guard.SCHEDULE != site.SCHEDULE
    assert not site.SCHEDULE.startswith(guard.SCHEDULE)
    assert (guard.BATCH, guard.PAGE) == (delete.DELETE_BATCH, resources.PAGE)
    assert guard.PROTECTIONS == delete.PROTECTIONS
    assert f'"{delete.PROTECTED}"' in inspect.getsource(guard)
    assert sweep.PAGE == resources.PAGE
    methods = {kind.method for kind in vars(guard).values() if isinstance(kind, guard.Kind)}
    # Keys and groups of an image's builder bill nothing, and who ends images may end any: the guard
    # leaves both to the reaper.
    others = {*resources.BESIDE, Kind.IMAGE}
    its = [reader for reader in resources.READERS if reader.kind not in others]
    assert methods == {reader.api.method for reader in its}


def test_nothing_is_born_without_tags_and_none_changes_later() -> None:
    policy = document(Policy.DENY_UNTAGGED)
    assert {statement["Effect"] for statement in policy["Statement"]} == {"Deny"}
    assert actions(policy) == {"ec2:RunInstances", "ec2:CreateTags", "ec2:DeleteTags"}
    assert len(json.dumps(policy)) < 5120  # what an organisation's policy may have
    required = {
        key.removeprefix("aws:RequestTag/")
        for statement in policy["Statement"]
        for key in statement["Condition"].get("Null", {})
        if key.startswith("aws:RequestTag/")
    }
    assert required == {f"{TAG}installation", f"{TAG}expires-at"}


def test_a_policy_needs_no_account_and_knows_its_partition() -> None:
    with amazon() as aws:
        china = aws.provider(region="cn-north-1").guard()
        with credentials(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""):
            assert "arn:aws-cn:ec2:*:*:instance/*" in china.policy(Policy.VMRUNNER)
            assert "arn:aws-cn:sqs:cn-north-1:*:" in china.policy(Policy.GUARD)
        assert f":{aws.cloud.account}:" in aws.provider().guard().policy(Policy.GUARD)


def test_the_code_is_one_file_packed_the_same_each_time() -> None:
    assert documents.archive() == documents.archive()
    with zipfile.ZipFile(io.BytesIO(documents.archive())) as archive:
        (entry,) = archive.infolist()
        assert (entry.filename, entry.date_time[0]) == ("guard.py", 1980)
        assert archive.read("guard.py") == (documents.root() / "guard.py").read_bytes()


@pytest.mark.parametrize("audience", [Policy.VMRUNNER, Policy.GUARD])
def test_of_an_instances_attributes_only_its_protection_may_be_changed(audience: Policy) -> None:
    (lifting,) = (
        statement
        for statement in document(audience)["Statement"]
        if "ModifyInstanceAttribute" in str(statement)
    )
    assert lifting["Action"] == "ec2:ModifyInstanceAttribute"
    assert lifting["Resource"] == "arn:aws:ec2:*:*:instance/*"
    attributes = lifting["Condition"]["StringEqualsIgnoreCaseIfExists"]["ec2:Attribute"]
    assert tuple(attributes) == delete.PROTECTIONS == guard.PROTECTIONS
