"""A secret, as Docker is told it for a registry."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from vmrunner.config import registry_auth
from vmrunner.errors import ConfigError

PAIR = base64.b64encode(b"me:hunter2").decode()
PRIVATE = "registry.example.org/team/app:1"


def config(**auths: dict[str, str]) -> bytes:
    return json.dumps(
        {"auths": {name.replace("_", "."): login for name, login in auths.items()}}
    ).encode()


def header_of(image: str, secret: bytes) -> Any:
    return json.loads(base64.urlsafe_b64decode(registry_auth.header(image, secret)))


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("debian", "docker.io"),
        ("team/app", "docker.io"),
        ("index.docker.io/team/app", "docker.io"),
        ("localhost/app", "localhost"),
        ("host:5000/app", "host:5000"),
        ("ghcr.io/team/app@sha256:00", "ghcr.io"),
    ],
)
def test_the_registry_is_what_docker_takes_it_for(image: str, registry: str) -> None:
    assert registry_auth.registry_of(image) == registry


def test_a_pair_is_split_at_the_first_colon() -> None:
    assert header_of(PRIVATE, b"me:hunter2:x\n") == {
        "username": "me", "password": "hunter2:x", "serveraddress": "registry.example.org",
    }  # fmt: skip
    assert header_of("app", b"me:x")["serveraddress"] == "https://index.docker.io/v1/"
    assert registry_auth.hidden(PRIVATE, b"me:hunter2") == (b"hunter2",)


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ({"auth": PAIR}, {"username": "me", "password": "hunter2"}),
        ({"username": "me", "password": "hunter2"}, {"username": "me", "password": "hunter2"}),
        ({"identitytoken": "t", "auth": PAIR}, {"identitytoken": "t"}),
    ],
)
def test_a_docker_configuration_gives_the_entry_of_the_registry(
    entry: dict[str, str], part: dict[str, str]
) -> None:
    secret = config(other_example={"auth": "x"}, registry_example_org=entry)
    assert header_of(PRIVATE, secret).items() >= part.items()


def test_dockers_own_names_for_its_hub_are_known() -> None:
    secret = json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": PAIR}}}).encode()
    assert header_of("team/app", secret)["password"] == "hunter2"


@pytest.mark.parametrize(
    "secret",
    [b"hunter2", b":hunter2", b"me:", b"\xff:x", b'{"auths"', b"{}", b'{"auths": ["hunter2"]}',
     config(registry_example_org={"auth": "hunter2"}), config(elsewhere={"auth": PAIR})],
)  # fmt: skip
def test_a_refusal_repeats_nothing_of_it(secret: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^registry_secret: ") as caught:
        registry_auth.header(PRIVATE, secret)
    assert caught.value.hint
    assert "hunter2" not in str(caught.value)


def test_a_login_goes_to_its_own_registry_alone() -> None:
    ours = config(registry_example_org={"auth": PAIR}, other_example={"auth": "x"})
    made = registry_auth.login(PRIVATE, "f", config(elsewhere={"auth": "y"}), ours)
    secret = made["secrets"][made["registry_secret"]]
    assert header_of(PRIVATE, secret)["password"] == "hunter2"
    assert b"other" not in secret
    assert registry_auth.login("evil.example.org/x", "f", ours) == {}
    assert registry_auth.login(PRIVATE, "f") == {}
    for helped in (b'{"credsStore": "x"}', b'{"credHelpers": {}, "auths": {"%s": {}}}'):
        kept = helped.replace(b"%s", registry_auth.registry_of(PRIVATE).encode())
        assert registry_auth.login(PRIVATE, "f", kept) == {}, "a helper of elsewhere knows it"


@pytest.mark.parametrize("secret", [b"me:hunter2", b"[]", b'{"auth": 1}', b"\xff", b""])
def test_a_login_that_is_no_docker_configuration_is_named(secret: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^garm\.registry: no Docker configuration") as caught:
        registry_auth.login(PRIVATE, "garm.registry", secret)
    assert "hunter2" not in str(caught.value)
