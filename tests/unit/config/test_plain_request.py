"""A request that is plainly right is what pydantic makes of it; any other has pydantic's words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from vmrunner.config import plain_request
from vmrunner.config.build_request import BuildRequest
from vmrunner.config.plain_request import PlainRequest
from vmrunner.errors import ConfigError
from vmrunner.lib import config_section
from vmrunner.model import AllowList, ArtifactRule, CacheRule, Network, Step

STEPS = (Step(run="make", name="x", timeout="5m"), Step(argv=("true",), env={"A": "b"}))
GOOD: list[tuple[str, Any]] = [
    ("container", "registry.example.org/team/image:tag"),
    ("container_runtime", "runsc"),
    ("provider", "local"),
    ("image", "default"),
    ("bootstrap", True),
    ("docker", False),
    ("registry_secret", "TOKEN"),
    ("privileged", True),
    ("source", "."),
    ("env", {"A": "b", "C": ""}),
    ("secrets", {"TOKEN": b"\xff"}),
    ("artifacts", ["dist/*", ArtifactRule(glob="log", always=True)]),
    ("caches", [{"key": "k", "path": "/x"}, CacheRule(key="l", path="/y", fallback=("m",))]),
    ("labels", {"team": "a"}),
    ("timeout", "1h30m"),
    ("ttl", 7200),
    ("queue_timeout", 0.5),
    ("keep_on_failure", timedelta(minutes=3)),
    ("keep_logs", "0"),
    ("network", "none"),
    ("network", "allow=Example.org,*.example.net:8443"),
    ("network", AllowList(("example.org",))),
    ("network", Network.OPEN),
    ("cpus", 1),
    ("memory", "512MiB"),
    ("disk", 20 << 30),
    ("spot", True),
    ("retry_on_loss", True),
    ("priority", -3),
    ("steps", STEPS),
    ("name", "nightly"),
    ("idempotency_key", "a key"),
]
DOUBTFUL: list[tuple[str, Any]] = [
    ("container", ""),
    ("container", "Not An Image"),
    ("container_runtime", "kata"),
    ("provider", ""),
    ("provider", " "),
    ("image", 7),
    ("docker", "true"),
    ("spot", 1),
    ("env", {"1": "b"}),
    ("env", ["A=b"]),
    ("secrets", {"TOKEN": "text"}),
    ("artifacts", "dist"),
    ("caches", [{"key": "k"}]),
    ("labels", {"": "a"}),
    ("timeout", "soon"),
    ("timeout", -1),
    ("ttl", True),
    ("network", "some"),
    ("network", "allow="),
    ("cpus", 0),
    ("cpus", True),
    ("cpus", 1.5),
    ("memory", "1MiB"),
    ("memory", "much"),
    ("disk", 1),
    ("priority", 1 << 40),
    ("steps", [Step(argv=())]),
    ("name", "b-1"),
    ("idempotency_key", "\n"),
    ("nothing", 1),
]


def test_each_field_has_its_reader_and_its_default() -> None:
    assert list(BuildRequest.model_fields) == [name for name, _ in BuildRequest()], (
        "pydantic yields each field"
    )
    assert plain_request.READERS.keys() == BuildRequest.model_fields.keys()
    assert {name for name, _ in GOOD} == plain_request.READERS.keys()
    plain = plain_request.request({})
    assert isinstance(plain, PlainRequest)
    assert dict(plain) == dict(BuildRequest())
    for name in ("is_sandbox", "locations", "host_uses", "faults", "unread"):
        assert getattr(plain, name) == getattr(BuildRequest(), name)


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_what_is_plainly_right_is_what_pydantic_makes(name: str, value: Any) -> None:
    plain, whole = plain_request.request({"spot": None, name: value}), BuildRequest(**{name: value})
    assert isinstance(plain, PlainRequest)
    assert dict(plain) == dict(whole)
    assert [type(value) for _, value in sorted(plain)] == [type(x) for _, x in sorted(whole)]
    assert getattr(plain, name) == getattr(whole, name)


@pytest.mark.parametrize(("name", "value"), DOUBTFUL)
def test_whatever_else_it_is_has_the_words_of_pydantic(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as whole:
        BuildRequest(**{name: value})
    with pytest.raises(ConfigError) as plain:
        plain_request.request({name: value})
    assert str(plain.value) == str(whole.value)
    assert plain.value.hint == whole.value.hint


def test_one_wrong_value_among_right_ones_is_not_dropped() -> None:
    with pytest.raises(ConfigError, match="ttl"):
        plain_request.request({"timeout": "5m", "ttl": "soon", "name": "x"})


def test_a_copy_has_other_values() -> None:
    plain = plain_request.request({"name": "x"})
    copy = plain.model_copy(update={"caches": ("y",)})
    assert (copy.name, copy.caches, plain.caches) == ("x", ("y",), ())


@pytest.mark.parametrize("name", [*BuildRequest.model_fields, "nothing"])
def test_units_are_those_of_the_fields(name: str) -> None:
    assert plain_request.unit(name) == config_section.unit(BuildRequest, name)
