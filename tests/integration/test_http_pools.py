"""What is wished of pools over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.http_service import Service
from tests.support.pools import POOL

API = "/api/v1"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("drain", {"x": 1}, "x"),
        ("pools/fast/drain", {"x": 1}, "x"),
        ("pools/fast/resize", {"size": 1, "x": 1}, "x"),
        ("pools/fast/resize", {"size": True}, "size"),
        ("pools/fast/resize", {"size": "2"}, "size"),
        ("pools/fast/resize", {}, "size"),
    ],
)
def test_a_wrong_wish_changes_no_pool(http: Service, path: str, body: Any, field: str) -> None:
    ledger = http.app.ledger
    ledger.pools.declare({"fast": POOL}, "e-1", 100.0)
    before = ledger.pools.all()
    answer = http.client().post(f"{API}/{path}", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert ledger.pools.all() == before
    assert [action.verb for action in ledger.actions.latest()] == ["configure"]


@pytest.mark.parametrize("body", [None, {}])
def test_a_pool_is_drained_without_a_body(http: Service, body: Any) -> None:
    http.app.ledger.pools.declare({"fast": POOL}, "e-1", 100.0)
    answer = http.client().post(f"{API}/pools/fast/drain", json=body)
    assert (answer.status_code, http.app.ledger.pools.all()[0].draining) == (200, True)
    assert http.client().post(f"{API}/pools/fast/resize", json={"size": 3}).status_code == 200
    assert http.app.ledger.pools.all()[0].size == 3
