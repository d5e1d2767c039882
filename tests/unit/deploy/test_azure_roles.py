"""What deploy/azure gives away, beside what the driver calls, reads and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import hcl2
import pytest

from deploy.azure.guard import function_app as guard
from tests.support.packer import plain
from vmrunner.providers.azure import client, identity, isolation, permissions
from vmrunner.providers.azure import guard as seen
from vmrunner.providers.azure.client import AzureApi
from vmrunner.providers.azure.settings import AzureSettings

DEPLOY: Final = Path(__file__).parents[3] / "deploy/azure"
MAIN: Final = (DEPLOY / "terraform/main.tf").read_text()

#: What a PUT of a VM asks for beside, and what is read without a client of the SDK's.
BESIDE: Final = {
    "vmrunner": {
        permissions.LOCKS_RIGHT,
        "Microsoft.Authorization/permissions/read",
        "Microsoft.Compute/disks/write",
        "Microsoft.Network/networkInterfaces/join/action",
        "Microsoft.Network/networkInterfaces/write",
        "Microsoft.Network/networkSecurityGroups/join/action",
        "Microsoft.Network/publicIPAddresses/join/action",
        "Microsoft.Network/publicIPAddresses/write",
        "Microsoft.Network/virtualNetworks/subnets/join/action",
    },
    "subscription": {
        "Microsoft.Compute/locations/operations/read",
        "Microsoft.Network/locations/operations/read",
        identity.GROUP_RIGHT,
        "Microsoft.Web/sites/read",
    },
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_role_of_vmrunner_names_what_the_driver_calls(name: str) -> None:
    calls = [call for call in vars(client).values() if isinstance(call, AzureApi)]
    called = {call.action for call in calls if call.grouped is (name == "vmrunner")}
    role = json.loads((DEPLOY / f"roles/{name}.json").read_text())
    assert role["Actions"] == sorted(called | BESIDE[name])
    assert not [action for action in role["Actions"] if "*" in action]


def test_who_may_create_may_delete() -> None:
    role = json.loads((DEPLOY / "roles/vmrunner.json").read_text())
    assert permissions.allows([{"actions": role["Actions"]}], permissions.ACTION)
    made = {
        action.removesuffix("/write") for action in role["Actions"] if action.endswith("/write")
    }
    # A gallery and its definitions last, and bill nothing: versions do.
    made -= {"Microsoft.Compute/galleries", "Microsoft.Compute/galleries/images"}
    assert {f"{kind}/delete" for kind in made} <= set(role["Actions"])


def test_doctor_looks_for_the_function_that_the_module_makes() -> None:
    installation = "6f1c0a4e-7d0b-4c1f-9a52-0d3c5be1f7a4"
    assert '"vmrunner-guard-${substr(var.installation, 0, 8)}"' in MAIN
    assert seen.name_of(installation) == f"vmrunner-guard-{installation[:8]}"
    role = re.search(rf'"{seen.ROLES}" = "(.*?)"', MAIN)
    assert role is not None
    assert set(re.findall("[a-z]+", role[1])) == set(guard.ROLES)
    assert seen.module() == DEPLOY / "terraform"


def test_doctor_finds_no_hole_in_the_modules_network() -> None:
    main = plain(hcl2.loads(MAIN))
    (group,) = (
        named["builds"]
        for block in main["resource"]
        for kind, named in block.items()
        if kind == "azurerm_network_security_group"
    )
    shown = {"name": group["name"], "properties": {"securityRules": []}}
    for rule in group["security_rule"]:
        rule = {_camel(key): value for key, value in rule.items()}
        if "sourceAddressPrefixes" in rule:
            rule["sourceAddressPrefixes"] = ["203.0.113.0/24"]
        shown["properties"]["securityRules"].append({"name": rule["name"], "properties": rule})
    home = "10.77.0.0/16"
    assert list(isolation.holes([shown], [home], public=True)) == []
    del shown["properties"]["securityRules"][1]
    assert list(isolation.holes([shown], [home], public=True)) != []


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def test_what_the_module_tells_is_a_provider() -> None:
    text = (DEPLOY / "terraform/outputs.tf").read_text()
    (table,) = re.findall(r"<<-EOT\n(.*?)\n +EOT", text, re.S)
    outputs: dict[str, Any] = {}
    for line in table.splitlines():
        key, _, value = line.strip().partition(" = ")
        outputs[key] = json.loads(value.replace("${", "").replace("}", ""))
    settings = AzureSettings.model_validate(outputs)
    assert settings.kind == "azure"
    assert {"subscription", "resource_group", "location", "subnet", "guard"} <= set(outputs)
