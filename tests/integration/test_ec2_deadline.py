"""What EC2 itself does for a VM's end and for the wall: the schedule that is armed after birth, and
the metadata service that is switched off from outside."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

import boto3
import pytest
from vmrunner_localclouds.ec2 import (
    DENIED,
    INTERNAL,
    LOST_ANSWER,
    LOST_REQUEST,
    THROTTLED,
    RequestFate,
)

from tests.support.ec2 import INSTALLATION, REGION, Amazon, fleet, look, make_order, swept
from tests.support.ec2 import virtual_aws as virtual_aws  # the fixture
from vmrunner.errors import BadOrder, ConfigError, CredentialsRefused, ProviderError, Uncertain
from vmrunner.model import Fate, Kind, Level, Order, Power, Ref
from vmrunner.providers import Arms
from vmrunner.providers.ec2.deadline_schedules import AFTER, GONE
from vmrunner.providers.ec2.provider import Ec2Provider

ROLE: Final = "arn:aws:iam::123456789012:role/vmrunner-deadline"
GROUP: Final = f"vmrunner-{INSTALLATION}"


def born(aws: Amazon, **more: Any) -> tuple[Ec2Provider, Order, Ref]:
    provider = aws.provider(scheduler_role=ROLE)
    order = make_order(provider, **more)
    return provider, order, provider.create(order)


def armed(aws: Amazon, **more: Any) -> tuple[Ec2Provider, Order, Ref, Ref]:
    provider, order, ref = born(aws, **more)
    schedule = provider.arm(ref, order.instance, order.deadline)
    assert schedule is not None
    return provider, order, ref, schedule


def schedules(aws: Amazon, group: str = GROUP) -> dict[str, Any]:
    from moto.scheduler.models import scheduler_backends

    groups = scheduler_backends[aws.cloud.account][REGION].schedule_groups
    return groups[group].schedules if group in groups else {}


# --- the schedule --------------------------------------------------------------------------------


def test_the_schedule_alone_ends_vm_and_itself_past_the_deadline(
    aws: Amazon,
) -> None:
    provider, order, ref, _ = armed(aws)
    aws.clock.advance(order.deadline + AFTER - 1 - aws.clock())
    assert [machine.id for machine in aws.cloud.alive] == [ref.id]
    aws.clock.advance(1)
    assert aws.cloud.alive == []
    assert schedules(aws) == {}
    instance = look(provider, order, ref)
    assert instance is not None
    assert instance.power is Power.DEAD


def test_a_schedule_that_is_moved_fires_at_its_new_time(aws: Amazon) -> None:
    """So that a test on a real clock need not wait for it."""
    _, _, _, schedule = armed(aws)
    group, _, name = schedule.id.partition("/")
    client = boto3.client("scheduler", region_name=REGION, endpoint_url=aws.cloud.url)
    current = client.get_schedule(GroupName=group, Name=name)
    kept = {key: current[key] for key in ("FlexibleTimeWindow", "Target")}

    def move(seconds: float) -> None:
        at = datetime.fromtimestamp(aws.cloud.now() + seconds, UTC)
        text = f"at({at:%Y-%m-%dT%H:%M:%S})"
        client.update_schedule(GroupName=group, Name=name, ScheduleExpression=text, **kept)

    move(9000)
    aws.clock.advance(8000)
    assert len(aws.cloud.alive) == 1
    move(10)
    aws.clock.advance(11)
    assert aws.cloud.alive == []


def test_what_is_armed_says_all_that_ends_one_vm_once(aws: Amazon) -> None:
    _, order, ref, schedule = armed(aws)
    ((name, made),) = schedules(aws).items()
    assert schedule.id == f"{GROUP}/{name}"
    assert name == f"{order.instance}.{int(order.deadline)}"
    assert made.action_after_completion == "DELETE"
    assert made.flexible_time_window == {"Mode": "OFF"}
    assert made.target["Arn"] == "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
    assert made.target["RoleArn"] == ROLE
    assert json.loads(made.target["Input"]) == {"InstanceIds": [ref.id]}


def test_arming_again_also_by_another_process_is_the_same(aws: Amazon) -> None:
    provider, order, ref, schedule = armed(aws)
    for again in (provider, aws.provider(scheduler_role=ROLE)):
        assert again.arm(ref, order.instance, order.deadline) == schedule
    assert len(schedules(aws)) == 1


def test_without_a_role_scheduler_is_never_asked(aws: Amazon) -> None:
    provider, _ = fleet(aws, 1)
    assert not isinstance(provider, Arms)
    swept(provider)
    assert not any(request.service == "scheduler" for request in aws.cloud.requests)


def test_the_group_is_made_by_whoever_comes_first(aws: Amazon) -> None:
    provider, order, ref = born(aws)
    assert [page.error for page in provider.sweep() if page.kind is Kind.SCHEDULE] == [None]
    aws.cloud.faults.fail("CreateScheduleGroup", RequestFate("ConflictException", 409, "exists"))
    with pytest.raises(BadOrder):  # the fault lies: it is not there
        provider.arm(ref, order.instance, order.deadline)
    assert provider.arm(ref, order.instance, order.deadline) is not None
    assert aws.cloud.count("CreateScheduleGroup") == 2
    assert provider.arm(ref, order.instance, order.deadline + 1) is not None
    assert aws.cloud.count("CreateScheduleGroup") == 2


@pytest.mark.parametrize("trouble", [LOST_REQUEST, LOST_ANSWER, INTERNAL, THROTTLED, DENIED])
def test_a_failed_arming_is_told_and_repeated_makes_one_schedule(
    aws: Amazon, trouble: RequestFate
) -> None:
    provider, order, ref, _ = armed(aws)
    another = order.deadline + 60
    aws.cloud.faults.fail("CreateSchedule", trouble)
    refused = CredentialsRefused if trouble is DENIED else ProviderError
    with pytest.raises(refused):
        provider.arm(ref, order.instance, another)
    assert provider.arm(ref, order.instance, another) is not None
    assert len(schedules(aws)) == 2


def test_a_sweep_shows_our_schedules_with_their_own_deadline(aws: Amazon) -> None:
    provider, order, _, schedule = armed(aws)
    theirs = aws.provider(scheduler_role=ROLE, installation=INSTALLATION[:-1] + "2")
    other = make_order(theirs, installation=INSTALLATION[:-1] + "2")
    theirs.arm(theirs.create(other), other.instance, other.deadline)
    (shown,) = [r for r in swept(provider) if r.ref.kind is Kind.SCHEDULE]
    assert shown.ref == schedule
    assert shown.instance == order.instance
    assert shown.expires_at == order.deadline + AFTER + GONE


def test_schedules_are_listed_page_by_page(aws: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmrunner.providers.ec2.sweep.PAGE", 5)
    provider, order, ref, _ = armed(aws)
    for number in range(11):
        provider.arm(ref, order.instance, order.deadline + number)
    pages = [page for page in provider.sweep() if page.kind is Kind.SCHEDULE]
    assert [(len(page.resources), page.more) for page in pages] == [
        (5, True),
        (5, True),
        (1, False),
    ]


def test_disarming_takes_the_schedule_and_missing_is_success(aws: Amazon) -> None:
    provider, _, ref, schedule = armed(aws)
    assert provider.delete([schedule])[schedule].fate is Fate.ACCEPTED
    assert schedules(aws) == {}
    assert provider.delete([schedule])[schedule].fate is Fate.MISSING
    aws.cloud.faults.deny("DeleteSchedule")
    assert provider.delete([schedule])[schedule].fate is Fate.FAILED
    assert [machine.id for machine in aws.cloud.alive] == [ref.id]


def test_another_account_is_neither_armed_nor_sealed(aws: Amazon) -> None:
    provider, order, ref, _ = armed(aws)
    far = ref._replace(scope=ref.scope._replace(account="210987654321"))
    with pytest.raises(Uncertain):
        provider.arm(far, order.instance, order.deadline)
    with pytest.raises(Uncertain):
        provider.seal(far)


@pytest.mark.parametrize("role", ["", "vmrunner", "arn:aws:iam::1:role/x", "arn:aws:s3:::bucket"])
def test_a_role_that_is_none_is_refused_beforehand(aws: Amazon, role: str) -> None:
    with pytest.raises(ConfigError, match=r"providers\.aws\.scheduler_role"):
        aws.provider(scheduler_role=role)


def test_doctor_makes_one_and_removes_it(aws: Amazon) -> None:
    def finding() -> tuple[Level, str]:
        found = aws.provider(scheduler_role=ROLE).check()
        (match,) = [finding for finding in found if finding.check == "schedule"]
        return match.level, f"{match.message} | {match.fix}"

    assert finding() == (Level.OK, f"ends a VM {AFTER // 60} min past its deadline | ")
    assert schedules(aws) == {}
    aws.cloud.faults.deny("CreateSchedule")
    level, text = finding()
    assert level is Level.ERROR
    assert "allow CreateSchedule" in text


def test_what_a_guard_would_add_depends_on_the_schedule(aws: Amazon) -> None:
    (armed,) = aws.provider(scheduler_role=ROLE).unguarded()
    assert armed.check == "guard"
    assert "that was not armed" in armed.message
    schedule, bare = aws.provider().unguarded()
    assert (schedule.check, bare.check) == ("schedule", "guard")
    assert "the build became root" in bare.message


# --- the metadata service ------------------------------------------------------------------------


def test_the_metadata_service_may_be_switched_off_twice(aws: Amazon) -> None:
    provider, _, ref = born(aws)
    machine = aws.cloud.by_id[ref.id]
    assert machine.metadata
    provider.seal(ref)
    provider.seal(ref)
    assert not machine.metadata


@pytest.mark.parametrize("trouble", [LOST_REQUEST, INTERNAL, THROTTLED, DENIED])
def test_a_seal_that_is_refused_is_said(aws: Amazon, trouble: RequestFate) -> None:
    provider, _, ref = born(aws)
    aws.cloud.faults.fail("ModifyInstanceMetadataOptions", trouble)
    with pytest.raises(CredentialsRefused if trouble is DENIED else ProviderError):
        provider.seal(ref)
    assert aws.cloud.by_id[ref.id].metadata


def test_doctor_tells_that_it_may_not_be_switched_off(aws: Amazon) -> None:
    aws.cloud.faults.deny("ModifyInstanceMetadataOptions")
    (match,) = [finding for finding in aws.provider().check() if finding.check == "metadata"]
    assert match.level is Level.ERROR
    assert "ModifyInstanceMetadataOptions" in match.fix
