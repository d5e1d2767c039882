"""The ways of an answer: by HEAD, packed, or not at all where the caller has it; names of requests;
keys in the head; documents that are sent again."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import httpx2
import pytest

from tests.support.http_service import Service, only
from tests.support.pools import POOL
from tests.support.scripted_app import wait_until
from vmrunner.cli.output import JsonFormatter, PlainFormatter
from vmrunner.errors import LedgerError
from vmrunner.server import problems

API = "/api/v1"
OPTIONS = [
    "container", "container_runtime", "provider", "image", "bootstrap", "docker",
    "registry_secret", "privileged", "env", "labels", "timeout", "ttl", "queue_timeout",
    "keep_on_failure", "keep_logs", "network", "cpus", "memory", "disk", "spot",
    "retry_on_loss", "priority", "artifacts", "caches", "steps",
]  # fmt: skip


def made(http: Service, **body: Any) -> dict[str, Any]:
    return only(http.client().post(f"{API}/builds", json={"steps": ["true"], **body}))


# --- the document ---------------------------------------------------------------------------------


def test_the_document_is_open_packed_and_made_once(http: Service) -> None:
    client = http.client("")
    plain = client.get(f"{API}/openapi.json", headers={"Accept-Encoding": "identity"})
    assert (plain.status_code, plain.headers["content-type"]) == (200, "application/json")
    packed = client.get(f"{API}/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(plain.content) / 10
    assert packed.content == plain.content
    seen = {"If-None-Match": plain.headers["etag"]}
    assert client.get(f"{API}/openapi.json", headers=seen).status_code == 304
    assert client.head(f"{API}/openapi.json").status_code == 200


# --- what is polled -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["builds", "builds/{id}", "sandboxes", "pools", "instances"])
def test_what_is_as_it_was_is_not_sent_again(http: Service, path: str) -> None:
    build = made(http)["id"]
    http.ended(build)
    client = http.client()
    path = f"{API}/{path.format(id=build)}"
    name = client.get(path).headers["etag"]
    for seen in (name, name.removeprefix("W/"), f'"other", {name}', "*"):
        again = client.get(path, headers={"If-None-Match": seen})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", name)
        assert "content-type" not in again.headers
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    tenants = http.tenant(team="z").get(path, headers={"If-None-Match": '"other"'})
    assert tenants.headers.get("etag") != name or tenants.json()["items"] == []


def test_a_changed_build_is_sent_again(http: Service) -> None:
    build = made(http)["id"]
    client = http.client()
    name = client.get(f"{API}/builds/{build}").headers["etag"]
    client.post(f"{API}/builds/{build}/cancel", json={})
    http.ended(build)
    again = client.get(f"{API}/builds/{build}", headers={"If-None-Match": name})
    assert (again.status_code, only(again)["state"]) == (200, "finished")


# --- packed ---------------------------------------------------------------------------------------


def coding(answer: httpx2.Response) -> str | None:
    return answer.headers.get("content-encoding")


def test_json_comes_packed_to_who_likes_it(http: Service) -> None:
    build = made(http, env={"A": "x" * 2000})["id"]
    http.ended(build)
    client = http.client()
    path = f"{API}/builds/{build}"
    packed, plain = (
        client.get(path, headers={"Accept-Encoding": word}) for word in ("gzip, br", "identity")
    )
    assert (coding(packed), coding(plain)) == ("gzip", None)
    assert packed.json() == plain.json()
    assert packed.headers["etag"] == plain.headers["etag"], "it is weak"
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    for refused in ("gzip;q=0", "gzip; q=0.0", "br", ""):
        assert coding(client.get(path, headers={"Accept-Encoding": refused})) is None


def test_the_document_varies_once(http: Service) -> None:
    client = http.client("")
    for method in ("GET", "HEAD"):
        for more in (
            {"Accept-Encoding": "identity"}, {"Accept-Encoding": "gzip"}, {"If-None-Match": "*"},
        ):  # fmt: skip
            answer = client.request(method, f"{API}/openapi.json", headers=more)
            assert answer.headers.get_list("vary") == ["Accept-Encoding"], (method, more)


def test_bytes_problems_pages_and_browsers_are_not_packed(http: Service) -> None:
    """A page of another site makes a browser ask with its cookie, and sees how much comes back."""
    build = made(http, env={"A": "x" * 2000}, steps=["hex " + "61" * 2000])["id"]
    http.ended(build)
    client = http.client()
    assert coding(client.get(f"{API}/builds/{build}")) == "gzip"
    for path in (f"{API}/builds/{build}/logs", f"{API}/builds/b-nope", f"/builds/{build}", "/vms"):
        assert coding(client.get(path)) is None, path
    browser = http.client("")
    assert browser.post("/login", data={"token": http.token()}).status_code in (200, 303)
    shown = browser.get(f"{API}/builds/{build}")
    assert (shown.status_code, coding(shown)) == (200, None)


# --- HEAD, 405 ------------------------------------------------------------------------------------


def test_head_tells_what_get_would(http: Service) -> None:
    steps = ["artifact a x", "hex 6161"]
    build = made(http, steps=steps, artifacts=["**"])["id"]
    http.ended(build)
    client = http.client()
    for path in (
        f"builds/{build}/artifacts/a", f"builds/{build}/artifacts", f"builds/{build}/logs",
        f"builds/{build}", "builds", "nodes",
    ):  # fmt: skip
        got, head = client.get(f"{API}/{path}"), client.head(f"{API}/{path}")
        assert (head.status_code, head.content) == (200, b""), path
        for name in ("content-type", "etag", "accept-ranges", "content-disposition"):
            assert head.headers.get(name) == got.headers.get(name), (path, name)
    part = client.head(f"{API}/builds/{build}/logs", headers={"Range": "bytes=0-1"})
    assert (part.status_code, part.headers["content-length"]) == (206, "2")
    assert client.head(f"{API}/builds/b-nope").status_code == 404
    assert http.client("").head(f"{API}/builds").status_code == 401


def test_head_of_what_is_followed_ends_at_once(http: Service) -> None:
    build = made(http, steps=["wait"])["id"]
    client = http.client(timeout=10)
    for _ in range(3 * http.parts.settings().server.streams):
        answer = client.head(f"{API}/builds/{build}/logs", headers={"Accept": "text/event-stream"})
        assert (answer.status_code, answer.content) == (200, b"")
    wait_until(lambda: not http.listener.app.state.stream_slots._busy)


def test_another_method_is_told_all_that_there_are(http: Service) -> None:
    client = http.client()
    for method, path, allowed in (
        ("PATCH", "builds", {"GET", "HEAD", "POST"}),
        ("OPTIONS", "builds", {"GET", "HEAD", "POST"}),
        ("DELETE", "builds/b-1", {"GET", "HEAD"}),
        ("HEAD", "drain", {"POST"}),
        ("POST", "sandboxes/b-1/files", {"GET", "HEAD", "PUT", "DELETE"}),
    ):
        answer = client.request(method, f"{API}/{path}")
        assert answer.status_code == 405, path
        assert set(answer.headers["allow"].split(", ")) == allowed, path


# --- names of requests ----------------------------------------------------------------------------


def test_a_request_keeps_its_name_in_answer_and_problem(http: Service) -> None:
    client = http.client()
    for path, status in (("builds", 200), ("builds/b-nope", 404), ("builds?x=1", 422)):
        answer = client.get(f"{API}/{path}", headers={"X-Request-Id": "ci-7.a_B"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (status, "ci-7.a_B")
        assert status == 200 or answer.json()["request_id"] == "ci-7.a_B"
    refused = http.client("").get(f"{API}/builds", headers={"X-Request-Id": "me"})
    assert (refused.status_code, refused.json()["request_id"]) == (401, "me")


@pytest.mark.parametrize(
    "request_id", ["", "a b", "x" * 129, "a\x1b[2J", '"a"', "ä", "a,b", "../x"]
)
def test_a_name_that_harms_a_log_is_replaced(http: Service, request_id: str) -> None:
    client = http.client()
    answers = [
        client.get(f"{API}/builds/b-nope", headers={"X-Request-Id": request_id.encode("latin-1")})
        for _ in range(2)
    ]
    names = {answer.headers["x-request-id"] for answer in answers}
    assert request_id not in names
    assert len(names) == 2
    assert {answer.json()["request_id"] for answer in answers} == names


def test_the_log_has_the_name_of_the_request(
    http: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise LedgerError("the ledger is away")

    def broken(*_: Any) -> None:
        raise RuntimeError("nobody foresaw it")

    lines, plain = io.StringIO(), io.StringIO()
    handlers = [logging.StreamHandler(lines), logging.StreamHandler(plain)]
    handlers[0].setFormatter(JsonFormatter())
    handlers[1].setFormatter(PlainFormatter("%(message)s"))
    for handler in handlers:
        problems.log.addHandler(handler)
    client = http.client()
    try:
        for name, fails, status in (("r-1", away, 503), ("r-2", broken, 500)):
            monkeypatch.setattr(http.app.ledger.builds, "find", fails)
            answer = client.get(f"{API}/builds/b-1", headers={"X-Request-Id": name})
            assert (answer.status_code, answer.json()["request_id"]) == (status, name)
            assert answer.headers["x-request-id"] == name
    finally:
        for handler in handlers:
            problems.log.removeHandler(handler)
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [record["request"] for record in found] == ["r-1", "r-2"]
    assert "[request r-1]" in plain.getvalue()


# --- keys in the head -----------------------------------------------------------------------------


def test_an_idempotency_key_may_stand_in_the_head(http: Service) -> None:
    client = http.client()

    def submit(path: str, key: str, body: dict[str, Any]) -> httpx2.Response:
        return client.post(f"{API}/{path}", json=body, headers={"Idempotency-Key": key})

    for path, body in (("builds", {"steps": ["true"]}), ("sandboxes", {})):
        first = submit(path, f"k-{path}", body)
        again = submit(path, f'"k-{path}"', {**body, "idempotency_key": f"k-{path}"})
        assert (first.status_code, again.status_code) == (201, 200), again.text
        assert only(first)["id"] == only(again)["id"]
        assert only(first)["idempotency_key"] == f"k-{path}"
        for key, sent in (
            ("other", {**body, "idempotency_key": "k"}),
            ("", body),
            ("x" * 256, body),
        ):
            refused = submit(path, key, sent)
            assert refused.status_code == 422, (key, refused.text)
    other = submit("builds", "k-builds", {"steps": ["false"]})
    assert other.status_code == 409


def test_two_idempotency_keys_are_refused(http: Service) -> None:
    keys = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    refused = http.client().post(f"{API}/builds", json={"steps": ["true"]}, headers=keys)
    assert (refused.status_code, refused.json()["fix"]) == (422, "say one of them")
    assert http.runner.list() == []


@pytest.mark.parametrize(
    ("body", "field"),
    [('{"steps": ["true"], "steps": ["false"]}', "steps"), ('{"env": {"A": "1", "A": "2"}}', "A")],
)
def test_a_key_that_stands_twice_is_refused(http: Service, body: str, field: str) -> None:
    refused = http.client().post(f"{API}/builds", content=body)
    answer = refused.json()
    assert (refused.status_code, answer["field"], answer["fix"]) == (422, field, "say it once")
    assert http.runner.list() == []


# --- what is shown is sent again ------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
def test_a_build_as_it_is_shown_is_a_request(http: Service, whole: bool) -> None:
    client = http.client()
    body = {
        "steps": ["exit 3", {"argv": ["x"], "name": "last", "timeout": 5, "env": {"A": "b"}}],
        "labels": {"a": "b"}, "timeout": "20m", "network": "none", "memory": "1GiB",
        "artifacts": ["*.xml", {"path": "log", "always": True}], "priority": 3,
        "caches": [{"key": "k", "path": "/root/.cache"}], "retry_on_loss": True,
    }  # fmt: skip
    build = only(client.post(f"{API}/builds", json=body))["id"]
    http.ended(build)
    shown = only(client.get(f"{API}/builds/{build}"))
    sent = shown if whole else {name: shown[name] for name in OPTIONS}
    again = only(client.post(f"{API}/builds", json=sent))
    assert again["id"] != build
    first = only(client.get(f"{API}/builds/{again['id']}"))
    for name in OPTIONS:
        if name != "steps":
            assert first[name] == shown[name], name
    outcome = ("started_at", "ended_at", "exit_code")
    for step, other in zip(first["steps"], shown["steps"], strict=True):
        assert {k: v for k, v in step.items() if k not in outcome} == {
            k: v for k, v in other.items() if k not in outcome
        }


def test_a_long_script_as_it_is_shown_is_a_request(http: Service) -> None:
    client = http.client()
    build = made(http, steps=["exit 3 # " + "x" * 3000])["id"]
    http.ended(build)
    shown = only(client.get(f"{API}/builds/{build}"))
    assert client.post(f"{API}/builds?dry_run=true", json=shown).status_code == 200


def test_a_sandbox_as_it_is_shown_is_a_request(http: Service) -> None:
    client = http.client()
    body = {"ttl": "10m", "max_ttl": "30m", "env": {"A": "b"}, "labels": {"a": "b"}}
    first = only(client.post(f"{API}/sandboxes", json=body))
    shown = only(client.get(f"{API}/sandboxes/{first['id']}"))
    again = only(client.post(f"{API}/sandboxes", json=shown))
    assert again["id"] != first["id"]
    for name in ("ttl", "sandbox_ttl", "timeout", "network", "env", "labels", "container"):
        assert again[name] == first[name], name
    refused = client.post(f"{API}/builds", json=shown)
    assert (refused.status_code, refused.json()["field"]) == (422, "sandbox_ttl")


def test_words_of_a_document_are_not_overlooked_in_a_request(http: Service) -> None:
    """`instance` might be meant for a type of machine, `exit_code` for one to expect."""
    client = http.client()
    for body, field in (
        ({"steps": ["x"], "instance": "c7i.large"}, "instance"),
        ({"steps": ["x"], "id": "b-1"}, "id"),
        ({"steps": [{"run": "x", "exit_code": 1}]}, "steps.0.exit_code"),
        ({"steps": ["x"], "secrets": ["A"]}, "secrets"),
    ):
        answer = client.post(f"{API}/builds", json=body)
        assert (answer.status_code, answer.json()["field"].replace("[", ".").replace("]", "")) == (
            422,
            field,
        ), answer.text


# --- what the document allows ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("pools/fast/resize", '{"size": 3.0}'),
        ("builds?dry_run=true", '{"steps": ["x"], "cpus": 2.0, "memory": 1073741824.0}'),
    ],
)
def test_a_whole_number_may_be_written_with_a_point(http: Service, path: str, body: str) -> None:
    """To JSON Schema 128.0 is an integer."""
    http.app.ledger.pools.declare({"fast": POOL}, "e-1", 0.0)
    answer = http.client().post(f"{API}/{path}", content=body)
    assert answer.status_code == 200, answer.text
    wrong = http.client().post(f"{API}/{path}", content=body.replace(".0", ".5"))
    assert wrong.status_code == 422, wrong.text


def test_vms_beside_clouds_may_be_narrowed(http: Service) -> None:
    builds = [made(http)["id"] for _ in range(2)]
    for build in builds:
        http.ended(build)
    client = http.client()
    rows = client.get(f"{API}/instances").json()["items"]
    for query in ({"build": builds[0]}, {"state": "gone"}, {"after": rows[0]["id"]}):
        plain = client.get(f"{API}/instances", params=query).json()["items"]
        beside = client.get(f"{API}/instances", params={**query, "cloud": True}).json()["items"]
        assert [vm["id"] for vm in beside] == [vm["id"] for vm in plain] != [], query


def test_an_answer_is_sent_again_as_it_is(http: Service) -> None:
    client = http.client()
    shown = [only(client.post(f"{API}/builds", json={"steps": ["true"]})) for _ in range(2)]
    for path in (f"builds/{shown[0]['id']}", f"builds/{shown[0]['id']}?brief=true"):
        again = client.post(f"{API}/builds", json=client.get(f"{API}/{path}").json())
        assert again.status_code == 201, again.text
    refused = client.post(f"{API}/builds", json=client.get(f"{API}/builds").json())
    assert refused.status_code == 422
    assert refused.json()["field"] == "items"
    assert refused.json()["fix"] == "send one of them"
