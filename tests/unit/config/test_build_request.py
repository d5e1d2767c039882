"""What a request refuses when it is made, whoever makes it, and what it shows."""

from __future__ import annotations

from typing import Any

import pytest

from vmrunner.config.build_request import BuildRequest
from vmrunner.config.plain_request import unit
from vmrunner.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"timeuot": "3m"}, "timeuot: no such option (did you mean 'timeout'?)"),
        ({"cpus": "2"}, "cpus: '2' is not a whole number (such as 1)"),
        ({"retry_on_loss": 1}, "retry-on-loss: 1 is neither true nor false (write one of the two)"),
        ({"queue_timeout": "x"}, "queue-timeout: 'x' is not a duration (write it like 30m"),
        (
            {"network": "some"},
            "network: no policy 'some' (one of: open, none, allow=HOST[:PORT],…)",
        ),
        ({"image": "\ud800"}, "image: '\\ud800' is not UTF-8 (pass it as a file)"),
        ({"secrets": ["TOKEN"]}, "secrets: not a mapping (secrets={'NAME': b'VALUE'})"),
        ({"secrets": {"TOKEN": "hunter2"}}, "secret: the value of 'TOKEN' is not bytes"),
        ({"secrets": {"TOKEN": b"hunter2\0"}}, "secret: TOKEN is larger than 64 KiB or holds a"),
    ],
)
def test_a_refusal_is_one_line_with_field_value_and_fix(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        BuildRequest(**values)
    assert str(caught.value).startswith(message)
    assert caught.value.hint
    assert "hunter2" not in str(caught.value)


def test_numbers_have_the_unit_of_their_field() -> None:
    request = BuildRequest(ttl="1h30m", memory="4GiB")
    assert (request.ttl, unit("ttl")) == (5400, "seconds")
    assert (request.memory, unit("memory")) == (4 << 30, "bytes")
    assert unit("cpus") == unit("steps") == unit("runtime") == ""


def test_neither_a_secret_nor_a_password_is_shown() -> None:
    request = BuildRequest(secrets={"TOKEN": b"hunter2"}, source="git+https://me:hunter2@h/r")
    assert "hunter2" not in repr(request)


def test_a_request_never_changes() -> None:
    request = BuildRequest(name="a")
    with pytest.raises(ValueError, match="frozen"):
        request.name = "b"
    strong = request.of_file({"cpus": "F:1: "}, ["it"])
    assert (request.locations, request.host_uses) == ({}, ())
    assert BuildRequest(cpus=2).over(strong).locations == {}
    assert BuildRequest().over(strong).locations == {"cpus": "F:1: "}
