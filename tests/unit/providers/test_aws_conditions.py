"""Conditions of AWS's policies, against the keys that Amazon says it evaluates: no local cloud
evaluates any."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[3]
POLICIES: Final = ROOT / "deploy/aws/policies"
LISTED: Final = json.loads((ROOT / "tests/data/aws_conditions.json").read_text())["conditions"]
#: Amazon's reference has it for no launch; the policy that Karpenter has everybody give to it does.
UNLISTED: Final = {("ec2:RunInstances", "spot-instances-request")}
#: Any resource, or none.
ALL: Final = "*"


def several(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def statements() -> Iterator[Any]:
    """Those about resources."""
    for file in sorted(POLICIES.glob("*.json")):
        for statement in json.loads(file.read_text())["Statement"]:
            if "Resource" in statement:
                yield pytest.param(statement, id=f"{file.stem}-{statement['Sid']}")


@pytest.mark.parametrize("statement", [*statements()])
def test_each_condition_key_is_evaluated_for_its_actions(statement: dict[str, Any]) -> None:
    """A key that is never in the request makes a statement allow nothing, or deny nothing."""
    arns = [arn.split(":", 5)[-1] for arn in several(statement["Resource"])]
    named = {text.partition("/")[0] for text in arns if "/" in text}
    tests = statement.get("Condition", {}).values()
    for key in {key.partition("/")[0] for keys in tests for key in keys}:
        found: set[str] = set()
        for action in several(statement["Action"]):
            types = set(LISTED[action][key])
            assert types, (action, key)
            found |= types | {kind for unlisted, kind in UNLISTED if unlisted == action}
        assert ALL in found or named <= found, (key, named - found)


@pytest.mark.parametrize("statement", [*statements()])
def test_no_condition_holds_where_its_key_is_missing(statement: dict[str, Any]) -> None:
    """`ForAllValues` is true of none at all: a DeleteTags that names no tag deletes all of them."""
    conditions = statement.get("Condition", {})
    for operator, keys in conditions.items():
        for key in keys if operator.startswith("ForAllValues:") else ():
            assert conditions.get("Null", {}).get(key) == "false"
