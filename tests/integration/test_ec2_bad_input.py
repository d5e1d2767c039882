"""What may be wrong about EC2, row by row: one line with what, where and the fix, before anything
is launched; and what `doctor` says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vmrunner_localclouds.ec2 import DENIED, Mapping, RequestFate

from tests.support.command_line import isolated
from tests.support.ec2 import REGION, Amazon, credentials
from tests.support.ec2 import aws as aws  # the fixture
from vmrunner.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return isolated(tmp_path, monkeypatch)


@pytest.fixture
def config(home: Path, aws: Amazon, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes a configuration that would work, but for `more`; None leaves a key out."""
    monkeypatch.setenv("VMRUNNER_CONFIG", str(home / "vmrunner.toml"))

    def write(**more: Any) -> None:
        values = {
            "kind": "ec2",
            "region": REGION,
            "image": aws.site.image,
            "subnets": list(aws.site.subnets[:2]),
            "security_groups": [aws.site.security_group],
            "endpoint_url": aws.cloud.url,
            **more,
        }
        lines = [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]
        (home / "vmrunner.toml").write_text("\n".join(["[providers.aws]", *lines]))

    write()
    return write


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


@pytest.fixture
def run(home: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        return (code, *capfd.readouterr())

    return run


def refused(aws: Amazon, run: Run) -> str:
    """The one line of error. Nothing was launched, and nothing is in the ledger."""
    code, out, err = run("run", "--", "true")
    assert (code, out) == (125, ""), err
    assert err.startswith("vmrunner: error: ")
    assert err.count("\n") == 1, err
    assert aws.cloud.count("RunInstances") == 0
    code, out, _ = run("ps", "-a", "-o", "json")
    assert (code, json.loads(out)["items"]) == (0, [])
    return err.removeprefix("vmrunner: error: ")


def findings(run: Run) -> dict[str, tuple[str, str]]:
    """What `doctor aws` says: by check, the level and the message with its fix."""
    _, out, _ = run("doctor", "aws", "-o", "json")
    return {
        item["check"].removeprefix("aws: "): (item["level"], f"{item['message']} | {item['fix']}")
        for item in json.loads(out)["items"]
    }


# --- credentials ---------------------------------------------------------------------------------


def test_no_credentials(aws: Amazon, config: object, run: Run) -> None:
    with credentials(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""):
        assert "no AWS credentials" in (text := refused(aws, run))
        assert "aws configure" in text
        assert findings(run)["identity"][0] == "error"


def test_no_such_profile(aws: Amazon, config: Callable[..., None], run: Run) -> None:
    config(profile="gone")
    assert "profile (gone) could not be found" in (text := refused(aws, run))
    assert "aws configure list-profiles" in text


@pytest.mark.parametrize(
    ("trouble", "fix"),
    [
        (RequestFate("ExpiredToken", 403, "The security token included is expired"), "renew the"),
        (RequestFate("InvalidClientTokenId", 403, "The security token is invalid"), "check the"),
        (
            RequestFate("SignatureDoesNotMatch", 403, "The signature does not match"),
            "this host's",
        ),
    ],
)
def test_credentials_that_are_not_accepted(
    aws: Amazon, config: object, run: Run, trouble: RequestFate, fix: str
) -> None:
    aws.cloud.refused["AKIALOCALLOCALLOCAL0"] = trouble
    text = refused(aws, run)
    assert trouble.code in text
    assert fix in text
    code, _, err = run("reap")
    assert (code, trouble.code in err) == (7, True)  # nothing could be read, and it says so


def test_a_region_that_is_not_enabled(aws: Amazon, config: object, run: Run) -> None:
    aws.cloud.disabled.add(REGION)
    assert f"{REGION} is enabled for the account" in refused(aws, run)


def test_no_region(aws: Amazon, config: Callable[..., None], run: Run) -> None:
    config(region=None)
    text = refused(aws, run)
    assert text == "providers.aws.region: none (set it, or AWS_REGION, such as eu-west-1)\n"
    config(region="Ireland")
    assert "providers.aws.region: 'Ireland' (one such as eu-west-1)" in refused(aws, run)


# --- what a launch takes for granted -------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image", "ami-0123456789abcdef0", "image ami-0123456789abcdef0: DescribeImages"),
        ("image", "nothing-*", f"image owner self, name nothing-*: there is none in {REGION}"),
        ("subnets", ["subnet-0123456789abcdef0"], "providers.aws.subnets: DescribeSubnets"),
        ("subnets", [], "providers.aws.subnets: none (name at least one"),
        ("security_groups", ["sg-0123456789abcdef0"], "providers.aws.security_groups: Describe"),
        ("security_groups", [], "providers.aws.security_groups: none (name one that lets in SSH"),
        (
            "instance_types",
            ["m7.enormous"],
            f"providers.aws.instance_types: m7.enormous: {REGION} has none of these",
        ),
        ("instance_types", [], "providers.aws.instance_types: [] (name at least one"),
        ("tags", {"aws:cost": "x"}, "providers.aws.tags: 'aws:cost' (keys that begin with aws:"),
        ("tags", {"vmrunner:role": "x"}, "providers.aws.tags: 'vmrunner:role' (vmrunner sets"),
        ("tags", {"Name": "x"}, "providers.aws.tags: 'Name' (vmrunner sets this one itself)"),
        ("tags", {"k" * 129: "v"}, "(a key has 1 to 128 characters)"),
        ("tags", {"k": "v" * 257}, "providers.aws.tags.k: 257 characters (at most 256)"),
        ("tags", {f"k{n}": "v" for n in range(43)}, "tags: 43 of them (EC2 has room for 42)"),
    ],
)
def test_a_value_that_cannot_be(
    aws: Amazon, config: Callable[..., None], run: Run, key: str, value: Any, message: str
) -> None:
    config(**{key: value})
    assert message in refused(aws, run)


def test_a_security_group_of_another_network(
    aws: Amazon, config: Callable[..., None], run: Run
) -> None:
    backend = aws.cloud.backend(REGION)
    vpc = backend.create_vpc("10.0.0.0/16")
    group = backend.create_security_group("other", "another network's", vpc_id=vpc.id)
    config(security_groups=[group.id])
    assert f"{group.id} is in {vpc.id}, the subnets are in" in refused(aws, run)


def test_who_may_not_terminate_launches_nothing(aws: Amazon, config: object, run: Run) -> None:
    aws.cloud.faults.deny("TerminateInstances")
    text = refused(aws, run)
    assert "aws may not terminate what it would launch" in text
    assert "allow ec2:TerminateInstances" in text
    level, message = findings(run)["terminate"]
    assert level == "error"
    assert "nothing is launched before" in message


# --- doctor --------------------------------------------------------------------------------------


def test_all_is_well(aws: Amazon, config: object, run: Run) -> None:
    found = findings(run)
    levels = {check: level for check, (level, _) in found.items()}
    assert levels.pop("schedule") == "warning"
    assert levels.pop("guard") == "warning"
    assert levels.pop("network none") == "warning"
    assert {name: found[name] for name, level in levels.items() if level != "ok"} == {}
    assert list(levels) == [
        "identity", "terminate", "image", "instance types", "subnet", "security group", "launch",
        "quota", "clock", "metadata",
    ]  # fmt: skip
    assert aws.cloud.account in found["identity"][1]
    assert aws.cloud.machines == []


def test_the_right_to_delete_is_asked_of_our_own_machine(
    aws: Amazon, config: object, run: Run
) -> None:
    from tests.support.ec2 import make_order

    provider = aws.provider(installation=installation(run))
    order = make_order(provider, installation=provider.options.installation)
    ref = provider.create(order)
    assert "a dry run was let through" in findings(run)["terminate"][1]
    assert aws.cloud.by_id[ref.id].state == "running"
    aws.cloud.faults.on_request = lambda request: (
        DENIED if request.action == "TerminateInstances" else None
    )
    assert findings(run)["terminate"][0] == "error"


def installation(run: Run) -> str:
    from vmrunner.config.sources import load
    from vmrunner.runtime.app import App

    app = App(load().settings)
    try:
        return app.ledgers.installation
    finally:
        app.close()


def test_a_check_that_cannot_be_made_warns(aws: Amazon, config: object, run: Run) -> None:
    aws.cloud.faults.deny("SimulatePrincipalPolicy", "GetServiceQuota")
    found = findings(run)
    assert found["terminate"][0] == "warning"
    assert "iam:SimulatePrincipalPolicy" in found["terminate"][1]
    assert found["quota"][0] == "error"
    assert "allow GetServiceQuota" in found["quota"][1]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"cidr": "0.0.0.0/0", "ports": ("22", "22")},
            "tcp 22 from 0.0.0.0/0, in which",
        ),
        ({"cidr": "172.31.0.0/16", "ports": ("0", "65535")}, "tcp 0-65535 from 172.31.0.0/16"),
        ({"itself": True, "ports": ("1", "2")}, "which the builds have"),
    ],
)
def test_builds_that_reach_each_other(
    aws: Amazon, config: object, run: Run, rule: dict[str, Any], message: str
) -> None:
    group = aws.site.security_group
    aws.cloud.backend(REGION).authorize_security_group_ingress(
        group,
        "tcp",
        *rule["ports"],
        [{"CidrIp": rule["cidr"]}] if "cidr" in rule else [],
        source_groups=[{"GroupId": group}] if "itself" in rule else [],
        vpc_id=aws.site.vpc,
    )
    level, text = findings(run)["security group"]
    assert level == "error"
    assert f"{group} lets builds reach each other" in text
    assert message in text


def test_what_doctor_finds_wrong(aws: Amazon, config: Callable[..., None], run: Run) -> None:
    aws.cloud.quotas["L-1216C47A"] = 1.0
    aws.cloud.skew += 300
    found = findings(run)
    assert found["quota"][0] == "error"
    assert "1 vCPUs at once, standard, on-demand: one machine has 2" in found["quota"][1]
    assert found["clock"][0] == "error"
    assert "AWS refuses what it signs" in found["clock"][1]
    image = aws.cloud.image(REGION, "x", mappings=[Mapping(device="/dev/xvda", size=900)])
    config(image=image, disk="1GiB")
    assert "needs 900 GiB" in findings(run)["launch"][1]


def test_the_first_launch_says_what_the_guarantee_is_worth(
    aws: Amazon, config: object, run: Run
) -> None:
    def warned() -> list[str]:
        code, _, err = run("run", "--dry-run", "--", "true")
        assert code == 0, err
        marks = [line for line in err.splitlines() if "warning: aws: " in line]
        return [line.partition("warning: aws: ")[2] for line in marks]

    schedule, guard = warned()
    assert schedule.startswith("no schedule ends a VM past its deadline")
    assert guard.startswith("nothing in the account ends a VM past its deadline")
    assert guard.endswith("(vmrunner guard install aws)")
    aws.cloud.faults.deny("GetSchedule")
    assert warned()[1].startswith("it cannot be told")
    assert aws.cloud.machines == []
