"""What Python passes: one `ConfigError` with field, value and fix, and never a raw exception."""

from __future__ import annotations

from typing import Any

import pytest

from vmrunner import Step
from vmrunner.api.runner import build_request
from vmrunner.config.settings import Settings
from vmrunner.errors import ConfigError
from vmrunner.model import ArtifactRule
from vmrunner.services import requests

SETTINGS = Settings.model_validate({"providers": {"local": {"kind": "qemu"}}})


def complaint(command: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        requests.check(build_request(command, options), SETTINGS)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"artifacts": "out"}, "artifacts: 'out' is not a list (artifacts=[…])"),
        ({"artifacts": b"out"}, "artifacts: b'out' is not a list"),
        ({"artifacts": [3]}, "artifacts: 3 is not text"),
        ({"artifacts": [ArtifactRule(glob="x", always="yes")]}, "artifacts: always: 'yes' is"),
        ({"secrets": "TOKEN"}, "secrets: 'TOKEN' is not a list"),
        ({"secrets": [1]}, "secret: 1 is not text"),
        ({"secrets": {"TOKEN": 12345}}, "secret: the value of 'TOKEN' is not text"),
        ({"cpus": "2"}, "cpus: '2' is not a whole number"),
        ({"cpus": 1.5}, "cpus: 1.5 is not a whole number"),
        ({"cpus": True}, "cpus: True is not a whole number"),
        ({"priority": "high"}, "priority: 'high' is not a whole number"),
        ({"priority": 1 << 40}, "priority: 1099511627776 is too much (at most 2147483647)"),
        ({"priority": -(1 << 40)}, "priority: -1099511627776 is too little"),
        ({"env": {"A": 1}}, "env: A: 1 is not text (put it in quotes)"),
        ({"env": ""}, "env: '' is not a mapping"),
        ({"artifacts": ""}, "artifacts: '' is not a list"),
        ({"secrets": ""}, "secrets: '' is not a list"),
        ({"timeout": ""}, "timeout: '' is not a duration"),
        ({"memory": ""}, "memory: '' is not a size"),
        ({"env": "A=1"}, "env: 'A=1' is not a mapping"),
        ({"env": {1: "x"}}, "env: a name: 1 is not text"),
        ({"env": {"A": "\ud800"}}, "env: A: '\\ud800' is not UTF-8"),
        ({"labels": {"a": None}}, "labels: a: None is not text"),
        ({"labels": ["a"]}, "labels: ['a'] is not a mapping"),
        ({"source": 3}, "source: 3 is not text"),
        ({"source": ""}, "source: empty (give it a value, or leave it out)"),
        ({"network": ""}, "network: empty"),
        ({"network": " "}, "network: empty"),
        ({"container": ""}, "container: empty"),
        ({"image": ""}, "image: empty"),
        ({"name": ""}, "name: empty"),
        ({"provider": ""}, "provider: empty"),
        ({"docker": "yes"}, "docker: 'yes' is neither true nor false"),
        ({"spot": 1}, "spot: 1 is neither true nor false"),
        ({"timeout": [1]}, "timeout: [1] is not a duration"),
        ({"memory": 1.5}, "memory: 1.5 is not a size"),
        ({"idempotency_key": 3}, "idempotency-key: 3 is not text"),
    ],
)
def test_an_option_that_cannot_be(options: dict[str, Any], refusal: str) -> None:
    message = complaint("make", **options)
    assert message.startswith(refusal)
    assert "12345" not in message


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (3, "command: 3 is not a list"),
        (b"make", "command: b'make' is not a list"),
        (["a", 1], "command: 1 is not text"),
        ("\ud800", "command: '\\ud800' is not UTF-8"),
        ([Step(run="x"), 3], "command: 3 is not text"),
        ([Step(run="x", argv=("y",))], "command: 'x' has `run` and `argv` (give exactly one"),
        ([Step()], "command: '' is not a command"),
        ([Step(argv="make")], "argv: 'make' is not a list"),  # type: ignore[arg-type]
        ([Step(run="x", env={"A": 1})], "env: A: 1 is not text"),  # type: ignore[dict-item]
        ([Step(run="x", env={"A": "x" * (128 << 10)})], "env: A has 128.0 KiB"),
        ([Step(run="x", name=3)], "name of a step: 3 is not text"),  # type: ignore[arg-type]
        ([Step(run="x", timeout="soon")], "timeout of a step: 'soon' is not a duration"),
    ],
)
def test_a_command_that_cannot_be(command: Any, message: str) -> None:
    assert complaint(command).startswith(message)


def test_ten_thousand_variables_fit_or_are_told() -> None:
    env = {f"VARIABLE_{n}": "x" * 30 for n in range(10_000)}
    assert len(requests.check(build_request("make", {"env": env}), SETTINGS).spec.env) == 10_000
    env = {f"VARIABLE_{n}": "x" * 300 for n in range(10_000)}
    assert complaint("make", env=env).startswith("env: 10000 variables take 3.1 MiB")
