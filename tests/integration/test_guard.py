"""The guard's handler at the local endpoint: what it ends, what it leaves, what it tells."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import boto3
import pytest
from vmrunner_localclouds.ec2 import INTERNAL, THROTTLED, Ec2Machine, RequestFate

from deploy.aws import guard
from tests.support.ec2 import INSTALLATION, REGION, Amazon, amazon, make_order
from tests.support.expired import FOREIGN, GRACE, ec2, everything, launch, left, provider_of, tagged
from vmrunner.model import Spec

FAR: Final = "us-east-2"
MAX_TTL: Final = 14_400.0


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Amazon]:
    with amazon() as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.cloud.url)
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        yield made


def settings(**more: Any) -> guard.Settings:
    values = {
        "installation": INSTALLATION,
        "regions": (REGION,),
        "grace": GRACE,
        "max_ttl": MAX_TTL,
    }
    return guard.Settings(**{**values, **more})


def sweep(aws: Amazon, **more: Any) -> dict[str, Any]:
    return guard.guard(settings(**more), aws.cloud.now())


def names(report: Mapping[str, Any], what: str = "ended") -> set[str]:
    return {line["id"] for line in report[what]}


# --- what ends, and what lives -------------------------------------------------------------------


def test_of_everything_only_what_is_ours_and_expired_ends(aws: Amazon) -> None:
    """Every mix of whose, which role, what deadline, how old, protected or not."""
    whose = (INSTALLATION, FOREIGN, "", INSTALLATION + "0", None)
    roles = ("build", "image", "guard", "pool", "BUILD", None)
    deadlines: tuple[float | str | None, ...] = (
        GRACE + 1, GRACE - 1, 0.0, -1.0, "", "soon", "-5", "1e3", "٣", "9" * 13, "9" * 12, None,
    )  # fmt: skip
    provider = provider_of(aws)
    # Of those that are not ours one in three, so that it stays quick.
    mixes = [
        mix
        for number, mix in enumerate(itertools.product(whose, roles, deadlines))
        if mix[0] == INSTALLATION or number % 3 == 0
    ]
    made = {"old": [provider.create(make_order(provider)).id for _ in mixes]}
    aws.clock.advance(MAX_TTL + GRACE + 1)
    made["young"] = [provider.create(make_order(provider)).id for _ in mixes]
    expected: set[str] = set()
    unreadable: set[str] = set()
    for age, ids in made.items():
        for number, (name, (installation, role, expiry)) in enumerate(zip(ids, mixes, strict=True)):
            machine = aws.cloud.by_id[name]
            machine.protected = number % 4 == 0
            expires = str(int(aws.cloud.now() - expiry)) if isinstance(expiry, float) else expiry
            tags = {"installation": installation, "role": role, "expires-at": expires}
            machine.backend.tags[name] = {
                f"vmrunner:{key}": value for key, value in tags.items() if value is not None
            }
            if installation == INSTALLATION and role in ("build", "pool", "image"):
                plain = isinstance(expiry, float) or expiry == "9" * 12
                unreadable |= set() if plain else {name}
                past = expiry == GRACE + 1 if plain else age == "old"
                expected |= {name} if past else set()
    report = sweep(aws)
    dead = {machine.id for machine in aws.cloud.machines if not machine.alive}
    assert dead == expected
    assert report["failures"] == []
    assert {line["id"] for line in report["ended"] if line["kind"] == "instance"} == expected
    assert {x["id"] for x in report["unreadable"] if x["kind"] == "instance"} == unreadable
    changed = [r for r in aws.cloud.requests if r.action == "TerminateInstances"]
    assert {name for r in changed for name in r.all("InstanceId")} == expected  # none else is asked


def test_what_the_driver_launched_ends_without_ledger_or_vmrunner(aws: Amazon) -> None:
    """With the very tags of a launch, on demand and spot; and not a second too early."""
    orders, furniture = [], left(aws)
    for spot in (None, "only"):
        provider = provider_of(aws, REGION, spot)
        orders.append(order := make_order(provider))
        provider.create(order)
        provider.create(make_order(provider, installation=FOREIGN))
    here = left(aws) - furniture
    first, *_, last = sorted(int(order.deadline) for order in orders)  # as a tag says it
    aws.clock.advance(first + GRACE - aws.cloud.now())
    assert sweep(aws, max_ttl=None)["ended"] == []
    assert left(aws) - furniture == here
    aws.clock.advance(last - first + 1)
    report = sweep(aws, max_ttl=None)
    assert {line["instance"] for line in report["ended"]} == {order.instance for order in orders}
    assert report["failures"] == report["unreadable"] == []
    assert {machine.tags["vmrunner:installation"] for machine in aws.cloud.alive} == {FOREIGN}
    assert 2 * len(left(aws) - furniture) == len(here)
    own = [r for r in aws.cloud.requests if r.action == "TerminateInstances"]
    assert len(own) == 1  # both in one call


def test_it_says_what_it_ended_and_ends_it_once(aws: Amazon) -> None:
    machine = launch(aws, tagged(aws, 700, instance="vm-x"))
    report = sweep(aws)
    assert report["ended"] == [
        {"region": REGION, "kind": "instance", "id": machine.id, "instance": "vm-x", "late": 700}
    ]
    assert json.loads(json.dumps(report))["ended"] == report["ended"]
    assert sweep(aws)["ended"] == []


def test_it_sweeps_all_enabled_regions_or_those_named(aws: Amazon) -> None:
    here, far_vm = launch(aws, tagged(aws)), launch(aws, tagged(aws), FAR)
    assert names(sweep(aws, regions=(REGION,))) == {here.id}
    assert far_vm.alive
    report = sweep(aws, regions=())
    assert {line["region"] for line in report["ended"]} == {FAR}
    assert {REGION, FAR} < set(report["regions"])
    assert not far_vm.alive


def test_any_installation_where_that_is_wished(aws: Amazon) -> None:
    foreign = launch(aws, tagged(aws, installation=FOREIGN))
    untagged = launch(aws, {})
    empty = launch(aws, tagged(aws, installation=""))
    young = launch(aws, tagged(aws, 0, installation=FOREIGN))
    assert sweep(aws)["ended"] == []
    assert foreign.id in names(sweep(aws, installation="*"))
    assert [m.alive for m in (foreign, untagged, empty, young)] == [False, True, True, True]


@pytest.mark.parametrize(
    ("tags", "dies"),
    [
        ({"expires_at": "in time", "max_ttl": "7200"}, 7200),
        ({"expires_at": "in time", "max_ttl": "an hour"}, 3600),
        ({"expires_at": "in time"}, 3600),
        ({"late": -9000, "max_ttl": "100"}, 9000),
    ],
)
def test_a_lowered_limit_changes_no_promised_deadline(
    aws: Amazon, tags: dict[str, Any], dies: int
) -> None:
    machine = launch(aws, tagged(aws, **tags))
    aws.clock.advance(dies + GRACE)
    assert sweep(aws, max_ttl=3600.0)["ended"] == []
    aws.clock.advance(1)
    assert machine.id in names(sweep(aws, max_ttl=3600.0))


def test_without_max_ttl_an_unreadable_tag_is_reported_for_ever(aws: Amazon) -> None:
    machine = launch(aws, tagged(aws, expires_at="tomorrow"))
    aws.clock.advance(10 * MAX_TTL)
    report = sweep(aws, max_ttl=None)
    assert machine.alive
    assert machine.id in names(report, "unreadable")


# --- what else is left ---------------------------------------------------------------------------


def test_every_kind_that_bills_ends_when_it_is_past(aws: Amazon) -> None:
    theirs = everything(aws, tagged(aws, installation=FOREIGN))
    inside = everything(aws, tagged(aws, 0))
    mine = everything(aws, tagged(aws))
    report = sweep(aws)
    assert report["failures"] == []
    # The spot request closed with its VM.
    assert {line["kind"] for line in report["ended"]} >= set(mine) - {"spot_request"}
    assert not left(aws) & set(mine.values())
    assert set(theirs.values()) | set(inside.values()) <= left(aws)
    requests = [r.params for r in aws.cloud.requests if r.action == "DescribeSnapshots"]
    assert {params["Owner.1"] for params in requests} == {"self"}  # and not all the world's


def test_a_disk_or_interface_in_use_is_left_alone(aws: Amazon) -> None:
    young = launch(aws, tagged(aws, 0))
    parts = [*young.backend.volumes, *young.backend.enis]
    for part in parts:
        young.backend.tags[part] = tagged(aws)
    report = sweep(aws)
    assert report["ended"] == report["held"] == report["failures"] == []
    assert set(parts) <= left(aws)


def test_an_address_is_taken_away_from_whoever_holds_it(aws: Amazon) -> None:
    holder = launch(aws, {})
    client = ec2(aws)
    address = client.allocate_address(Domain="vpc")["AllocationId"]
    client.associate_address(AllocationId=address, InstanceId=holder.id)
    holder.backend.tags[address] = tagged(aws)
    assert names(sweep(aws)) == {address}
    assert address not in left(aws)
    assert holder.alive


def test_schedules_of_this_installation_that_fired_long_ago(aws: Amazon) -> None:
    client = boto3.client("scheduler", region_name=REGION)

    def add(group: str, name: str, expression: str) -> None:
        client.create_schedule(
            GroupName=group,
            Name=name,
            ScheduleExpression=expression,
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances", "RoleArn": "x"},
        )

    def at(late: float) -> str:
        return f"at({datetime.fromtimestamp(aws.cloud.now() - late, UTC):%Y-%m-%dT%H:%M:%S})"

    own, foreign = f"vmrunner-{INSTALLATION}", f"vmrunner-{FOREIGN}"
    for group in (own, foreign, f"{own}-not"):
        client.create_schedule_group(Name=group)
        add(group, "vm-past", at(GRACE + 1))
        add(group, "vm-due", at(0))
        add(group, "guard", "rate(5 minutes)")
    add(own, "vm-odd", "cron(0 12 * * ? *)")
    for number in range(60):  # more than a page
        add(own, f"vm-past-{number:02}", at(GRACE + 1))
    report = sweep(aws)
    assert report["failures"] == []
    assert names(report) == {"vm-past", *(f"vm-past-{n:02}" for n in range(60))}
    assert names(report, "unreadable") == {"vm-odd"}

    def schedules_in(group: str) -> set[str]:
        found = client.list_schedules(GroupName=group)["Schedules"]
        return {schedule["Name"] for schedule in found}

    assert schedules_in(own) == {"vm-due", "guard", "vm-odd"}
    assert schedules_in(foreign) == schedules_in(f"{own}-not") == {"vm-past", "vm-due", "guard"}
    sweep(aws, installation="*")
    assert schedules_in(foreign) == {"vm-due", "guard"}


# --- what goes wrong -----------------------------------------------------------------------------

ACTIONS: Final = {
    "DescribeInstances": "instance",
    "TerminateInstances": "instance",
    "DescribeVolumes": "disk",
    "DeleteVolume": "disk",
    "DescribeNetworkInterfaces": "interface",
    "DeleteNetworkInterface": "interface",
    "DescribeAddresses": "address",
    "ReleaseAddress": "address",
    "DescribeSnapshots": "snapshot",
    "DeleteSnapshot": "snapshot",
    "DescribeSpotInstanceRequests": "spot_request",
    "ListScheduleGroups": "schedule",
}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_denied_kind_is_raised_and_holds_no_other_back(
    aws: Amazon, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    environment(aws, monkeypatch)
    mine = everything(aws, tagged(aws))
    aws.cloud.faults.deny(action)
    with pytest.raises(guard.GuardFailed, match=f"1 failures.*{action}"):
        guard.handler({})
    kind = ACTIONS[action]
    denied = {mine[kind]} if kind in mine and kind != "spot_request" else set()
    assert left(aws) & set(mine.values()) - {mine["spot_request"]} == denied
    aws.cloud.faults.allow(action)
    guard.handler({})
    assert not left(aws) & set(mine.values())


def environment(aws: Amazon, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    """The function's; it goes by its own clock, so the cloud's is set to that."""
    aws.cloud.skew = time.time() - aws.clock()
    values = {"INSTALLATION": INSTALLATION, "REGIONS": REGION, "MAX_TTL": "14400", **more}
    for name, value in values.items():
        monkeypatch.setenv(f"VMRUNNER_{name}", value)


def test_one_that_may_not_be_ended_saves_no_other(aws: Amazon) -> None:
    machines = [launch(aws, tagged(aws)) for _ in range(9)]
    stubborn = machines[4]
    stubborn.protected = True
    machines[7].protected = True
    machines[2].stop_protected = True
    aws.cloud.faults.on_request = lambda request: (
        RequestFate("UnauthorizedOperation", 403, "You are not authorized")
        if request.action == "ModifyInstanceAttribute"
        and request.params["InstanceId"] == stubborn.id
        else None
    )
    report = sweep(aws)
    assert [machine for machine in machines if machine.alive] == [stubborn]
    assert names(report, "failures") == {stubborn.id}


def test_whatever_is_wrong_with_one_saves_no_other(aws: Amazon) -> None:
    machines = [launch(aws, tagged(aws)) for _ in range(5)]
    stubborn = machines[1]
    aws.cloud.faults.on_request = lambda request: (
        RequestFate("IncorrectInstanceState", 400, "it cannot be terminated")
        if request.action == "TerminateInstances" and stubborn.id in request.all("InstanceId")
        else None
    )
    assert names(sweep(aws), "failures") == {stubborn.id}
    assert [machine for machine in machines if machine.alive] == [stubborn]


def test_every_page_is_read_and_a_failed_one_hides_none(
    aws: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "PAGE", 5)
    first = [launch(aws, tagged(aws)) for _ in range(12)]
    assert len(names(sweep(aws))) >= 12
    assert not any(machine.alive for machine in first)
    second = [launch(aws, tagged(aws)) for _ in range(8)]
    aws.cloud.faults.on_request = lambda request: (
        RequestFate("InvalidNextToken", 400, "no")
        if request.action == "DescribeInstances" and "NextToken" in request.params
        else None
    )
    report = sweep(aws)
    assert sum(machine.alive for machine in second) == 3
    assert [line["kind"] for line in report["failures"]] == ["instance"]
    aws.cloud.faults.on_request = None
    sweep(aws)
    assert not any(machine.alive for machine in second)


def test_a_disrupted_zone_saves_no_vm_of_another(
    aws: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)  # between its retries

    def launched_in(number: int) -> Ec2Machine:
        provider = provider_of(aws)
        place = aws.site.subnets[number]
        offer = next(offer for offer in provider.offers(Spec()) if offer.place == place)
        machine = aws.cloud.by_id[provider.create(make_order(provider, offer=offer)).id]
        for name in (machine.id, *(nic.id for nic in machine.moto.nics.values())):
            machine.backend.tags[name] = tagged(aws)
        return machine

    machines = [launched_in(number) for number in (0, 1, 1, 2)]
    aws.cloud.outages.add(f"{REGION}a")
    report = sweep(aws)
    assert [machine.alive for machine in machines] == [True, False, False, False]
    assert [line.get("zone") for line in report["failures"]] == [None, f"{REGION}a"]
    aws.cloud.outages.clear()
    assert names(sweep(aws)) >= {machines[0].id}


def test_a_throttle_and_a_server_error_are_tried_again(aws: Amazon) -> None:
    machine = launch(aws, tagged(aws))
    aws.cloud.faults.fail("DescribeInstances", INTERNAL)
    aws.cloud.faults.fail("TerminateInstances", THROTTLED)
    assert sweep(aws)["failures"] == []
    assert not machine.alive


def test_a_region_that_answers_nobody_holds_back_no_other(aws: Amazon) -> None:
    machine = launch(aws, tagged(aws))
    aws.cloud.disabled.add(FAR)
    report = sweep(aws, regions=(FAR, REGION))
    assert not machine.alive
    assert {line["region"] for line in report["failures"]} == {FAR}


def test_a_dry_run_only_tells(aws: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(aws, monkeypatch)
    mine = everything(aws, tagged(aws))
    report = guard.handler({"dry_run": True})
    assert names(report) == set(mine.values())
    assert set(mine.values()) <= left(aws)
    assert not {r.action for r in aws.cloud.requests if r.action.startswith(("Del", "Rel", "Term"))}


@pytest.mark.parametrize(
    ("name", "value"),
    [("INSTALLATION", ""), ("GRACE", "10m"), ("MAX_TTL", "-1"), ("GRACE", "9" * 10)],
)
def test_a_value_that_cannot_be_ends_nothing(
    aws: Amazon, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment(aws, monkeypatch, **{name: value})
    with pytest.raises(ValueError, match=f"VMRUNNER_{name}: "):
        guard.handler({})
    assert aws.cloud.requests == []
