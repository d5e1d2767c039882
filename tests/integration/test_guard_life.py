"""A guard's sign of life: who leaves it, and what is believed without it. A guard that is there and
was deployed without its code is none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import boto3
import pytest
import requests

from deploy.aws import guard as aws_guard
from deploy.gcp.guard import main as gcp_guard
from tests.support.ec2 import INSTALLATION, REGION, Amazon, amazon
from tests.support.expired import invocation, lambda_function, launch, tagged
from tests.support.gce import Google
from tests.support.gce import gce as gce  # the fixture
from tests.support.gce import make_order as gce_order
from vmrunner.model import Level
from vmrunner.providers.common import guard_liveness
from vmrunner.providers.gce import guard as seen_guard
from vmrunner.providers.port_guard import GUARD_INTERVAL, GuardSpec, PartState

ALL: Final = {"build", "pool", "image"}
PERIODS: Final = 3 * GUARD_INTERVAL


@pytest.mark.parametrize(
    ("text", "ago", "alive"),
    [
        ("1000000", 0, True),
        ("1000000", PERIODS, True),
        ("1000000", PERIODS + 1, False),
        ("1000000", -guard_liveness.AHEAD, True),
        ("1000000", -guard_liveness.AHEAD - 1, False),  # a time to come says nothing of a pass
        ("", 0, False),
        ("soon", 0, False),
        ("-1000000", 0, False),
        ("٣", 0, False),
        (None, 0, False),
    ],
)
def test_a_sign_counts_for_three_periods(text: str | None, ago: float, alive: bool) -> None:
    assert guard_liveness.lives(guard_liveness.last_pass(text), 1_000_000.0 + ago) is alive


# --- EC2 -----------------------------------------------------------------------------------------


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Amazon]:
    with amazon() as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.cloud.url)
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        monkeypatch.setenv("VMRUNNER_INSTALLATION", INSTALLATION)
        monkeypatch.setenv("VMRUNNER_REGIONS", REGION)
        monkeypatch.setattr(aws_guard.time, "time", made.cloud.now)
        yield made


def roles(aws: Amazon) -> set[str]:
    return set(aws.provider().guarded_roles() or ())


def test_a_function_without_our_code_guards_nothing(aws: Amazon) -> None:
    """As Terraform or a hand leaves it when only the code did not arrive."""
    assert roles(aws) == set()
    arn = lambda_function(aws)
    assert roles(aws) == set()
    aws_guard.handler({}, invocation(arn))
    assert roles(aws) == ALL
    aws_guard.handler({}, invocation(f"{arn}:$LATEST"))  # so it is named by some who invoke it
    aws.clock.advance(PERIODS - 2)
    assert roles(aws) == ALL
    aws.clock.advance(4)
    assert roles(aws) == set()


def test_a_dry_run_is_no_pass(aws: Amazon) -> None:
    arn = lambda_function(aws)
    aws_guard.handler({"dry_run": True}, invocation(arn))
    assert roles(aws) == set()


def test_a_pass_that_sees_no_vm_leaves_no_sign(aws: Amazon) -> None:
    arn = lambda_function(aws)
    aws.cloud.faults.deny("DescribeInstances")
    with pytest.raises(aws_guard.GuardFailed):
        aws_guard.handler({}, invocation(arn))
    assert roles(aws) == set()


def test_a_pass_that_may_end_no_vm_leaves_no_sign(aws: Amazon) -> None:
    """It lists them, and that is all: its role was changed, or somebody denies it."""
    arn = lambda_function(aws)
    dying = launch(aws, tagged(aws))
    aws.cloud.faults.deny("TerminateInstances")
    with pytest.raises(aws_guard.GuardFailed):
        aws_guard.handler({}, invocation(arn))
    assert (roles(aws), dying.state) == (set(), "running")
    aws.cloud.faults.denied.clear()
    aws_guard.handler({}, invocation(arn))
    assert roles(aws) == ALL


def test_one_disk_that_stays_makes_a_guard_no_less_alive(aws: Amazon) -> None:
    arn = lambda_function(aws)
    aws.cloud.faults.deny("DescribeVolumes")
    with pytest.raises(aws_guard.GuardFailed):
        aws_guard.handler({}, invocation(arn))
    assert roles(aws) == ALL


def test_a_guard_of_other_regions_guards_nothing_here(
    aws: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = lambda_function(aws)
    monkeypatch.setenv("VMRUNNER_REGIONS", "us-east-2")
    aws_guard.handler({}, invocation(arn))
    assert roles(aws) == set()


def test_age_goes_by_the_clouds_clock_not_ours(
    aws: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = lambda_function(aws)
    aws_guard.handler({}, invocation(arn))
    monkeypatch.setattr("vmrunner.providers.common.clock.time.time", lambda: aws.cloud.now() - 7200)
    assert roles(aws) == ALL


def test_status_and_doctor_tell_a_guard_that_never_passed(aws: Amazon) -> None:
    guard = aws.provider().guard()
    list(guard.install(GuardSpec(max_ttl=14_400)))
    last = {part.name: part for part in guard.status(GuardSpec(max_ttl=14_400)).parts}["last pass"]
    assert (last.state, last.detail) == (PartState.PRESENT, "it was just installed")
    aws.clock.advance(1300)
    _invoked(aws)  # AWS says so of a function with any code
    last = {part.name: part for part in guard.status(GuardSpec(max_ttl=14_400)).parts}["last pass"]
    assert (last.state, last.id) == (PartState.DIFFERS, "none")
    assert "never passed, or is older" in last.detail
    (guard_finding,) = [finding for finding in aws.provider().check() if finding.check == "guard"]
    assert guard_finding.level is Level.ERROR
    assert "never passed" in guard_finding.message
    assert "vmrunner guard install" in guard_finding.fix
    assert [finding.check for finding in aws.provider().unguarded()] == ["schedule", "guard"]
    arn = boto3.client("lambda").get_function_configuration(
        FunctionName=f"vmrunner-guard-{INSTALLATION}"
    )["FunctionArn"]
    aws_guard.handler({}, invocation(arn))
    status = guard.status(GuardSpec(max_ttl=14_400))
    assert status.well
    (guard_finding,) = [finding for finding in aws.provider().check() if finding.check == "guard"]
    assert (guard_finding.level, "its last pass was" in guard_finding.message) == (Level.OK, True)


def _invoked(aws: Amazon) -> None:
    at = datetime.fromtimestamp(aws.cloud.now() - 60, UTC)
    name = {"Name": "FunctionName", "Value": f"vmrunner-guard-{INSTALLATION}"}
    boto3.client("cloudwatch").put_metric_data(
        Namespace="AWS/Lambda",
        MetricData=[
            {"MetricName": metric, "Dimensions": [name], "Timestamp": at, "Value": value}
            for metric, value in (("Invocations", 1), ("Errors", 0))
        ],
    )


# --- Compute Engine ------------------------------------------------------------------------------


def installed(gce: Google, **more: Any) -> str:
    """What Terraform leaves; returns the address of the function's account."""
    name = seen_guard.name_of(INSTALLATION)
    at = datetime.fromtimestamp(gce.cloud.now() - 60, UTC).isoformat().replace("+00:00", "Z")
    job = f"projects/{gce.project}/locations/europe-west1/jobs/{name}"
    description = "Invokes vmrunner's guard. Roles: build, pool, image."
    gce.cloud.jobs[job] = {
        "name": job, "state": "ENABLED", "description": description, "lastAttemptTime": at,
        "status": {},
    } | more  # fmt: skip
    email = f"{name}@{gce.project}.iam.gserviceaccount.com"
    gce.cloud.accounts[email] = {"email": email}
    return email


def gcp_pass(gce: Google, email: str, *, dry_run: bool = False) -> None:
    """What the handler does, at the local endpoint."""
    settings = gcp_guard.Settings(installation=INSTALLATION, project=gce.project, account=email)
    gcp_guard.invoked(settings, requests.Session(), gce.cloud.now(), url=gce.cloud.url,
                      dry_run=dry_run)  # fmt: skip


def shown_guard(gce: Google) -> tuple[set[str], Level, str]:
    provider = gce.provider(guard="europe-west1")
    (finding,) = [finding for finding in provider.check() if finding.check == "guard"]
    return set(provider.guarded_roles() or ()), finding.level, finding.message


def test_a_job_whose_function_never_passed_guards_nothing(gce: Google) -> None:
    email = installed(gce)
    found, level, text = shown_guard(gce)
    assert (found, level) == (set(), Level.ERROR)
    assert "never passed, or is older" in text
    gcp_pass(gce, email)
    found, level, text = shown_guard(gce)
    assert (found, level) == (ALL, Level.OK)
    gce.clock.advance(PERIODS + 1)
    assert shown_guard(gce)[0] == set()


def test_no_sign_where_vms_could_not_be_listed(gce: Google) -> None:
    email = installed(gce)
    gcp_pass(gce, email, dry_run=True)
    gce.cloud.faults.deny("instances.aggregatedList", "instances.list")
    with pytest.raises(gcp_guard.GuardFailed):
        gcp_pass(gce, email)
    assert shown_guard(gce)[0] == set()


def test_no_sign_where_no_vm_may_be_ended(gce: Google) -> None:
    email = installed(gce)
    provider = gce.provider()
    provider.create(gce_order(provider))
    gce.cloud.machines[-1].shown["labels"]["vmrunner-expires-at"] = "1"
    gce.cloud.faults.deny("instances.delete")
    with pytest.raises(gcp_guard.GuardFailed):
        gcp_pass(gce, email)
    assert shown_guard(gce)[0] == set()
    gce.cloud.faults.denied.clear()
    gcp_pass(gce, email)
    assert shown_guard(gce)[0] == ALL


def test_too_many_calls_are_no_missing_right() -> None:
    """Google answers both with 403."""
    refusals = [gcp_guard.Refused(403, reason, "") for reason in ("rateLimitExceeded", "forbidden")]
    assert [refusal.denied for refusal in refusals] == [False, True]


def test_doctor_names_the_right_that_it_lacks(gce: Google) -> None:
    installed(gce)
    gce.cloud.faults.deny(f"GET /v1/projects/-/serviceAccounts/{next(iter(gce.cloud.accounts))}")
    provider = gce.provider(guard="europe-west1")
    (finding,) = [finding for finding in provider.check() if finding.check == "guard"]
    assert (finding.level, "iam.serviceAccounts.get" in finding.fix) == (Level.WARNING, True)
