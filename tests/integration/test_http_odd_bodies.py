"""What JSON can say and nothing else can, and cursors of nowhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.support import api_answers
from tests.support.http_service import Service, only, service
from vmrunner.config.jobfile import JobArtifact, JobStep
from vmrunner.server.build_body import BuildBody, SandboxBody

API = "/api/v1"


@pytest.fixture
def http(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path) as found:
        yield found


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("token", {"jwt": "\ud800"}, "jwt"),
        ("builds", {"steps": ["x"], "name": "\ud800"}, "name"),
        ("builds", {"steps": ["x", "\udfff"]}, "steps[1]"),
        ("builds", {"steps": [{"run": "x", "env": {"A": "\ud800"}}]}, "steps[0].env.A"),
        ("builds", {"steps": ["x"], "timeout": "\ud800"}, "timeout"),
        ("builds", {"steps": ["x"], "labels": {"\ud800": "x"}}, "labels"),
        ("builds", {"steps": ["x"], "\ud800": "x"}, "the body"),
        ("sandboxes", {"provider": "\ud800"}, "provider"),
        ("reap", {"provider": "\ud800"}, "provider"),
        ("drain", {"off": "\ud800"}, "off"),
    ],
)
def test_half_a_surrogate_is_told_with_its_field(
    http: Service, path: str, body: dict[str, Any], field: str
) -> None:
    """No answer could repeat it, and no ledger hold it."""
    answer = http.client().post(f"{API}/{path}", content=json.dumps(body))
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["detail"] == f"{field}: it is not UTF-8"
    assert problem["fix"]
    assert problem["field"] in (field, None)


def test_a_page_after_nothing_is_refused(http: Service) -> None:
    """It would be the first page again, or an empty one."""
    for path in ("builds?after=x", "instances?after="):
        answer = http.client().get(f"{API}/{path}")
        assert (answer.status_code, answer.json()["field"]) == (422, "after"), path


def test_no_route_overlooks_a_parameter(http: Service) -> None:
    """`?dry_run=true` at a route that has none ended a VM."""
    client = http.client()
    for path, item in api_answers.document()["paths"].items():
        for method, operation in item.items():
            answer = client.request(method, re.sub(r"{\w+}", "x", path), params={"nowhere": "1"})
            assert answer.status_code == 422, f"{method} {path}: {answer.text}"
            needed = {at["name"] for at in operation["parameters"] if at.get("required")}
            assert answer.json()["field"] in {"nowhere", *needed}, answer.text


@pytest.mark.parametrize("words", [{"params": {"dry_run": "true"}}, {"json": {"dry_run": True}}])
def test_what_ends_or_removes_overlooks_nothing(http: Service, words: dict[str, Any]) -> None:
    client = http.client()
    build = only(client.post(f"{API}/builds", json={"steps": ["say x"]}))["id"]
    vm = http.ended(build)._row.instance
    for path in (f"instances/{vm}/destroy", f"builds/{build}/remove", "caches/c-1/remove"):
        answer = client.post(f"{API}/{path}", **words)
        assert (answer.status_code, answer.json()["field"]) == (422, "dry_run"), answer.text
    assert client.get(f"{API}/builds/{build}/logs").content == b"x\n"


def test_a_field_is_named_as_the_body_has_it(http: Service) -> None:
    values = {"ttl": "5m", "max_ttl": "4m"}
    problem = http.client().post(f"{API}/sandboxes", json=values).json()
    assert (problem["field"], problem["value"]) == ("max_ttl", "4m")


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("builds", {}),
        ("builds", {"registry_secret": "LOGIN"}),
        ("builds", {"bootstrap": True, "network": "none"}),
        ("builds", {"container_runtime": "runsc", "docker": True}),
        ("builds", {"container_runtime": "runsc", "privileged": True}),
        ("builds", {"container_runtime": "runsc", "caches": [{"path": "/c", "key": "k"}]}),
        ("builds", {"caches": [{"path": "/c", "key": "{hash:x}"}]}),
        ("builds", {"keep_on_failure": "0s", "env": {"A": "1"}, "secrets": {"A": "2"}}),
        ("builds", {"timeout": "1h", "ttl": "30m", "memory": "1", "provider": "x"}),
        ("sandboxes", {"container_runtime": "runsc"}),
        ("sandboxes", {"ttl": "5m", "max_ttl": "4m", "env": {"A": "1"}, "secrets": {"A": "2"}}),
    ],
)
def test_a_problem_names_no_flag_of_the_command_line(
    http: Service, path: str, values: dict[str, Any]
) -> None:
    steps = {"steps": ["true"]} if path == "builds" and values else {}
    answer = http.client().post(f"{API}/{path}", json={**steps, **values})
    problem = answer.json()
    assert answer.status_code == 422, problem
    fields = BuildBody.model_fields.keys() | SandboxBody.model_fields.keys()
    for fault in [problem, *problem.get("errors", ())]:
        assert fault["field"].partition("[")[0] in fields, fault
        assert fault["fix"], fault
        assert not re.search(r"(?<!\w)-{1,2}[a-z]| -- |CONFIG", f"{fault['detail']} {fault['fix']}")


@pytest.mark.parametrize(("path", "kind"), [("builds", BuildBody), ("sandboxes", SandboxBody)])
def test_null_is_what_was_not_said(http: Service, path: str, kind: type[BaseModel]) -> None:
    """A client made from the document sends it for each field that it leaves alone."""
    step = dict.fromkeys(JobStep.model_fields) | {"run": "true"}
    artifact = dict.fromkeys(JobArtifact.model_fields) | {"path": "dist"}
    lists: dict[str, Any] = {"steps": [step], "artifacts": [artifact]} if path == "builds" else {}
    url = f"{API}/{path}?dry_run=true"
    plain = http.client().post(url, json={} if path == "sandboxes" else {"steps": ["true"]})
    assert plain.is_success, plain.text
    for name in kind.model_fields.keys() - {"steps"}:
        answer = http.client().post(url, json={**lists, name: None})
        assert answer.status_code == plain.status_code, (name, answer.text)
    answer = http.client().post(url, json={**dict.fromkeys(kind.model_fields), **lists})
    assert answer.status_code == plain.status_code, answer.text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"steps": None}, "steps"),
        ({"steps": ["true"], "nmae": None}, "nmae"),
        ({"steps": ["true", None]}, "steps[1]"),
        ({"steps": [{"run": "true", "uses": None}]}, "steps[0].uses"),
        ({"steps": ["true"], "env": {"A": None}}, "env.A"),
    ],
)
def test_null_hides_no_wrong_name_and_no_value(
    http: Service, body: dict[str, Any], field: str
) -> None:
    answer = http.client().post(f"{API}/builds", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field
