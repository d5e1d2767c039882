"""Which rules of network security groups let builds reach each other."""

from __future__ import annotations

from typing import Any

import pytest

from vmrunner.model import Level
from vmrunner.providers.azure.isolation import holes, ways_out

HOME = "10.8.0.0/16"


def rule(name: str, priority: int, access: str, **more: Any) -> dict[str, Any]:
    values = {
        "access": access,
        "direction": "Inbound",
        "priority": priority,
        "protocol": "Tcp",
        "sourceAddressPrefix": "203.0.113.0/24",
        "destinationAddressPrefix": "*",
        "destinationPortRange": "22",
    }
    return {"name": name, "properties": values | more}


ALL: dict[str, Any] = {"protocol": "*", "destinationPortRange": "*"}
SSH = rule("ssh", 100, "Allow")
DENY = rule("builds", 200, "Deny", **ALL, sourceAddressPrefix=HOME)


def several(*sources: str) -> dict[str, Any]:
    return {"sourceAddressPrefix": None, "sourceAddressPrefixes": list(sources)}


def group(*rules: dict[str, Any], name: str = "nsg") -> dict[str, Any]:
    return {"name": name, "properties": {"securityRules": list(rules)}}


def wrong(*groups: dict[str, Any], public: bool = False) -> list[str]:
    found = list(holes(groups, [HOME], public=public))
    assert all(finding.level is Level.ERROR and finding.fix for finding in found)
    return [finding.message for finding in found]


@pytest.mark.parametrize(
    "deny",
    [
        DENY,
        rule("net", 200, "Deny", **ALL, sourceAddressPrefix="VirtualNetwork"),
        rule("all", 4096, "Deny", **ALL, sourceAddressPrefix="*"),
        rule("wide", 200, "Deny", **ALL, **several("10.0.0.0/8")),
    ],
)
def test_a_rule_that_denies_builds_is_well(deny: dict[str, Any]) -> None:
    assert wrong(group(deny, SSH)) == []


def test_azures_own_last_rule_lets_builds_in() -> None:
    assert "AllowVnetInBound" in wrong(group(SSH))[0]
    assert "no security group" in wrong()[0]


@pytest.mark.parametrize(
    "hole",
    [
        rule("world", 150, "Allow", sourceAddressPrefix="*"),
        rule("net", 150, "Allow", **ALL, sourceAddressPrefix="VirtualNetwork"),
        rule("range", 150, "Allow", sourceAddressPrefix="10.8.3.0/24"),
        rule("several", 150, "Allow", **several("10.0.0.0/8")),
    ],
)
def test_what_comes_first_counts(hole: dict[str, Any]) -> None:
    (message,) = wrong(group(SSH, hole, DENY))
    assert hole["name"] in message
    hole["properties"]["priority"] = 300
    assert wrong(group(SSH, hole, DENY)) == []


@pytest.mark.parametrize(
    "half",
    [
        rule("tcp", 200, "Deny", sourceAddressPrefix=HOME, destinationPortRange="*"),
        rule("port", 200, "Deny", protocol="*", sourceAddressPrefix=HOME),
        rule("some", 200, "Deny", **ALL, sourceAddressPrefix="10.8.0.0/17"),
        rule("there", 200, "Deny", **{**ALL, "destinationAddressPrefix": "10.9.0.0/16"}),
        rule("out", 200, "Deny", **ALL, sourceAddressPrefix=HOME, direction="Outbound"),
        rule("tag", 200, "Deny", **ALL, sourceAddressPrefix="AzureLoadBalancer"),
    ],
)
def test_half_a_denial_is_none(half: dict[str, Any]) -> None:
    assert "AllowVnetInBound" in wrong(group(SSH, half))[0]


def test_of_two_groups_one_that_denies_is_enough() -> None:
    assert wrong(group(SSH), group(SSH, DENY, name="vm")) == []


@pytest.mark.parametrize("source", ["*", "Internet", "AzureCloud.westeurope", "0.0.0.0/0"])
def test_by_public_addresses_builds_come_from_the_internet(source: str) -> None:
    """Whatever denies the network's own ranges sees no such packet."""
    world = rule("world", 300, "Allow", sourceAddressPrefix=source)
    open_to_all = group(SSH, DENY, world)
    (message,) = wrong(open_to_all, public=True)
    assert "public" in message
    assert "world" in message
    assert wrong(open_to_all) == []
    assert wrong(open_to_all, group(SSH, DENY, name="vm"), public=True) == []
    shut = rule("shut", 250, "Deny", **ALL, sourceAddressPrefix="Internet")
    assert wrong(group(SSH, DENY, shut, world), public=True) == []


def test_somebody_must_be_let_in() -> None:
    assert wrong(group(DENY, name="vm")) == ["vm lets nothing in to port 22"]
    assert wrong(group(SSH, DENY), group(DENY, name="vm")) == ["vm lets nothing in to port 22"]
    ranges = rule(
        "r", 100, "Allow", destinationPortRange=None, destinationPortRanges=["80", "1-99"]
    )
    assert wrong(group(ranges, DENY)) == []


# --- network: none ---


def out(name: str, priority: int, access: str, to: str = "*", **more: Any) -> dict[str, Any]:
    values = {"direction": "Outbound", "sourceAddressPrefix": "*", "destinationAddressPrefix": to}
    return rule(name, priority, access, **(ALL | values | more))


SHUT = out("shut", 110, "Deny")
NAMES = out("names", 100, "Deny", "AzurePlatformDNS")


@pytest.mark.parametrize(
    ("rules", "levels", "text"),
    [
        ([SSH, NAMES, SHUT], [], ""),
        ([SSH], [Level.ERROR, Level.WARNING], "no rule denies it"),
        ([SSH, SHUT], [Level.WARNING], "Azure's own resolver"),
        (
            [SSH, SHUT, out("tcp", 100, "Deny", "AzurePlatformDNS", protocol="Tcp")],
            [Level.WARNING],
            "Azure's own resolver",
        ),
        ([SSH, NAMES, SHUT, out("web", 105, "Allow")], [Level.ERROR], "rule web"),
        ([SSH, NAMES, SHUT, out("web", 120, "Allow")], [], ""),
        ([SSH, NAMES, out("some", 110, "Deny", "10.0.0.0/8")], [Level.ERROR], "no rule denies it"),
        (
            [SSH, NAMES, out("tcp", 110, "Deny") | rule("tcp", 110, "Deny")],
            [Level.ERROR],
            "no rule",
        ),
    ],
)
def test_network_none_lets_nothing_out(
    rules: list[dict[str, Any]], levels: list[Level], text: str
) -> None:
    found = list(ways_out(group(*rules)))
    assert [finding.level for finding in found] == levels
    assert all(finding.check == "network none" and finding.fix for finding in found)
    assert text in "".join(finding.message for finding in found)
