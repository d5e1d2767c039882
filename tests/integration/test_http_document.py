"""The OpenAPI document: what a client that is made of it has to know."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import jsonschema_rs
import openapi_spec_validator
import pytest

from tests.support.documents import closed
from tests.support.http_service import Service
from vmrunner.server import api_document
from vmrunner.server.routes import answers

ROOT = Path(__file__).parents[2]
API = "/api/v1"
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def test_the_document_tells_of_tokens_and_problems(http: Service) -> None:
    client = http.client()
    document = client.get(f"{API}/openapi.json").json()
    schemas = document["components"]["schemas"]
    (name,) = document["components"]["securitySchemes"]
    assert document["security"] == [{name: []}]
    assert document["paths"][f"{API}/token"]["post"]["security"] == [], "it needs none"
    for path, item in document["paths"].items():
        for operation in item.values():
            for status, answer in operation["responses"].items():
                if not status.startswith(("2", "3")):
                    assert answer["content"] == PROBLEM, (path, status)
            assert {"401", "403", "503", "default"} <= operation["responses"].keys(), path
    for body in ({}, {"steps": 5, "timeot": 1}, {"steps": ["x"], "name": "../x"}):
        answer = client.post(f"{API}/builds", json=body)
        assert answer.headers["content-type"] in PROBLEM
        jsonschema.validate(answer.json(), schemas["Problem"])
    assert not any("ValidationError" in name for name in schemas)


def test_the_document_in_docs_is_the_served_one(http: Service) -> None:
    file = ROOT / "docs/openapi.json"
    written = file.read_text()
    assert written == api_document.text(), f"run python -m vmrunner.server.api_document {file}"
    assert json.loads(written) == http.client("").get(f"{API}/openapi.json").json()


def test_the_document_lists_the_websockets(http: Service) -> None:
    """OpenAPI has none: each is listed beside the paths, with its protocol."""
    document, client = http.client("").get(f"{API}/openapi.json").json(), http.client()
    listed = document["x-websockets"]
    assert not listed.keys() & document["paths"].keys()
    build = client.post(f"{API}/builds", json={"steps": ["say x"]}).json()["items"][0]["id"]
    sandbox = client.post(f"{API}/sandboxes", json={}).json()["items"][0]["id"]
    assert len(listed) == 4
    for path, socket in listed.items():
        assert all(socket.values())
        kind = "terminal" if "terminal" in path else "port"
        assert socket["subprotocol"] == f"vmrunner.{kind}.v1"
        answer = client.get(path.format(build=build, sandbox=sandbox, port=80))
        assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket"), path


def test_the_document_is_complete(http: Service) -> None:
    document = json.loads((ROOT / "docs/openapi.json").read_text())
    openapi_spec_validator.validate(document)
    operations = [
        (path, operation) for path, item in document["paths"].items() for operation in item.values()
    ]
    names = [operation["operationId"] for _, operation in operations]
    assert len(set(names)) == len(names)
    assert {"submit_build", "list_builds", "show_build", "cancel_build", "read_log"} < set(names)
    assert document["servers"]
    assert document["info"]["license"]["identifier"] == "Apache-2.0"
    assert document["info"]["contact"]
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    for path, operation in operations:
        assert set(operation["tags"]) <= tags, path
        for status, answer in operation["responses"].items():
            assert "X-Request-Id" in answer["headers"], (path, status)
            assert status == "304" or all(c["schema"] for c in answer["content"].values()), path
            if status in ("429", "503"):
                assert "Retry-After" in answer["headers"], (path, status)


def test_each_parameter_is_described() -> None:
    document = json.loads(api_document.text())
    plain = [
        (operation["operationId"], parameter["name"])
        for item in document["paths"].values()
        for operation in item.values()
        for parameter in operation.get("parameters", ())
        if not parameter.get("description", "")
    ]
    assert plain == []
    assert all(schema.get("description") for schema in document["components"]["schemas"].values())


@pytest.mark.parametrize("name", ["nightly", "nightly*"])
def test_names_that_are_taken_match_the_document(http: Service, name: str) -> None:
    listed = json.loads(api_document.text())["paths"][f"{API}/builds"]["get"]["parameters"]
    (schema,) = [parameter["schema"] for parameter in listed if parameter["name"] == "name"]
    jsonschema.validate(name, schema)
    assert http.client().get(f"{API}/builds", params={"name": name}).status_code == 200


def test_examples_of_bodies_are_taken(http: Service) -> None:
    document = api_document.text()
    for item in json.loads(document)["paths"].values():
        for operation in item.values():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is not None:
                name = content["schema"]["$ref"].rpartition("/")[2]
                (kind,) = [kind for kind in answers.BODIES if kind.__name__ == name]
                kind.model_validate(content["example"])


def test_examples_of_documents_are_as_their_schemas() -> None:
    """Each has all fields that such a document always has, and none that it never has."""
    components = json.loads(api_document.text())["components"]
    shown = {
        name: schema["examples"]
        for name, schema in components["schemas"].items()
        if "examples" in schema
    }
    assert {
        "BuildDocument", "BuildPage", "CostPage", "InstancePage", "PoolPage", "Problem",
        "SandboxPage",
    } <= shown.keys()  # fmt: skip
    for name, examples in shown.items():
        schema = {"$ref": f"#/components/schemas/{name}", "components": closed(components)}
        validator = jsonschema_rs.validator_for(schema, validate_formats=True)
        for example in examples:
            assert [str(error) for error in validator.iter_errors(example)] == [], name


def test_an_audit_by_a_body_is_in_the_document(http: Service) -> None:
    client = http.client()
    document = client.get(f"{API}/openapi.json").json()
    schema = document["paths"][f"{API}/audit"]["post"]["requestBody"]["content"]["application/json"]
    name = schema["schema"]["$ref"].rpartition("/")[2]
    words = document["components"]["schemas"][name]["properties"].keys()
    assert words == {"provider", "tag", "older_than"}
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    nothing = {"provider": None, "tag": None, "older_than": None}
    for body in (
        {}, {"provider": "fake"}, {"tag": "team=ci", "older_than": "6h"}, {"tag": None}, nothing,
    ):  # fmt: skip
        jsonschema.validate(body, schema)
        answer = client.post(f"{API}/audit", json=body)
        assert (answer.status_code, answer.json()["kind"]) == (200, "survivor"), answer.text
    assert client.post(f"{API}/audit").status_code == 200


def test_a_body_that_the_document_forbids_is_refused(http: Service) -> None:
    schemas, client = json.loads(api_document.text())["components"], http.client()
    build = {"steps": ["say x"]}
    for name, path, body, field in (
        ("AuditBody", "audit", {"tag": "team=ci"}, "older_than: missing beside tag"),
        ("AuditBody", "audit", {"older_than": "6h"}, "tag: missing beside older_than"),
        ("AuditBody", "audit", {"older_than": "6h", "tag": None}, "tag"),
        ("BuildBody", "builds", {**build, "env": {"1A": "x"}}, "env"),
        ("BuildBody", "builds", {**build, "secrets": {"A-B": "x"}}, "secret"),
        ("BuildBody", "builds", {"steps": [{"run": "say x", "env": {"A B": "x"}}]}, "steps"),
        ("BuildBody", "builds", {"steps": [{"run": "x", "argv": ["x"]}]}, "steps"),
        ("BuildBody", "builds", {"steps": [{"name": "x"}]}, "steps"),
        ("BuildBody", "builds", {"steps": [{"argv": None}]}, "steps"),
        ("BuildBody", "builds", {"steps": [{"argv": [""]}]}, "steps"),
        ("BuildBody", "builds", {**build, "network": {"allow": ["1.2.3.4"]}}, "network"),
        ("SandboxBody", "sandboxes", {"network": "allow=0"}, "network"),
        ("SandboxBody", "sandboxes", {"network": "allow=a.example,b.example:22"}, "network"),
        ("SandboxBody", "sandboxes", {"env": {"": "x"}}, "env"),
        ("ReapBody", "reap", {"provider": ""}, "provider"),
        ("AuditBody", "audit", {"provider": ""}, "provider"),
    ):
        schema = {"$ref": f"#/components/schemas/{name}", "components": schemas}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(body, schema)
        answer = client.post(f"{API}/{path}", json=body)
        assert answer.status_code == 422, (name, body)
        assert answer.json()["detail"].startswith(field), answer.text
    ours = {**build, "env": {"_A1": "x"}, "secrets": {"b": "x"}}
    for more in (
        {"steps": [{"run": "say x", "argv": None}, {"run": None, "argv": ["say", ""]}]},
        {"network": "allow=*.a.example,b.example:8443"},
        {"network": {"allow": ["bücher.example", "a.3com", "b.example:522"]}},
    ):
        body = {**ours, **more}
        jsonschema.validate(body, {"$ref": "#/components/schemas/BuildBody", "components": schemas})
        answer = client.post(f"{API}/builds", json=body, params={"dry_run": True})
        assert answer.status_code == 200, answer.text


def test_an_audit_names_fields_of_the_request(http: Service) -> None:
    """Who asks over HTTP has no options of a command line."""
    client = http.client()
    for words, field in (
        ({"tag": "team=ci"}, "older_than"),
        ({"older_than": "6h"}, "tag"),
        ({"tag": "team", "older_than": "6h"}, "tag"),
        ({"tag": "team=ci", "older_than": "soon"}, "older_than"),
    ):
        for answer in (
            client.get(f"{API}/audit", params=words), client.post(f"{API}/audit", json=words),
        ):  # fmt: skip
            problem = answer.json()
            assert (answer.status_code, problem["field"]) == (422, field), answer.text
            assert "--" not in problem["detail"] + problem["fix"], answer.text


def test_what_a_body_says_is_refused_in_a_query(http: Service) -> None:
    """Or `?dry_run=true` would kill."""
    for path in (
        "reap?dry_run=true",
        "reap?provider=fake",
        "audit?provider=fake",
        "drain?off=true",
        "pools/fast/resize?size=1",
        "sandboxes?max_ttl=1h",
    ):
        answer = http.client().post(f"{API}/{path}")
        field = answer.json()["field"]
        assert (answer.status_code, field) == (422, path.partition("?")[2].partition("=")[0])
    assert http.app.ledger.actions.latest() == []


@pytest.mark.parametrize("path", ["audit", "reap"])
@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ('{"x": 1}', 422, "x"),
        ('{"provider": 5}', 422, "provider"),
        ("[]", 422, None),
        ("{", 400, None),
    ],
)
def test_a_bad_body_is_refused_by_audit_and_reap(
    http: Service, path: str, body: str, status: int, field: str | None
) -> None:
    answer = http.client().post(f"{API}/{path}", content=body)
    assert (answer.status_code, answer.json()["field"]) == (status, field)
