"""The Terraform module and `vmrunner guard install` make the same guard: names, numbers, policies,
code. Read from its source; nothing is planned or applied."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import hcl2
import pytest

from tests.support.ec2 import INSTALLATION, REGION
from vmrunner.config.settings import LimitSettings
from vmrunner.providers.ec2.guard import documents
from vmrunner.providers.ec2.guard.account import elements
from vmrunner.providers.ec2.guard.function import LambdaFunction
from vmrunner.providers.ec2.guard.names import GUARD_GRACE, FunctionSpec, GuardSite, Names
from vmrunner.providers.ec2.guard.part import GuardElement

MODULE: Final = Path(__file__).parents[2] / "deploy/aws/terraform"
NAMES: Final = Names(
    partition="aws", account="123456789012", region=REGION, installation=INSTALLATION
)
PLAN: Final = FunctionSpec(max_ttl=14_400)
SITE: Final = GuardSite(None, NAMES, PLAN)  # type: ignore[arg-type]

#: What Terraform's expressions come to. An ARN of what it made is as the names say.
VALUES: Final[dict[str, Any]] = {
    "local.name": NAMES.name,
    "local.group": NAMES.group,
    "local.ending": NAMES.deadline_role,
    "local.whose": INSTALLATION,
    "aws_iam_role.guard.arn": NAMES.role_arn(NAMES.name),
    "aws_iam_role.schedule.arn": NAMES.role_arn(NAMES.schedule_role),
    "aws_lambda_function.guard.arn": NAMES.function_arn,
    "aws_lambda_function.guard.function_name": NAMES.name,
    "aws_sqs_queue.dead_letters.arn": NAMES.queue_arn,
    "aws_scheduler_schedule_group.installation.name": NAMES.group,
    'join(",", var.regions)': ",".join(PLAN.regions),
    "tostring(var.grace_seconds)": str(PLAN.grace),
    "tostring(var.max_ttl_seconds)": str(PLAN.max_ttl),
    "var.alarm_actions": [],
    "filesha256(local.source)": documents.fingerprint(),
}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = plain(hcl2.loads((MODULE / name).read_text()))
    return found


def plain(value: Any) -> Any:
    """Without the marks and quotes of the parser's."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, str):
        return value
    bare = value[1:-1] if value.startswith('"') else value
    whole = re.fullmatch(r"\$\{([^{}]+)\}", bare)
    if whole and whole[1] in VALUES:
        return VALUES[whole[1]]
    return re.sub(
        r"\$\{([^{}]+)\}", lambda found: str(VALUES.get(found[1], found[0])), bare
    ).replace('\\"', '"')


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    """Each resource by its address."""
    return {
        f"{kind}.{name}": body
        for block in read("main.tf")["resource"]
        for kind, named in block.items()
        for name, body in named.items()
    }


@pytest.fixture(scope="module")
def parts() -> dict[str, GuardElement]:
    return {element.name: element for element in elements(SITE)}


def test_each_part_is_a_resource_and_each_resource_a_part(made: dict[str, Any]) -> None:
    assert sorted(made) == [
        "aws_cloudwatch_log_group.guard",
        "aws_cloudwatch_metric_alarm.failing",
        "aws_cloudwatch_metric_alarm.silent",
        "aws_iam_role.deadline",
        "aws_iam_role.guard",
        "aws_iam_role.schedule",
        "aws_iam_role_policy.deadline",
        "aws_iam_role_policy.guard",
        "aws_iam_role_policy.schedule",
        "aws_lambda_function.guard",
        "aws_lambda_function_event_invoke_config.guard",
        "aws_scheduler_schedule.guard",
        "aws_scheduler_schedule_group.installation",
        "aws_sqs_queue.dead_letters",
    ]
    assert len(list(elements(SITE))) == len(made) - 3  # a role and its policy are one part


def test_queue_log_and_group(made: dict[str, Any], parts: dict[str, GuardElement]) -> None:
    queue = made["aws_sqs_queue.dead_letters"]
    assert queue["name"] == parts["queue"].id
    assert parts["queue"].wanted() == {
        "MessageRetentionPeriod": str(queue["message_retention_seconds"]),
        "SqsManagedSseEnabled": str(queue["sqs_managed_sse_enabled"]).lower(),
    }
    log = made["aws_cloudwatch_log_group.guard"]
    assert log["name"] == parts["log"].id
    assert parts["log"].wanted() == {"retentionInDays": log["retention_in_days"]}
    assert made["aws_scheduler_schedule_group.installation"]["name"] == parts["group"].id


def test_roles_have_the_policies_of_the_files(made: dict[str, Any]) -> None:
    for name, role, trust in (
        ("guard", NAMES.name, "guard"),
        ("schedule", NAMES.schedule_role, "schedule"),
        ("deadline", NAMES.deadline_role, "schedule"),
    ):
        body, policy = made[f"aws_iam_role.{name}"], made[f"aws_iam_role_policy.{name}"]
        assert (body["name"], policy["name"]) == (role, name)
        assert re.fullmatch(r"[\w+=,.@-]+", policy["name"])
        texts = {f"{trust}-trust": body["assume_role_policy"], name: policy["policy"]}
        for file, text in texts.items():
            path = f"${{path.module}}/../policies/{file}.json"
            assert text == f'${{templatefile("{path}", local.values)}}'
            assert (documents.root() / f"policies/{file}.json").is_file()
    # What the files leave open is what both fill in.
    (values,) = (block["values"] for block in read("main.tf")["locals"])
    holes = {
        hole
        for file in (documents.root() / "policies").glob("*.json")
        for hole in re.findall(r"\$\{(.*?)\}", file.read_text())
    }
    assert holes == set(values)
    for file in (documents.root() / "policies").glob("*.json"):
        SITE.policy(file.stem)


def test_the_function(made: dict[str, Any], parts: dict[str, GuardElement]) -> None:
    body = made["aws_lambda_function.guard"]
    wanted = parts["function"].wanted()
    assert body["function_name"] == parts["function"].id
    ((variables,),) = [[block["variables"]] for block in body["environment"]]
    assert {
        "Runtime": body["runtime"],
        "Architectures": body["architectures"],
        "Handler": body["handler"],
        "Role": body["role"],
        "MemorySize": body["memory_size"],
        "Timeout": body["timeout"],
        "Environment": variables,
    } == {key: value for key, value in wanted.items() if key != "code"}
    marked = LambdaFunction._TERRAFORM.search(body["description"])
    assert marked is not None
    assert marked[1] == documents.fingerprint()
    (archive,) = (
        block["archive_file"]["guard"]
        for block in read("main.tf")["data"]
        if "archive_file" in block
    )
    assert archive["source_file"] == "${local.source}"
    (source,) = (block["source"] for block in read("main.tf")["locals"])
    assert source == "${path.module}/../guard.py"
    (retries,) = [made["aws_lambda_function_event_invoke_config.guard"]]
    assert parts["retries"].wanted() == {
        "MaximumRetryAttempts": retries["maximum_retry_attempts"],
        "MaximumEventAgeInSeconds": retries["maximum_event_age_in_seconds"],
        "OnFailure": {
            "Destination": retries["destination_config"][0]["on_failure"][0]["destination"]
        },
    }


def test_the_schedule(made: dict[str, Any], parts: dict[str, GuardElement]) -> None:
    body = made["aws_scheduler_schedule.guard"]
    (target,) = body["target"]
    (retry,) = target["retry_policy"]
    assert f"{body['group_name']}/{body['name']}" == parts["schedule"].id
    assert parts["schedule"].wanted() == {
        "ScheduleExpression": body["schedule_expression"],
        "FlexibleTimeWindow": {"Mode": body["flexible_time_window"][0]["mode"]},
        "State": body["state"],
        "Target": {
            "Arn": target["arn"],
            "RoleArn": target["role_arn"],
            "Input": target["input"],
            "DeadLetterConfig": {"Arn": target["dead_letter_config"][0]["arn"]},
            "RetryPolicy": {
                "MaximumEventAgeInSeconds": retry["maximum_event_age_in_seconds"],
                "MaximumRetryAttempts": retry["maximum_retry_attempts"],
            },
        },
    }


def _metric(body: dict[str, Any]) -> dict[str, Any]:
    dimensions = [{"Name": key, "Value": value} for key, value in body["dimensions"].items()]
    return {
        "Namespace": body["namespace"], "MetricName": body["metric_name"], "Dimensions": dimensions,
    }  # fmt: skip


def _rule(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "ActionsEnabled": body.get("actions_enabled", True),
        "AlarmActions": body["alarm_actions"],
        "AlarmDescription": body["alarm_description"],
        "ComparisonOperator": body["comparison_operator"],
        "Threshold": float(body["threshold"]),
        "EvaluationPeriods": body["evaluation_periods"],
        "DatapointsToAlarm": body["datapoints_to_alarm"],
        "TreatMissingData": body["treat_missing_data"],
    }


def test_the_alarms(made: dict[str, Any], parts: dict[str, GuardElement]) -> None:
    failing = made["aws_cloudwatch_metric_alarm.failing"]
    assert failing["alarm_name"] == parts["alarm failing"].id
    assert parts["alarm failing"].wanted() == {
        **_rule(failing),
        **_metric(failing),
        "Statistic": failing["statistic"],
        "Period": failing["period"],
    }
    silent = made["aws_cloudwatch_metric_alarm.silent"]
    assert silent["alarm_name"] == parts["alarm silent"].id
    metrics = []
    for query in silent["metric_query"]:
        metric: dict[str, Any] = {"Id": query["id"], "ReturnData": query["return_data"]}
        if "expression" in query:
            metric["Expression"] = query["expression"]
        for body in query.get("metric", ()):
            metric["MetricStat"] = {
                "Metric": _metric(body), "Period": body["period"], "Stat": body["stat"],
            }  # fmt: skip
        metrics.append(metric)
    assert parts["alarm silent"].wanted() == {**_rule(silent), "Metrics": metrics}


def test_variables_are_described_checked_and_have_the_same_defaults() -> None:
    variables = {
        name: body for block in read("variables.tf")["variable"] for name, body in block.items()
    }
    assert all(body["description"] for body in variables.values())
    unchecked = {name for name, body in variables.items() if "validation" not in body}
    assert unchecked == {"all_installations"}  # a truth value
    defaults = {name: body.get("default") for name, body in variables.items()}
    assert defaults["installation"] is None
    assert defaults["grace_seconds"] == GUARD_GRACE
    assert defaults["max_ttl_seconds"] == LimitSettings().max_ttl
    assert defaults["regions"] == defaults["alarm_actions"] == []
    assert defaults["all_installations"] is False
    text = (MODULE / "README.md").read_text()
    assert [name for name in variables if f"| `{name}` |" not in text] == []
    outputs = [name for block in read("outputs.tf")["output"] for name in block]
    assert [name for name in outputs if f"`{name}`" not in text] == []
    used = set(re.findall(r"var\.(\w+)", (MODULE / "main.tf").read_text()))
    assert used == set(variables)
