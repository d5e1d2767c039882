"""What each value allows, and all of them together do not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from vmrunner.config import contradictions
from vmrunner.config.settings import Settings


def settings(**values: Any) -> Settings:
    tables = {"local": {"kind": "fake"}, **values.pop("providers", {})}
    first = {"default_provider": "local"} if len(tables) > 1 else {}
    return Settings.model_validate({"providers": tables, **first, **values})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"pools": {"x": {"size": 1, "hit_rate": 0.5}}}, "pools.x"),
        ({"pools": {"x": {"size": 1, "provider": "nope"}}}, "pools.x.provider: no provider 'nope'"),
        ({"pools": {"x": {"size": 1, "ttl": "9h"}}}, "pools.x: idle + ttl + 5 min is 9h35m"),
        ({"defaults": {"timeout": "9h"}}, "defaults.timeout: 9h is not below limits.max_ttl, 4h"),
        (
            {"providers": {"v": {"kind": "qemu", "memory": "64MiB"}}},
            "providers.v.memory: 64MiB is less than a VM needs",
        ),
        ({"default_provider": "nope"}, "default_provider: no provider 'nope' is configured"),
    ],
)
def test_what_serve_or_each_build_refuses(values: dict[str, Any], text: str) -> None:
    (error,) = contradictions.of(settings(**values))
    assert text in str(error)
    assert error.hint


def test_a_good_configuration_contradicts_nothing() -> None:
    assert contradictions.of(settings(pools={"x": {"size": 1}})) == []
    assert contradictions.of(Settings()) == []


def test_all_contradictions_are_told() -> None:
    pools = {"a": {"size": 1, "hit_rate": 0.5}, "b": {"size": 1, "ttl": "9h"}}
    assert len(contradictions.of(settings(pools=pools, defaults={"timeout": "9h"}))) == 3


@pytest.mark.parametrize("text", ["8470", "host", ":8470", "h:99999"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="is no address"):
        settings(server={"listen": text})


@pytest.mark.parametrize("value", ["yes", "on", "1", 1, "True", None, 0.0])
def test_a_right_is_given_by_true_alone(value: object) -> None:
    with pytest.raises(ValidationError, match="neither true nor false"):
        settings(limits={"privileged": value})


def test_a_variable_may_say_true() -> None:
    assert settings(limits={"privileged": "true"}).limits.privileged
    assert not settings(limits={"privileged": "false"}).limits.privileged
    assert settings(limits={"privileged": True}).limits.privileged
