"""What may be wrong about Compute Engine: said with what, where and the fix, before anything is
launched."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.support.gce import Google, make_order
from tests.support.gce import gce as gce  # the fixture
from vmrunner.errors import BadOrder, ConfigError, CredentialsRefused
from vmrunner.model import Spec


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"project": None}, "project: none"),
        ({"project": "Acme"}, "project: 'Acme'"),
        ({"zones": ("europe-west1",)}, "zones: 'europe-west1'"),
        ({"machine_types": ()}, "machine_types"),
        ({"api_endpoint": "127.0.0.1:1"}, "api_endpoint: '127.0.0.1:1'"),
        ({"labels": {"vmrunner-role": "x"}}, "labels: 'vmrunner-role'"),
        ({"labels": {"Team": "x"}}, "labels: 'Team'"),
        ({"labels": {"team": "A B"}}, r"labels\.team: 'A B'"),
        ({"labels": {f"k{n}": "" for n in range(60)}}, "labels: 60 of them"),
    ],
)
def test_an_impossible_value_is_named_before_anything_is_asked(
    gce: Google, values: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=rf"providers\.google\.{named}") as raised:
        gce.provider(**values)
    assert raised.value.hint
    assert gce.cloud.requests == []


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"zones": ()}, r"providers\.google\.zones: none"),
        ({"image": "family/nothing"}, "image family/nothing"),
        ({"image": "not an image"}, "image 'not an image'"),
        ({"machine_types": ("z9-huge",)}, r"providers\.google\.machine_types: none of z9-huge"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_launched(
    gce: Google, values: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadOrder, match=named) as raised:
        gce.provider(**values).offers(Spec())
    assert raised.value.hint
    assert gce.cloud.machines == []


def test_no_credentials(gce: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    """To an endpoint with TLS only real ones go, and there are none."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")
    provider = gce.provider(api_endpoint="https://127.0.0.1:9")
    with pytest.raises(CredentialsRefused) as raised:
        provider.offers(Spec())
    assert "gcloud auth application-default login" in raised.value.hint
    assert provider.scopes == frozenset()


def test_long_user_data_is_refused_and_binary_is_encoded(gce: Google) -> None:
    provider = gce.provider()
    order = make_order(provider)
    with pytest.raises(BadOrder, match="a value takes 262144"):
        provider.create(replace(order, user_data=b"#" * 300_000))
    assert gce.cloud.machines == []
    provider.create(replace(order, user_data=b"\x1f\x8b\xff"))
    (body,) = [json.loads(r.body) for r in gce.cloud.requests if r.action == "instances.insert"]
    metadata = {item["key"]: item["value"] for item in body["metadata"]["items"]}
    assert (metadata["user-data"], metadata["user-data-encoding"]) == ("H4v/", "base64")
