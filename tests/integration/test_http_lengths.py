"""Lengths of what a body says: each is held before anything is parsed, and told with its field."""

from __future__ import annotations

import difflib
import json
import re
import sys
from typing import Any

import pytest

from tests.support.http_service import Service
from vmrunner.config import field_checks, network_policy
from vmrunner.lib import units
from vmrunner.server import body_lengths
from vmrunner.server.build_body import BuildBody, SandboxBody
from vmrunner.server.problems import HttpProblem

API = "/api/v1"
LONG = "1h" * 100_000
FIELDS = sorted({*BuildBody.model_fields, *SandboxBody.model_fields})


@pytest.fixture
def unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What parses fields refuses texts that are too long for it to be called with."""

    def guarded(parse: Any) -> Any:
        def parsed(value: Any, *more: Any, **options: Any) -> Any:
            assert not isinstance(value, str) or len(value) <= 1 << 16, "it was parsed"
            return parse(value, *more, **options)

        return parsed

    for module, name in (
        (units, "_duration"), (units, "_size"), (network_policy, "policy"),
        (field_checks, "container"), (field_checks, "build_name"), (difflib, "get_close_matches"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, guarded(getattr(module, name)))


@pytest.mark.usefixtures("unparsed")
@pytest.mark.parametrize("field", FIELDS)
def test_no_field_takes_a_text_without_end(http: Service, field: str) -> None:
    """Whatever it is: a field that comes later is met here too."""
    kind = "builds" if field in BuildBody.model_fields else "sandboxes"
    body = {"steps": ["say x"]} if kind == "builds" else {}
    answer = http.client().post(f"{API}/{kind}?dry_run=true", json={**body, field: LONG})
    assert answer.status_code == 422, answer.text[:200]
    assert len(answer.content) < 3000, "its value is cut"
    assert answer.json()["field"] == field
    assert answer.json()["fix"]


@pytest.mark.usefixtures("unparsed")
@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"steps": [{"argv": ["a"] * 200_000}]}, "steps"),
        ({"steps": [["a"] * 200_000]}, "steps"),
        ({"env": {f"A{n}": "" for n in range(100_000)}}, "steps"),
        ({"steps": [{"run": "x", "env": {f"A{n}": "" for n in range(100_000)}}]}, "steps"),
        ({"steps": [{"run": "x", "timeout": LONG}]}, "timeout"),
        ({"steps": [{"run": "x", "name": LONG}]}, "name"),
        ({"network": {"allow": [LONG]}}, "network"),
        ({"artifacts": ["a" * 513]}, "artifacts"),
        ({"labels": {f"a{n}": "" for n in range(1000)}}, "labels"),
        ({"labels": {LONG: "x"}}, "labels"),
        ({LONG: "x"}, "the body"),
        ({"steps": [{"run": "x", LONG: "x"}]}, "steps"),
        ({"steps": [{"run": "x", "env": {LONG: "x"}}]}, "steps"),
        ({"artifacts": [{"path": "x", LONG: "x"}]}, "artifacts"),
        ({"caches": [{"key": LONG, "path": "/x"}]}, "caches"),
        ({"caches": [{"key": "x", "path": "/" + LONG}]}, "caches"),
        ({"secrets": {f"A{n}": "x" * 9 for n in range(501)}}, "secret"),
        ({"secrets": {"A": "abc\n" * 4100}}, "secret"),
        ({"secrets": {"A": "abcd\r" * 4100}}, "secret"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_lists_and_tables_have_an_end(http: Service, values: dict[str, Any], field: str) -> None:
    answer = http.client().post(f"{API}/builds?dry_run=true", json={"steps": ["say x"], **values})
    assert answer.status_code == 422
    assert len(answer.content) < 6000
    assert field[:40] in answer.text


@pytest.mark.parametrize("odd", [None, 3, True, [None], {"allow": None}, {"x": None}, [[3]]])
def test_odd_shapes_are_no_error_of_ours(http: Service, odd: Any) -> None:
    for field in (*FIELDS, "network"):
        answer = http.client().post(f"{API}/builds?dry_run=true", json={"steps": ["x"], field: odd})
        assert answer.status_code in (200, 422), (field, answer.text)


def test_a_script_is_no_list_of_words(http: Service) -> None:
    """What people send is far below all of this; a script may be as long as a body."""
    values = {
        "steps": [{"run": "#" * 1_000_000}],
        "env": {f"A{n}": "x" * 100 for n in range(1000)},
        "secrets": {"KEY": "line\n" * 2000, **{f"S{n}": "x" * 40 for n in range(200)}},
        "artifacts": [f"dist/{n}/*.whl" for n in range(200)],
        "network": {"allow": [f"{n}.example.org" for n in range(100)]},
    }
    answer = http.client().post(f"{API}/builds?dry_run=true", json=values)
    assert answer.status_code == 200, answer.text[:300]


def test_no_secret_is_in_what_is_told(http: Service) -> None:
    for body in ({"secrets": "hunter2" * 100}, {"secrets": {"A": "hunter2\n" * 5000}}):
        answer = http.client().post(f"{API}/builds", json={"steps": ["say x"], **body})
        assert answer.status_code == 422
        assert "hunter2" not in answer.text


def test_each_length_is_of_a_field() -> None:
    assert body_lengths.LENGTHS.keys() <= set(FIELDS)
    assert re.fullmatch(r"\d+", str(body_lengths.TEXT))


def test_threads_take_turns_often_where_callers_are_served(http: Service) -> None:
    assert http.url
    assert sys.getswitchinterval() < 0.001
    assert HttpProblem(429, "x").status == 429
