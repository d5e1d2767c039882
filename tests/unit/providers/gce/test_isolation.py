"""Which firewall rules let builds reach each other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vmrunner.model import Level
from vmrunner.providers.gce.isolation import holes

HOME = "10.132.0.0/20"


def entry(protocol: str, *ports: str) -> Any:
    return SimpleNamespace(I_p_protocol=protocol, ports=list(ports))


def rule(name: str, **more: Any) -> Any:
    values: dict[str, Any] = {
        "name": name,
        "disabled": False,
        "direction": "INGRESS",
        "priority": 1000,
        "allowed": [entry("tcp", "22")],
        "denied": [],
        "source_ranges": ["203.0.113.0/24"],
        "source_tags": [],
        "source_service_accounts": [],
        "target_tags": [],
        "target_service_accounts": [],
    }
    return SimpleNamespace(**(values | more))


DENY: dict[str, Any] = {"allowed": [], "denied": [entry("all")], "source_ranges": ["10.0.0.0/8"]}
SSH = rule("ssh")
INTERNAL = rule("internal", allowed=[entry("all")], source_ranges=["10.128.0.0/9"])


def wrong(
    *rules: Any,
    tags: tuple[str, ...] = ("build",),
    account: str | None = None,
    public: bool = False,
) -> list[str]:
    found = list(holes(rules, [HOME], tags, account, public=public))
    assert all(finding.level is Level.ERROR and finding.fix for finding in found)
    return [finding.message for finding in found]


def test_ssh_from_outside_alone_is_well() -> None:
    assert wrong(SSH) == []


@pytest.mark.parametrize(
    "hole",
    [
        INTERNAL,
        rule("world", source_ranges=["0.0.0.0/0"]),
        rule("tagged", source_ranges=[], source_tags=["build"]),
        rule("aimed", source_ranges=["10.0.0.0/8"], target_tags=["build", "web"]),
        rule("range", allowed=[entry("tcp", "1-1024")], source_ranges=["10.132.0.7/32"]),
    ],
)
def test_what_lets_builds_in(hole: Any) -> None:
    (message,) = wrong(SSH, hole)
    assert message.startswith(f"rule {hole.name} lets builds reach each other")


@pytest.mark.parametrize(
    "harmless",
    [
        rule("off", disabled=True, source_ranges=["0.0.0.0/0"]),
        rule("out", direction="EGRESS", source_ranges=["0.0.0.0/0"]),
        rule("others", source_ranges=["0.0.0.0/0"], target_tags=["web"]),
        rule("account", source_ranges=["0.0.0.0/0"], target_service_accounts=["x@y"]),
        rule("elsewhere", source_ranges=["10.200.0.0/16"]),
    ],
)
def test_what_does_not(harmless: Any) -> None:
    assert wrong(SSH, harmless) == []


def test_a_denial_counts_when_it_comes_first_and_is_whole() -> None:
    assert wrong(SSH, INTERNAL, rule("no", priority=900, **DENY)) == []
    assert wrong(SSH, INTERNAL, rule("no", priority=1000, **DENY)) == []  # a tie is denied
    assert wrong(SSH, INTERNAL, rule("late", priority=1001, **DENY))
    assert wrong(SSH, INTERNAL, rule("part", priority=900, **DENY | {"denied": [entry("tcp")]}))
    narrow = DENY | {"source_ranges": ["10.132.0.0/24"]}
    assert wrong(SSH, INTERNAL, rule("narrow", priority=900, **narrow))
    assert wrong(SSH, INTERNAL, rule("aimed", priority=900, **DENY | {"target_tags": ["web"]}))


def test_by_public_addresses_builds_come_from_anywhere() -> None:
    """What denies their own ranges sees no such packet."""
    deny = rule("deny", priority=1, **DENY)
    world = rule("world", source_ranges=["0.0.0.0/0"])
    assert wrong(deny, world) == []
    (message,) = wrong(deny, world, public=True)
    assert "public" in message
    shut = rule("shut", priority=2, **{**DENY, "source_ranges": ["0.0.0.0/0"]})
    assert wrong(SSH, deny, shut, world, public=True) == [*wrong(SSH, deny, shut, world)]
    assert wrong(SSH, deny, public=True) == []


def test_builds_by_their_service_account() -> None:
    hole = rule("same", source_ranges=[], source_service_accounts=["builds@x"])
    assert wrong(SSH, hole) == []
    assert wrong(SSH, hole, account="builds@x")


def test_nobody_is_let_in() -> None:
    assert wrong(rule("web", allowed=[entry("tcp", "443")])) == ["nothing is let in to port 22"]
    assert wrong(rule("all", allowed=[entry("tcp")])) == []
