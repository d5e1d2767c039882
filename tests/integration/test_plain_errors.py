"""Errors speak of what a person wrote: no word of Python or pydantic, wherever it was written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import core_schema

from tests.support.command_line import Cli
from tests.support.http_service import Service, only
from vmrunner.config import fault_words

API = "/api/v1"
#: What betrays the program below.
FOREIGN = re.compile(
    r"Value error|Assertion failed|[Ii]nput should|valid integer|unable to parse|pydantic"
    r"|Field required|\bNone\b|\bTrue\b|\bFalse\b|\b[A-Z]\w+(Error|Exception)\b|Traceback"
    r"|<class|NoneType|\bdict\b|\bstr\b|\btuple\b"
)

WORDS: list[list[str]] = [
    ["ps", "-o", "yaml"], ["ps", "--limit", "0"], ["ps", "--limit", "x"], ["ps", "--limit", "1.5"],
    ["ps", "--result", "x"], ["ps", "--state", "x"], ["ps", "--since", "x"], ["ps", "-l", "x"],
    ["costs", "-o", "csv"], ["costs", "--by", "team"], ["costs", "--since", "yesterday"],
    ["logs", "x", "--after", "-1"], ["run", "--dry-run", "--cpus", "two", "--", "true"],
    ["run", "--dry-run", "--cpus", "0", "--", "true"],
    ["run", "--dry-run", "--cpus", "1.5", "--", "true"],
    ["run", "--dry-run", "--priority", "high", "--", "true"],
    ["run", "--dry-run", "--memory", "lots", "--", "true"],
    ["run", "--dry-run", "--timeout", "nan", "--", "true"],
    ["run", "--dry-run", "--network", "None", "--", "true"],
    ["run", "--dry-run", "-o", "yaml", "--", "true"],
    ["pool", "resize", "x", "y"], ["token", "create", "x", "--scope", "read", "--builds", "0"],
    ["token", "create", "x", "--scope", "write"], ["image", "gc", "--keep", "x"],
    ["sandbox", "create", "--cpus", "x"], ["audit", "--older-than", "x"], ["cancel"], ["ps", "-o"],
    ["extend", "x", "-5m"], ["ps", "--netwrk"], ["sho", "x"],
    ["ps", "--limit", "9" * 30], ["vm", "ls", "--limit", "9" * 30],
    ["logs", "b-1", "--after", "9" * 30],
]  # fmt: skip


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_command_is_refused_in_plain_words(cli: Cli, words: list[str]) -> None:
    done = cli(*words)
    text = done.err.decode()
    assert done.code in (2, 125), text
    assert not FOREIGN.search(text.replace("'None'", "")), text
    assert re.fullmatch(r"vmrunner: error: .+ \(.+\)\n", text), text


QUERIES = [
    "builds?limit=0", "builds?limit=x", "builds?limit=1e9", "builds?after=x", "builds?mine=maybe",
    "builds?limit=99999999999999999999999", "builds?state=", "builds?label=x", "builds?nope=1",
    "instances?state=x", "instances?cloud=maybe", "instances?limit=-1", "actions?limit=0",
    "actions?limit=x", "caches?limit=x", "costs?since=x", "costs?by=x", "audit?older_than=x",
    "audit?tag=x", "builds/b-1/chunks?after_line=x", "builds/b-1/events?after=-1",
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_refused_in_plain_words(http: Service, query: str) -> None:
    client = http.client()
    build = only(client.post(f"{API}/builds", json={"steps": ["say x"]}))["id"]
    document = client.get(f"{API}/{query.replace('b-1', build)}").json()
    assert document["status"] == 422, document
    assert not FOREIGN.search(f"{document['detail']} {document['fix']}"), document
    assert document["fix"], document
    assert "^" not in document["fix"], document
    name, _, word = query.partition("?")[2].partition("=")
    missing = name in ("older_than", "tag") and document["field"] != name
    assert (document["field"], document["value"]) == (name, word) or missing, document


def test_the_value_that_is_wrong_is_told_of_several(http: Service) -> None:
    query = "result=failure&result=helt&result=timeout&since=24h"
    document = http.client().get(f"{API}/builds?{query}").json()
    assert (document["field"], document["value"]) == ("result", "helt")


@pytest.mark.parametrize(
    ("method", "path", "fix"),
    [
        ("PATCH", "builds", "one of: GET, POST, HEAD"),
        ("GET", "bulds", "/api/v1/openapi.json has all routes"),
    ],
)
def test_a_route_that_is_none_names_its_fix(
    http: Service, method: str, path: str, fix: str
) -> None:
    assert http.client().request(method, f"{API}/{path}").json()["fix"] == fix


@pytest.mark.parametrize("body", ["{", "steps=make", '{"steps": NaN}', "[]", "null"])
def test_what_is_no_json_is_told_plainly(http: Service, body: str) -> None:
    document = http.client().post(f"{API}/builds", content=body).json()
    assert document["status"] in (400, 422)
    assert "char" not in document["detail"]
    assert document["fix"] == 'such as {"steps": ["make"]}'


BODIES: list[dict[str, Any]] = [
    {"steps": None}, {"steps": 1}, {"steps": []}, {"steps": [None]}, {"steps": [1]},
    {"steps": [{"run": None}]}, {"steps": ["x"], "cpus": "two"}, {"steps": ["x"], "cpus": 0},
    {"steps": ["x"], "cpus": True}, {"steps": ["x"], "docker": "yes"}, {"steps": ["x"], "env": [1]},
    {"steps": ["x"], "env": {"A": None}}, {"steps": ["x"], "env": {"A": True}},
    {"steps": ["x"], "timeout": True}, {"steps": ["x"], "timeout": {}}, {"steps": ["x"], "name": 1},
    {"steps": ["x"], "network": 1}, {"steps": ["x"], "network": {"allow": None}},
    {"steps": ["x"], "artifacts": {"a": "b"}}, {"steps": ["x"], "artifacts": [None]},
    {"steps": ["x"], "labels": {"a": 1}}, {"steps": ["x"], "secrets": {"A": 1}},
    {"steps": ["x"], "memory": False}, {"steps": ["x"], "caches": [{"key": 1}]},
    {"steps": ["x"], "container": ["a"]}, {"steps": ["x"], "priority": 10**30}, {"step": ["x"]},
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=json.dumps)
def test_a_body_is_refused_in_plain_words(http: Service, body: dict[str, Any]) -> None:
    answer = http.client().post(f"{API}/builds?dry_run=true", json=body)
    document = answer.json()
    assert answer.status_code == 422, document
    for fault in (document, *document.get("errors", ())):
        assert not FOREIGN.search(f"{fault['detail']} {fault['fix']}"), fault


FILES = [
    ("jobs.yml", "version: 1\njobs: {t: {steps: x}}"),
    ("jobs.yml", "version: 1\njobs: {t: {steps: [x], cpus: true}}"),
    ("jobs.yml", "version: 1\njobs: {t: {steps: [x], container: }}"),
    ("jobs.yml", "version: 1\njobs: {t: {steps: [x], container: true}}"),
    ("jobs.yml", "version: '1'\njobs: {t: {steps: [x]}}"),
    ("jobs.yml", "version: 1\njobs: {t: {steps: [[]]}}"),
    ("jobs.yml", "version: 1\njobs: {t: {steps: [x], caches: [pip]}}"),
    ("jobs.yml", "version: 1\njobs: {t: {steps: [x], network: off}}"),
    ("c.toml", "[limits]\nmax_ttl = -1"),
    ("c.toml", "[limits]\nmax_instances = 0"),
    ("c.toml", "[limits]\nprivileged = 7"),
    ("c.toml", "[providers.x]\nkind = 'docker'"),
    ("c.toml", "[providers.x]\nkind = 'qemu'\naccel = 'hvf'"),
    ("c.toml", "[pools.x]\nsize = -1"),
    ("c.toml", "[pools.x]\nsize = 'many'"),
    ("c.toml", "[defaults]\nnetwork = true"),
    ("c.toml", "[defaults]\ntimeout = true"),
    ("c.toml", "[[budgets]]\nusd_per_day = -1"),
    ("c.toml", "[[budgets]]\nname = 'x'\nusd_per_day = 'much'"),
    ("c.toml", "[server]\nstreams = 1.5"),
    ("c.toml", "[[notify]]\nname = 1"),
]


@pytest.mark.parametrize(("name", "text"), FILES)
def test_a_file_is_refused_in_plain_words(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    (home / name).write_text(text)
    if name == "c.toml":
        monkeypatch.setenv("VMRUNNER_CONFIG", str(home / name))
        done = cli("config", "show")
    else:
        done = cli("run", "--dry-run", "-f", name)
    assert done.code in (2, 125), done
    assert not FOREIGN.search(done.err.decode().replace(str(home), "")), done.err


def test_each_kind_of_fault_has_words() -> None:
    """What is not in the table is told, and is never pydantic's."""

    class Row(BaseModel):
        whole: int
        real: float
        yes: bool
        text: str
        rows: list[str]
        table: dict[str, int]

    values = [None, "x", [], {}, 1.5, float("nan"), "", b"\xff", object(), 1 << 70, "1" * 5000]
    found: set[str] = set()
    for value in values:
        document = dict.fromkeys(Row.model_fields, value)
        for strict in (True, False):
            try:
                TypeAdapter(Row).validate_python(document, strict=strict)
            except ValidationError as error:
                faults = error.errors(include_url=False)
                found |= {fault["type"] for fault in faults}
                for fault in faults:
                    assert not FOREIGN.search(" ".join(fault_words.in_words(fault))), fault
    assert len(found) > 8
    kinds = set(get_args(core_schema.ErrorType))
    assert kinds >= set(fault_words._WORDS), set(fault_words._WORDS) - kinds
