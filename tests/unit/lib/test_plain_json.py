"""What is plain is read as pydantic reads it, and what is not is left to it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from vmrunner.lib import plain_json
from vmrunner.lib.plain_json import Doubt
from vmrunner.model import (
    AllowList,
    ArtifactRule,
    BuildSpec,
    BuildUsage,
    CacheRule,
    Market,
    Network,
    Offer,
    Process,
    Scope,
    Step,
)

SPEC = BuildSpec(
    steps=(Step(run="make", env={"A": "ü"}, timeout=3.0), Step(argv=("a", "b"), name="n")),
    provider="local", container="debian:trixie", timeout=60.0, ttl=100.0, secrets=("S",),
    artifacts=(ArtifactRule(glob="*.xml", always=True),), labels={"team": "x"}, cpus=2,
    caches=(CacheRule(path="/c", key="k"),), network=AllowList(("a.example:443",)), spot=True,
    keep_logs=5.0,
)  # fmt: skip
VALUES = [
    SPEC,
    BuildSpec(steps=(), provider="p", container="c", timeout=1.0, ttl=2.0, network=Network.NONE),
    Offer(scope=Scope("ec2", "1", "eu"), machine_type="m", place="a", market=Market.SPOT),
    Process(machine="m", boot="b", pid_namespace="n", pid=1, started=2),
    BuildUsage(memory_peak=1, cpu_seconds=0.5),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_is_read_as_pydantic_reads_it(value: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(type(value))
    text = adapter.dump_json(value).decode()
    assert plain_json.value_of(type(value), text) == value == adapter.validate_json(text)
    assert repr(plain_json.value_of(type(value), text)) == repr(adapter.validate_json(text))


@pytest.mark.parametrize(
    "change",
    [
        {"timeout": "60"}, {"timeout": None}, {"steps": {}}, {"spot": 1}, {"network": "near"},
        {"cpus": 2.0}, {"provider": 7}, {"labels": {"a": 1}}, {"strange": 1}, {"steps": [{"a": 1}]},
        {"secrets": [None]}, {"cpus": True}, {"priority": True}, {"name": "\ud800"},
        {"steps": [{"run": "x", "timeout": 5}]},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_else_it_is_is_left_to_pydantic(change: dict[str, Any]) -> None:
    plain = json.loads(TypeAdapter(BuildSpec).dump_json(SPEC)) | change
    with pytest.raises(Doubt):
        plain_json.value_of(BuildSpec, json.dumps(plain))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "null", "7", '"x"'], ids=lambda t: t[:5])
def test_what_is_no_object_is_doubtful(text: str) -> None:
    with pytest.raises(Doubt):
        plain_json.value_of(BuildSpec, text)
