"""`vmrunner guard`: made, looked at, mended and removed at the local endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import boto3
import pytest

from tests.support.command_line import isolated
from tests.support.ec2 import INSTALLATION, REGION, Amazon, credentials
from tests.support.ec2 import aws as aws  # the fixture
from vmrunner.cli import main
from vmrunner.providers.ec2.guard import documents
from vmrunner.providers.port_guard import GUARD_INTERVAL, SILENCE

ALL: Final = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}
_EC2: Final = {"Service": "ec2.amazonaws.com"}
EC2_MAY: Final = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": _EC2}],
}

Run = Callable[..., tuple[int, str, str]]

NAME: Final = f"vmrunner-guard-{INSTALLATION}"
GROUP: Final = f"vmrunner-{INSTALLATION}"
PARTS: Final = (
    "queue", "log", "role", "schedule role", "function", "retries", "group", "schedule",
    "alarm silent", "alarm failing", "deadline role",
)  # fmt: skip
FUNCTION: Final = f"arn:aws:lambda:{REGION}:123456789012:function:{NAME}"
TOPIC: Final = f"arn:aws:sns:{REGION}:123456789012:ops"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws: Amazon) -> Path:
    isolated(tmp_path, monkeypatch)
    file = tmp_path / "vmrunner.toml"
    monkeypatch.setenv("VMRUNNER_CONFIG", str(file))
    file.write_text(
        f'installation = "{INSTALLATION}"\n'
        f'[providers.aws]\nkind = "ec2"\nregion = "{REGION}"\nendpoint_url = "{aws.cloud.url}"\n'
        '[providers.local]\nkind = "qemu"\n'
    )
    return file


@pytest.fixture
def run(config: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str) -> tuple[int, str, str]:
        code = main(("guard", *argv))
        return (code, *capfd.readouterr())

    return run


def parts(run: Run, *argv: str, code: int | None = None) -> dict[str, dict[str, Any]]:
    """What a command says of each part."""
    got, out, err = run(*argv, "-o", "json")
    assert code in (None, got), err
    document = json.loads(out)
    assert document["kind"] == "guard_part"
    return {item["part"]: item for item in document["items"]}


def states(run: Run, code: int | None = None) -> dict[str, str]:
    found = parts(run, "status", "aws", code=code)
    return {name: item["state"] for name, item in found.items()}


def client(aws: Amazon, service: str) -> Any:
    return boto3.client(service, region_name=REGION, endpoint_url=aws.cloud.url)


def changes(aws: Amazon) -> list[str]:
    """All requests that are no mere question."""
    asks = re.compile(r"(Get|List|Describe)[A-Z].*|GET .*")
    return [r.action for r in aws.cloud.requests if not asks.fullmatch(r.action)]


def invoked(aws: Amazon, ago: float, *, errors: int = 0) -> None:
    """One invocation, as Lambda would tell of it."""
    at = datetime.fromtimestamp(aws.cloud.now() - ago, UTC)
    dimensions = [{"Name": "FunctionName", "Value": NAME}]
    data = [
        {"MetricName": name, "Dimensions": dimensions, "Timestamp": at, "Value": value}
        for name, value in (("Invocations", 1), ("Errors", errors))
    ]
    client(aws, "cloudwatch").put_metric_data(Namespace="AWS/Lambda", MetricData=data)


# --- install -------------------------------------------------------------------------------------


def test_alarms_that_nobody_hears_are_said_to_be_so(aws: Amazon, run: Run) -> None:
    made = parts(run, "install", "aws", code=0)
    details = {name: item["detail"] for name, item in made.items() if item["detail"]}
    assert details == dict.fromkeys(PARTS[8:10], "no recipient: --notify ARN")
    heard = parts(run, "install", "aws", "--notify", TOPIC, code=0)
    assert not any(item["detail"] for item in heard.values())


def test_install_makes_every_part_and_a_second_one_changes_nothing(aws: Amazon, run: Run) -> None:
    assert set(states(run, 7).values()) == {"absent", "differs"}
    made = parts(run, "install", "aws", code=0)
    assert tuple(made) == PARTS
    assert {item["done"] for item in made.values()} == {"made"}
    aws.cloud.requests.clear()
    again = parts(run, "install", "aws", code=0)
    assert {(item["state"], item["done"]) for item in again.values()} == {("present", None)}
    assert changes(aws) == []
    code, out, err = run("install", "aws")
    assert (code, err) == (0, "vmrunner: nothing had to be done\n")
    assert NAME in out


def test_what_is_made_is_as_it_should_be(aws: Amazon, run: Run) -> None:
    parts(run, "install", "aws", "--notify", TOPIC, code=0)
    function = client(aws, "lambda").get_function_configuration(FunctionName=NAME)
    assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["arm64"])
    assert function["Handler"] == "guard.handler"
    assert function["Environment"]["Variables"] == {
        "VMRUNNER_INSTALLATION": INSTALLATION,
        "VMRUNNER_REGIONS": "",
        "VMRUNNER_GRACE": "480",
        "VMRUNNER_MAX_TTL": "14400",
        "VMRUNNER_ROLES": "build,pool,image",
    }
    schedule = client(aws, "scheduler").get_schedule(GroupName=GROUP, Name="guard")
    assert schedule["ScheduleExpression"] == "rate(5 minutes)"
    assert schedule["Target"]["Arn"] == function["FunctionArn"]
    assert schedule["Target"]["DeadLetterConfig"]["Arn"].endswith(f":{NAME}")
    iam = client(aws, "iam")
    for role, service in ((NAME, "lambda"), (f"{NAME}-schedule", "scheduler")):
        trust = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]["Statement"]
        assert [statement["Principal"] for statement in trust] == [
            {"Service": f"{service}.amazonaws.com"}
        ]
    alarms = client(aws, "cloudwatch").describe_alarms()["MetricAlarms"]
    found = {alarm["AlarmName"].removeprefix(f"{NAME}-"): alarm for alarm in alarms}
    silent = found["silent"]
    assert silent["TreatMissingData"] == "breaching"
    assert silent["EvaluationPeriods"] * GUARD_INTERVAL == SILENCE == 1200
    assert {alarm["AlarmActions"][0] for alarm in alarms} == {TOPIC}


def test_install_mends_what_differs_and_says_so(aws: Amazon, run: Run, config: Path) -> None:
    parts(run, "install", "aws", code=0)
    client(aws, "lambda").update_function_code(FunctionName=NAME, ZipFile=b"PK\x05\x06" + bytes(18))
    client(aws, "lambda").update_function_configuration(FunctionName=NAME, Timeout=3)
    client(aws, "logs").put_retention_policy(logGroupName=f"/aws/lambda/{NAME}", retentionInDays=1)
    client(aws, "iam").put_role_policy(
        RoleName=NAME, PolicyName="guard", PolicyDocument=json.dumps(ALL)
    )
    client(aws, "iam").update_assume_role_policy(
        RoleName=f"{NAME}-schedule", PolicyDocument=json.dumps(EC2_MAY)
    )
    client(aws, "cloudwatch").delete_alarms(AlarmNames=[f"{NAME}-failing"])
    url = client(aws, "sqs").get_queue_url(QueueName=NAME)["QueueUrl"]
    client(aws, "sqs").set_queue_attributes(
        QueueUrl=url, Attributes={"MessageRetentionPeriod": "60"}
    )
    schedule = client(aws, "scheduler").get_schedule(GroupName=GROUP, Name="guard")
    kept = ("ScheduleExpression", "FlexibleTimeWindow", "Target")
    client(aws, "scheduler").update_schedule(
        GroupName=GROUP, Name="guard", State="DISABLED", **{key: schedule[key] for key in kept}
    )
    config.write_text(config.read_text() + '[limits]\nmax_ttl = "8h"\n')
    found = parts(run, "status", "aws", code=7)
    assert {name: item["detail"] for name, item in found.items() if item["state"] == "differs"} == {
        "queue": "MessageRetentionPeriod",
        "log": "retentionInDays",
        "role": "policy",
        "schedule role": "trust",
        "function": "code, Timeout, Environment",
        "schedule": "State",
    }
    assert found["alarm failing"]["state"] == "absent"
    did = {name: item["done"] for name, item in parts(run, "install", "aws", code=0).items()}
    assert did["function"] == "changed: code, Timeout, Environment"
    assert did["alarm failing"] == "made"
    assert did["retries"] is None
    assert set(states(run, 0).values()) == {"present"}
    function = client(aws, "lambda").get_function_configuration(FunctionName=NAME)
    assert function["Environment"]["Variables"]["VMRUNNER_MAX_TTL"] == "28800"


def test_what_was_wished_once_stays_until_something_else_is_wished(aws: Amazon, run: Run) -> None:
    def variables() -> dict[str, str]:
        function = client(aws, "lambda").get_function_configuration(FunctionName=NAME)
        return {
            key.removeprefix("VMRUNNER_"): value
            for key, value in function["Environment"]["Variables"].items()
        }

    parts(
        run, "install", "aws", "--region", REGION, "--region", "us-east-2", "--grace", "20m",
        "--all-installations", "--notify", TOPIC, code=0,
    )  # fmt: skip
    for _ in range(2):
        assert variables() == {
            "INSTALLATION": "*",
            "REGIONS": f"{REGION},us-east-2",
            "GRACE": "1200",
            "MAX_TTL": "14400",
            "ROLES": "build,pool,image",
        }
        assert set(states(run, 0).values()) == {"present"}
        parts(run, "install", "aws", code=0)
    role = client(aws, "iam").get_role_policy(RoleName=NAME, PolicyName="guard")
    assert '"aws:ResourceTag/vmrunner:installation": "*"' in json.dumps(role["PolicyDocument"])
    parts(run, "install", "aws", "--region", "all", "--grace", "0s", "--this-installation", code=0)
    assert variables() == {
        "INSTALLATION": INSTALLATION, "REGIONS": "", "GRACE": "0", "MAX_TTL": "14400",
        "ROLES": "build,pool,image",
    }  # fmt: skip


def test_a_role_not_known_everywhere_yet_is_waited_for(
    aws: Amazon, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vmrunner_localclouds.ec2 import RequestFate

    waited: list[float] = []
    monkeypatch.setattr("vmrunner.providers.ec2.guard.names.pause", waited.append)
    text = "The role defined for the function cannot be assumed by Lambda."
    refusals = iter([RequestFate("InvalidParameterValueException", 400, text)] * 3)
    aws.cloud.faults.on_request = lambda request: (
        next(refusals, None) if request.action.endswith("/functions") else None
    )
    assert parts(run, "install", "aws", code=0)["function"]["done"] == "made"
    assert len(waited) == 3


def test_an_install_cut_short_says_how_far_and_goes_on(aws: Amazon, run: Run) -> None:
    aws.cloud.faults.deny("CreateScheduleGroup")
    code, out, err = run("install", "aws", "-o", "json")
    assert code == 4
    assert "CreateScheduleGroup" in err
    assert "allow CreateScheduleGroup" in err
    assert [item["part"] for item in json.loads(out)["items"]] == list(PARTS[:6])
    aws.cloud.faults.allow("CreateScheduleGroup")
    done = {name: item["done"] for name, item in parts(run, "install", "aws", code=0).items()}
    assert [name for name, what in done.items() if what] == list(PARTS[6:])


# --- status --------------------------------------------------------------------------------------


def test_status_tells_when_it_last_worked_and_a_silence(aws: Amazon, run: Run) -> None:
    """By Amazon's own count of invocations, beside what the guard says of its last pass."""
    parts(run, "install", "aws", code=0)
    assert states(run, 0)["last success"] == "present"  # it is young
    aws.clock.advance(SILENCE + 1)
    assert states(run, 7)["last success"] == "differs"
    invoked(aws, 60, errors=1)
    assert states(run, 7)["last success"] == "differs"  # it fails
    invoked(aws, SILENCE + 2 * GUARD_INTERVAL)
    found = parts(run, "status", "aws", code=7)["last success"]
    assert "silent for more than 20 minutes" in found["detail"]
    invoked(aws, GUARD_INTERVAL)
    sign = {"vmrunner:last-pass": str(int(aws.cloud.now()))}
    client(aws, "lambda").tag_resource(Resource=FUNCTION, Tags=sign)
    found = parts(run, "status", "aws", code=0)["last success"]
    last = datetime.fromisoformat(found["id"]).timestamp()
    assert 0 <= aws.cloud.now() - last <= GUARD_INTERVAL + 1


def test_status_tells_what_it_could_not_look_at(aws: Amazon, run: Run) -> None:
    parts(run, "install", "aws", code=0)
    aws.cloud.faults.deny("GetRole", "GetScheduleGroup")
    found = states(run, 7)
    assert [name for name, state in found.items() if state == "unknown"] == [
        "role", "schedule role", "group", "deadline role",
    ]  # fmt: skip


def test_doctor_tells_of_the_guard(
    aws: Amazon, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    def finding() -> tuple[str, str]:
        main(("doctor", "aws", "-o", "json"))
        items = json.loads(capfd.readouterr().out)["items"]
        (match,) = [item for item in items if item["check"] == "aws: guard"]
        return match["level"], f"{match['message']} | {match['fix']}"

    level, text = finding()
    assert level == "warning"
    assert "vmrunner guard install aws" in text
    parts(run, "install", "aws", code=0)
    assert finding()[0] == "ok"
    aws.clock.advance(SILENCE + 1)
    level, text = finding()
    assert level == "error"
    assert "no invocation succeeded in the last 20 minutes" in text
    aws.cloud.faults.deny("GetSchedule")
    assert finding()[0] == "warning"


# --- remove --------------------------------------------------------------------------------------


def test_remove_leaves_nothing_and_may_be_done_again(aws: Amazon, run: Run) -> None:
    parts(run, "install", "aws", code=0)
    gone = parts(run, "remove", "aws", code=0)
    assert tuple(gone) == PARTS[::-1]
    assert {item["done"] for item in gone.values() if item["part"] != "retries"} == {"removed"}
    assert set(states(run, 7).values()) == {"absent", "differs"}
    again = parts(run, "remove", "aws", code=0)
    assert {(item["state"], item["done"]) for item in again.values()} == {("absent", None)}
    assert client(aws, "iam").list_roles()["Roles"] == []


def test_remove_leaves_the_deadlines_of_vms(aws: Amazon, run: Run) -> None:
    parts(run, "install", "aws", code=0)
    client(aws, "scheduler").create_schedule(
        GroupName=GROUP,
        Name="vm-1",
        ScheduleExpression="at(2099-01-01T00:00:00)",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances", "RoleArn": "x"},
    )
    found = parts(run, "remove", "aws", code=7)
    assert [name for name, item in found.items() if item["state"] != "absent"] == [
        "deadline role", "group",
    ]  # fmt: skip
    assert "vm-1 among them" in found["group"]["detail"]


def test_one_part_that_cannot_be_removed_stops_no_other(aws: Amazon, run: Run) -> None:
    parts(run, "install", "aws", code=0)
    aws.cloud.faults.deny("DeleteRole")
    found = parts(run, "remove", "aws", code=7)
    assert [name for name, item in found.items() if item["state"] != "absent"] == [
        "deadline role", "schedule role", "role",
    ]  # fmt: skip


def test_what_terraform_made_is_looked_at_and_left_to_it(aws: Amazon, run: Run) -> None:
    parts(run, "install", "aws", code=0)
    lambda_ = client(aws, "lambda")
    lambda_.update_function_code(FunctionName=NAME, ZipFile=b"PK\x05\x06" + bytes(18))
    description = f"vmrunner's guard (Terraform), source sha256 {documents.fingerprint()}"
    lambda_.update_function_configuration(FunctionName=NAME, Description=description)
    assert set(states(run, 0).values()) == {"present"}
    aws.cloud.requests.clear()
    for command in ("install", "remove"):
        code, _, err = run(command, "aws")
        assert (code, "terraform apply" in err) == (5, True)
    assert changes(aws) == []
    lambda_.update_function_configuration(
        FunctionName=NAME, Description=description.replace("a", "b")
    )
    lambda_.update_function_configuration(
        FunctionName=NAME, Description=f"(Terraform), source sha256 {'0' * 64}"
    )
    assert states(run, 7)["function"] == "differs"


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("install", "aws", "--region", "Ireland"), 2, "--region: 'Ireland' (one such as"),
        (("install", "aws", "--grace", "2d"), 2, "--grace: "),
        (("install", "aws", "--grace", "soon"), 2, "--grace"),
        (
            ("install", "aws", "--notify", "me@example.org"),
            2,
            "--notify: 'me@example.org' (the ARN",
        ),
        (("status", "local"), 2, "provider local is of kind qemu, which has none"),
        (("status", "nowhere"), 2, "nowhere"),
        (("policy", "aws", "--for", "everybody"), 2, "everybody"),
    ],
)
def test_bad_input(aws: Amazon, run: Run, argv: tuple[str, ...], code: int, message: str) -> None:
    got, _, err = run(*argv)
    assert (got, message in err) == (code, True), err
    assert err.count("\n") == 1, err
    assert changes(aws) == []


def test_no_credentials(aws: Amazon, run: Run) -> None:
    with credentials(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""):
        for command in ("install", "status", "remove"):
            code, _, err = run(command, "aws")
            assert (code, "no AWS credentials" in err) == (4, True), err
        assert run("policy", "aws", "--for", "guard")[0] == 0
