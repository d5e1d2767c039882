"""The Terraform module for Azure, read from its source: nothing is planned or applied."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import hcl2
import pytest

from deploy.azure import publish
from deploy.azure.guard import function_app as guard
from tests.support.packer import plain
from vmrunner.config.settings import LimitSettings
from vmrunner.model import Scope, tags_of
from vmrunner.providers.port_images import ImageRequest

DEPLOY: Final = Path(__file__).parents[2] / "deploy/azure"
MODULE: Final = DEPLOY / "terraform"
INSTALLATION: Final = "6f1c0a4e-7d0b-4c1f-9a52-0d3c5be1f7a4"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = plain(hcl2.loads((MODULE / name).read_text()))
    return found


@pytest.fixture(scope="module")
def module() -> dict[str, Any]:
    return read("main.tf")


@pytest.fixture(scope="module")
def made(module: dict[str, Any]) -> dict[str, Any]:
    """Each resource by its address."""
    return {
        f"{kind.removeprefix('azurerm_')}.{name}": body
        for block in module["resource"]
        for kind, named in block.items()
        for name, body in named.items()
    }


def test_each_provider_is_of_one_major_version(module: dict[str, Any]) -> None:
    (needed,) = (block["required_providers"][0] for block in module["terraform"])
    assert needed.keys() == {"azurerm"}
    assert all(re.fullmatch(r"~> \d+\.\d+", provider["version"]) for provider in needed.values())


def test_the_network_lets_nobody_in_but_vmrunner(made: dict[str, Any]) -> None:
    rules = sorted(
        made["network_security_group.builds"]["security_rule"], key=lambda rule: rule["priority"]
    )
    assert [(rule["access"], rule["direction"]) for rule in rules] == [
        ("Allow", "Inbound"),
        ("Deny", "Inbound"),
    ]
    allowed, denied = rules
    assert allowed["source_address_prefixes"] == "${var.ssh_sources}"
    assert (allowed["protocol"], allowed["destination_port_range"]) == ("Tcp", "22")
    assert "source_address_prefix" not in allowed
    everything = {"protocol", "source_port_range", "source_address_prefix"}
    everything |= {"destination_port_range", "destination_address_prefix"}
    assert {denied[key] for key in everything} == {"*"}
    assert denied["priority"] < 65_000  # Azure's own AllowVnetInBound
    bound = made["subnet_network_security_group_association.builds"]
    assert bound["subnet_id"] == "${azurerm_subnet.builds.id}"
    assert bound["network_security_group_id"] == "${azurerm_network_security_group.builds.id}"


def test_roles_are_given_no_further_than_they_reach(made: dict[str, Any]) -> None:
    group = "${azurerm_resource_group.builds.id}"
    assert made["role_assignment.guard"]["scope"] == group
    text = (MODULE / "main.tf").read_text()
    scope = 'pair[1] == "vmrunner" ? azurerm_resource_group.builds.id : data.azurerm_subscription'
    assert scope in text
    for name in ("vmrunner", "guard", "sign"):
        (permissions,) = made[f"role_definition.{name}"]["permissions"]
        assert permissions.keys() == {"actions"}
    assert {path.stem for path in (DEPLOY / "roles").glob("*.json")} == {
        "guard", "sign", "subscription", "vmrunner",
    }  # fmt: skip
    # Its sign of life is in its own group, and nothing else there is changed by it.
    assert made["role_assignment.sign"]["scope"] == "${azurerm_resource_group.guard.id}"
    sign = json.loads((DEPLOY / "roles/sign.json").read_text())
    assert sign["Actions"] == ["Microsoft.Resources/tags/write"]
    kept = made["resource_group.guard"]["lifecycle"][0]["ignore_changes"]
    assert 'tags["vmrunner:last-pass"]' in str(kept)
    # What is in the guard's own group is out of reach of who makes VMs.
    parts = [
        name for name in made if name.endswith(".guard") and "resource_group_name" in made[name]
    ]
    assert len(parts) == 5
    for name in parts:
        assert made[name]["resource_group_name"] == "${azurerm_resource_group.guard.name}"


def test_nothing_is_counted_by_what_the_same_apply_makes(made: dict[str, Any]) -> None:
    """Terraform must know the keys of a `for_each` before an identity has its id."""
    for name in ("role_assignment.vmrunner", "role_definition.vmrunner"):
        assert ".principal_id" not in str(made[name]["for_each"])
    assert "keys(var.principals)" in made["role_assignment.vmrunner"]["for_each"]


def test_the_function_is_told_what_its_code_reads(made: dict[str, Any]) -> None:
    app = made["function_app_flex_consumption.guard"]
    variables = set(re.findall(r"^ +(VMRUNNER_\w+) ", guard.__doc__ or "", re.MULTILINE))
    assert set(app["app_settings"]) == variables
    assert app["app_settings"]["VMRUNNER_RESOURCE_GROUP"] == "${azurerm_resource_group.builds.name}"
    assert app["tags"].count('"vmrunner:roles" = "build, pool, image"') == 1
    assert set(guard.ROLES) == {"build", "pool", "image"}
    assert (app["runtime_name"], app["runtime_version"]) == ("python", "3.12")
    assert app["identity"] == [{"type": "SystemAssigned"}]
    assert app["app_settings"]["VMRUNNER_GUARD_GROUP"] == "${azurerm_resource_group.guard.name}"


def test_the_code_goes_where_this_plan_takes_it(made: dict[str, Any]) -> None:
    """What azurerm's `zip_deploy_file` posts to is a 404 there."""
    assert "zip_deploy_file" not in made["function_app_flex_consumption.guard"]
    code = made["terraform_data.code"]
    assert code["triggers_replace"] == [
        "${azurerm_function_app_flex_consumption.guard.id}",
        "${local.version}",  # or a change is never published
    ]
    (provisioner,) = code["provisioner"]
    command = shlex.split(provisioner["local-exec"]["command"])
    assert command[:2] == ["python3", "${path.module}/../publish.py"]
    assert len(command) == 5
    assert (MODULE / "../publish.py").exists()
    # Rights first: the first pass comes within five minutes.
    assert {"${azurerm_role_assignment.guard}", "${azurerm_role_assignment.sign}"} == set(
        code["depends_on"]
    )


def test_what_is_deployed_is_the_guard_and_nothing_to_install() -> None:
    files = {path.name for path in (DEPLOY / "guard").iterdir()} - {"__pycache__"}
    assert files == set(publish.FILES) == {"function_app.py", "host.json"}
    host = json.loads((DEPLOY / "guard/host.json").read_text())
    minutes, seconds = map(int, host["functionTimeout"].split(":")[1:])
    slowest = guard.LONGEST + guard.TIMEOUT  # the last call may begin when a pass is almost over
    assert slowest < minutes * 60 + seconds < 300


def test_names_are_as_long_as_azure_takes(made: dict[str, Any]) -> None:
    whole = {
        "${substr(var.installation, 0, 8)}": INSTALLATION[:8],
        '${substr(replace(var.installation, "-", ""), 0, 16)}': INSTALLATION.replace("-", "")[:16],
    }
    (name,) = (block["name"] for block in read("main.tf")["locals"])
    storage = made["storage_account.guard"]["name"]
    for hole, value in whole.items():
        name, storage = name.replace(hole, value), storage.replace(hole, value)
    assert re.fullmatch(r"[a-z0-9-]{2,32}", name), name
    assert re.fullmatch(r"[a-z0-9]{3,24}", storage), storage


def test_alerts_ring_on_failure_and_on_silence(made: dict[str, Any]) -> None:
    for name, query, operator, threshold in (
        ("failing", "requests | where success == false", "GreaterThan", 0),
        ("silent", "requests | where success == true", "LessThan", 1),
    ):
        alert = made[f"monitor_scheduled_query_rules_alert_v2.{name}"]
        (criteria,) = alert["criteria"]
        assert (criteria["query"], criteria["operator"], criteria["threshold"]) == (
            query, operator, threshold,
        )  # fmt: skip
        assert criteria["time_aggregation_method"] == "Count"
        assert alert["scopes"] == ["${azurerm_application_insights.guard.id}"]
        assert alert["action"] == [{"action_groups": "${var.action_groups}"}]
    assert made["application_insights.guard"]["sampling_percentage"] == 100  # or some are not heard


def test_variables_are_described_checked_and_have_the_same_defaults() -> None:
    variables = {
        name: body for block in read("variables.tf")["variable"] for name, body in block.items()
    }
    assert all(body["description"] for body in variables.values())
    unchecked = {name for name, body in variables.items() if "validation" not in body}
    assert unchecked == {"all_installations", "deny_untagged", "dry_run"}  # truth values
    defaults = {name: body.get("default") for name, body in variables.items()}
    assert defaults["grace_seconds"] == guard.GRACE
    assert defaults["max_ttl_seconds"] == LimitSettings().max_ttl
    assert (defaults["deny_untagged"], defaults["all_installations"]) == (True, False)
    text = (MODULE / "README.md").read_text()
    assert [name for name in variables if f"| `{name}` |" not in text] == []
    outputs = [name for block in read("outputs.tf")["output"] for name in block]
    assert [name for name in outputs if f"`{name}`" not in text] == []
    used = set(re.findall(r"var\.(\w+)", (MODULE / "main.tf").read_text()))
    assert used == set(variables)


# --- the policy ----------------------------------------------------------------------------------


def denied(resource: Mapping[str, Any]) -> bool:
    """As Azure Policy evaluates it."""
    policy = json.loads((DEPLOY / "policies/deny-untagged.json").read_text())
    assert policy["then"] == {"effect": "deny"}
    return _holds(policy["if"], resource)


def _holds(rule: Mapping[str, Any], resource: Mapping[str, Any]) -> bool:
    if "allOf" in rule:
        return all(_holds(condition, resource) for condition in rule["allOf"])
    if "anyOf" in rule:
        return any(_holds(condition, resource) for condition in rule["anyOf"])
    tag = re.fullmatch(r"tags\['(.+)'\]", rule["field"])
    value = resource["tags"].get(tag[1]) if tag else resource[rule["field"]]
    if "exists" in rule:
        return (value is not None) is (rule["exists"] == "true")
    return bool(value.lower() == rule["equals"].lower())


def test_only_untagged_vms_are_denied(made: dict[str, Any]) -> None:
    whole = {"vmrunner:installation": "i", "vmrunner:role": "build", "vmrunner:expires-at": "1"}
    machine, disk = "Microsoft.Compute/virtualMachines", "Microsoft.Compute/disks"
    assert not denied({"type": machine, "tags": whole})
    assert not denied({"type": disk, "tags": {}})
    for missing in whole:
        tags = {name: value for name, value in whole.items() if name != missing}
        assert denied({"type": machine, "tags": tags})
    request = ImageRequest(
        image="im-1",
        builder="vm-1",
        installation=INSTALLATION,
        generation="g",
        recipe="default",
        hash="0" * 64,
        supervisor="1" * 64,
        created=0.0,
        deadline=1.0,
        max_ttl=3600.0,
    )
    ours = tags_of(request.order(Scope("azure", "s", "g"), "Standard_D2s_v5"))
    assert not denied({"type": machine, "tags": ours})  # a build's are the same
    bound = made["resource_group_policy_assignment.untagged"]
    assert bound["resource_group_id"] == "${azurerm_resource_group.builds.id}"
