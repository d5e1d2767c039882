"""What a caller may not: without a token, as another tenant, with a body that is made to harm."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.caches import save
from tests.support.http_service import ALL, OTHERS, Service, only, service
from vmrunner.errors import LedgerError
from vmrunner.model import CacheScope, Principal, TokenScope

API = "/api/v1"
METHODS = ("get", "post", "put", "delete")


@pytest.fixture
def http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("CANARY", "canary-of-the-environment")
    monkeypatch.chdir(tmp_path)
    with service(tmp_path) as found:
        yield found


def routes(http: Service) -> list[tuple[str, str]]:
    """Method and path of every route in the OpenAPI document."""
    document = http.client().get(f"{API}/openapi.json").json()
    return [
        (method, path)
        for path, item in document["paths"].items()
        for method in item
        if method in METHODS and path != f"{API}/token"  # open to all: test_http_oidc.py
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer vmr_wrong"},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Cookie": "vmrunner_login=wrong"},
        {"Cookie": "vmrunner_login"},
    ],
)
def test_nothing_answers_without_a_token(http: Service, headers: dict[str, str]) -> None:
    client = http.client("")
    outside = [("get", "/metrics"), ("get", "/readyz")]
    for method, path in [*routes(http), *outside]:
        answer = client.request(method.upper(), path, headers=headers)
        assert answer.status_code == 401, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/healthz").text == "ok\n"
    assert (client.head("/healthz").status_code, client.head("/readyz").status_code) == (200, 401)
    assert http.client().head("/readyz").status_code == 200
    assert http.client().get("/readyz").json() == {"ready": True, "draining": False}


def test_a_token_that_is_over_opens_nothing(http: Service) -> None:
    expired = http.client(http.token(expires_at=5.0))
    revoked = http.client(http.token())
    http.app.ledger.tokens.revoke(http.app.ledger.tokens.list()[-1].id, 1.0)
    for client in (expired, revoked):
        assert client.get(f"{API}/builds").status_code == 401


OWN = {f"{API}/{name}" for name in ("builds", "sources", "sandboxes")}
LISTS = {f"{API}/{name}" for name in ("builds", "instances", "costs", "caches", "sandboxes")}


@pytest.mark.parametrize("theirs", OTHERS)
def test_every_path_is_closed_to_another_tenant(http: Service, theirs: dict[str, str]) -> None:
    mine, other = http.tenant(team="a"), http.tenant(**theirs)
    build = only(mine.post(f"{API}/builds", json={"steps": ["artifact a x"], "artifacts": ["a"]}))
    ended = http.ended(build["id"])
    save(http.app.ledger, "o", CacheScope(tenant='{"team": "a"}', own=""))
    (cache,) = http.app.ledger.caches.list()
    known_paths = {
        "build": build["id"], "instance": str(ended.instance), "path": "a", "pool": "p",
        "cache": cache.id, "sandbox": build["id"], "command": "x-1",
    }  # fmt: skip
    before = http.app.ledger.builds.get(build["id"])
    visited = 0
    for method, path in routes(http):
        if method in ("post", "put") and path in OWN:
            continue  # of its own
        path += {"files": "?path=x", "search": "?text=x"}.get(path.rpartition("/")[2], "")
        answer = other.request(method.upper(), path.format(**known_paths))
        visited += 1
        if any(f"{{{name}}}" in path for name in ("build", "instance", "cache", "sandbox")):
            assert answer.status_code == 404, (method, path, answer.text)
        elif path in LISTS:
            assert answer.json()["items"] == []
        else:
            assert answer.status_code == 403, (method, path, answer.text)
        nobodys = {name: "b-nobodys" if name == "build" else "vm-nobodys" for name in known_paths}
        unknown = other.request(method.upper(), path.format(**nobodys))
        assert answer.json().keys() == unknown.json().keys(), "it looks as if it did not exist"
    assert visited > 15
    for word in (build["id"][:12], build["id"][2:14], "b-"):
        assert other.get(f"{API}/builds/{word}").status_code == 404
    assert http.app.ledger.builds.get(build["id"]) == before
    assert http.app.ledger.caches.list() == [cache]
    assert only(mine.get(f"{API}/instances/{ended.instance}"))["build"] == build["id"]


def test_what_concerns_all_needs_a_token_for_all(http: Service) -> None:
    admin = http.client()
    for path in ("pools", "nodes", "actions", "audit"):
        assert admin.get(f"{API}/{path}").status_code == 200, path
    assert admin.post(f"{API}/drain").json() == {"draining": True}
    assert admin.get("/readyz").json()["draining"]
    assert admin.post(f"{API}/drain", json={"off": True}).json() == {"draining": False}
    assert admin.post(f"{API}/reap", json={"dry_run": True}).json()["kind"] == "verdict"
    verbs = [action["verb"] for action in admin.get(f"{API}/actions").json()["items"]]
    assert verbs == ["undrain", "drain"]
    reader = http.client(http.token(frozenset({TokenScope.READ})))
    for path in ("reap", "drain", "pools/p/drain"):
        assert reader.post(f"{API}/{path}").status_code == 403
    assert reader.get("/metrics").status_code == 403


@pytest.mark.parametrize(
    ("body", "field", "fix"),
    [
        ({}, "steps", ""),
        ({"steps": []}, "steps", "at least 1"),
        ({"step": ["x"]}, "step", "did you mean 'steps'"),
        ({"steps": ["x"], "timeot": "5m"}, "timeot", "did you mean 'timeout'"),
        ({"steps": ["x"], "timeout": "soon"}, "timeout", "30m"),
        ({"steps": ["x"], "network": ""}, "network", ""),
        ({"steps": [{"run": "x", "argv": ["y"]}]}, "steps[0]", ""),
        ({"steps": ["x"], "source": "/etc"}, "source", "PUT"),
        ({"steps": ["x"], "source": "git+https://example.com/x"}, "source", "PUT"),
        ({"steps": ["x"], "source": "sha256:../../etc/passwd"}, "source", "PUT"),
        ({"steps": ["x"], "secrets": ["CANARY"]}, "secrets", ""),
        ({"steps": ["x"], "env_file": "/etc/passwd"}, "env_file", ""),
        ({"steps": ["x"], "artifacts": ["/etc/*"]}, "artifacts[0].path", ""),
        ({"steps": ["x"], "privileged": True}, "privileged", "limits.privileged"),
        ({"steps": ["x"], "provider": "fak"}, "provider", "did you mean 'fake'"),
        ({"steps": ["x"], "cpus": "many"}, "cpus", ""),
        ({"steps": ["x"], "name": "../../x"}, "name", ""),
        ({"steps": ["x"], "labels": {"a b": "c"}}, "labels.a b", ""),
    ],
)
def test_a_wrong_body_names_field_and_fix(
    http: Service, body: dict[str, Any], field: str, fix: str
) -> None:
    answer = http.client().post(f"{API}/builds", json=body)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["detail"].startswith(f"{field.split('.')[0].split('[')[0]}"), problem
    assert fix in (problem["fix"] or problem["detail"]), problem
    assert http.app.ledger.builds.list() == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"steps": NaN}', 400),
        (b"[" * 100_000, 400),
        (b'{"steps": ["x"], "cpus": ' + b"9" * 5000 + b"}", 400),
        (b'{"steps": ["x"], "priority": 1e30}', 422),
        (b"[]", 422),
        (b'"x"', 422),
        (b'{"steps": ["' + b"x" * (9 << 20) + b'"]}', 413),
        (b'{"steps": ["\xed\xa0\x80"]}', 422),
        (b'{"steps": ["x"], "secrets": {"A": "\\ud800"}}', 422),
        (b'{"steps": ["x"], "timeout": 1' + b"0" * 400 + b"}", 422),
        (b'{"steps": ["x"], "memory": "' + b"9" * 400 + b'GiB"}', 422),
    ],
)
def test_a_broken_body_is_no_error_of_ours(http: Service, body: bytes, status: int) -> None:
    answer = http.client().post(f"{API}/builds", content=body)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert not re.search(r"recursion|codec|sys\.|int\b|str\b", problem["detail"]), problem
    assert problem["fix"], problem
    assert http.app.ledger.builds.list() == []


@pytest.mark.parametrize(
    "path",
    [
        "../../../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "link",
        "linked/passwd",
        "a%00",
        "",
    ],
)
def test_no_path_leads_out_of_the_artifacts(http: Service, path: str, tmp_path: Path) -> None:
    client = http.client()
    build = only(client.post(f"{API}/builds", json={"steps": ["artifact a x"], "artifacts": ["a"]}))
    http.ended(build["id"])
    (place,) = http.app.paths.artifacts.glob(f"{build['id']}.*")
    (place / "link").symlink_to("/etc/passwd")
    (place / "linked").symlink_to("/etc")
    answer = client.get(f"{API}/builds/{build['id']}/artifacts/{path}")
    assert "root:" not in answer.text
    assert answer.status_code in (404, 307) or answer.json()["kind"] == "artifact"


def test_an_artifacts_name_injects_no_header(http: Service) -> None:
    client = http.client()
    build = only(client.post(f"{API}/builds", json={"steps": ["say x"], "artifacts": ["*"]}))["id"]
    http.ended(build)
    place = http.app.paths.artifacts / build
    place.mkdir(parents=True, exist_ok=True)
    (place / 'a"; x=\rSet-Cookie: x=1').write_text("x")
    (item,) = client.get(f"{API}/builds/{build}/artifacts").json()["items"]
    answer = client.get(f"{API}/builds/{build}/artifacts/{quote(item['path'])}")
    assert answer.text == "x"
    assert "set-cookie" not in answer.headers


def test_nothing_sent_makes_the_server_read_anything(
    http: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = http.root / "canary"
    canary.write_text("canary-of-the-disk")
    opened: list[str] = []
    connect = socket.create_connection

    def watched(address: tuple[str, int], *more: Any, **options: Any) -> socket.socket:
        if address[1] != http.listener.port:
            opened.append(address[0])
        return connect(address, *more, **options)

    client = http.client()
    with monkeypatch.context() as patched:
        patched.setattr(socket, "create_connection", watched)
        for key in ("source", "env_file", "file", "ssh_key", "image", "container", "name"):
            for value in (
                str(canary),
                f"@{canary}",
                "$CANARY",
                "${CANARY}",
                "http://169.254.169.254/",
            ):
                client.post(f"{API}/builds", json={"steps": ["say x"], key: value})
        for name in ("CANARY", "HOME", "SSH_AUTH_SOCK"):
            client.post(f"{API}/builds", json={"steps": ["say x"], "secrets": {name: f"@{canary}"}})
    assert opened == []
    text = json.dumps([client.get(f"{API}/builds").json()])
    assert "canary-of" not in text
    assert os.environ["CANARY"] not in text
    for build in http.app.ledger.builds.list():
        values = http.app.ledger.builds.secrets(build.id).values()
        assert all(value == f"@{canary}".encode() for value in values)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_without_tokens_no_foreign_page_gets_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], status: int
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with service(tmp_path, everybody=Principal(actor="local", scopes=ALL)) as http:
        assert http.client("").get(f"{API}/builds", headers=headers).status_code == status


#: What the document allows is taken, but for these rules, which no schema can tell (docs/http.md).
UNTOLD_RULES = (
    ("GET", "audit"),  # `tag` and `older_than` come together
    ("POST", "builds"),  # the provider is one that is configured here …
    ("POST", "sandboxes"),  # … and `max_ttl` is no shorter than `ttl`
    ("POST", "reap"),
)


def fuzzed(http: Service, *options: str) -> str:
    """The findings of schemathesis, which sends what the document allows and what it forbids."""
    settings = http.root / "schemathesis.toml"
    settings.write_text(
        "\n".join(
            f'[[operations]]\ninclude-name = "{method} {API}/{path}"\n'
            "checks.positive_data_acceptance.enabled = false"
            for method, path in UNTOLD_RULES
        )
    )
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "--config-file", settings,
            "run", f"{http.url}{API}/openapi.json",
            "-H", f"Authorization: Bearer {http.token()}", "--request-timeout", "60",
            "--exclude-path", f"{API}/drain", "--exclude-path", f"{API}/sources", "--seed", "1",
            "--continue-on-failure", *options,
        ],
        capture_output=True, text=True, cwd=http.root,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout[-6000:]


def test_no_input_that_the_document_allows_is_our_error(http: Service) -> None:
    options = ("--checks", "not_a_server_error", "--phases", "fuzzing", "--max-examples", "3")
    assert fuzzed(http, *options) == ""


def test_answers_are_as_the_document_tells(http: Service) -> None:
    """By status, headers, media type and schema; what it forbids is refused, and so are methods
    that it does not have."""
    assert fuzzed(http, "--phases", "examples,coverage") == ""


@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_too_much_reads_why(http: Service, chunked: bool) -> None:
    """By a client that reads no answer before all is sent, as urllib and http.client do."""
    rest = [b"x" * (1 << 20)] * 16
    connection = HTTPConnection(http.url.removeprefix("http://"), timeout=30)
    try:
        connection.request(
            "POST",
            f"{API}/builds",
            body=iter(rest) if chunked else b"".join(rest),
            headers={"Authorization": f"Bearer {http.token()}"},
            encode_chunked=chunked,
        )
        answer = connection.getresponse()
        problem = json.load(answer)
    finally:
        connection.close()
    assert (answer.status, problem["fix"]) == (413, "send less")


@pytest.mark.parametrize("path", ["builds/%00", "builds?after=b-%00", "instances/a%00b"])
def test_a_nul_names_nothing(http: Service, path: str) -> None:
    assert http.client().get(f"{API}/{path}").status_code == 404


def test_a_ledger_that_is_away_is_told_as_such(
    http: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = http.client()

    def away(_: str) -> None:
        raise LedgerError("the ledger's database failed: away")

    monkeypatch.setattr(http.app.ledger.tokens, "of_secret", away)
    for path in (f"{API}/builds", "/readyz", "/metrics"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["error"]) == (503, "LedgerError"), path
        assert int(answer.headers["retry-after"]) > 0


def test_metrics_are_what_prometheus_reads(http: Service) -> None:
    client = http.client()
    build = only(client.post(f"{API}/builds", json={"steps": ["exit 3"]}))["id"]
    http.ended(build)
    assert client.post(f"{API}/reap", json={}).status_code == 200
    text = client.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {
        "vmrunner_builds", "vmrunner_build_phase_seconds", "vmrunner_instances",
        "vmrunner_instance_overdue_seconds", "vmrunner_reaper_last_pass_timestamp_seconds",
        "vmrunner_reaper_last_sweep_timestamp_seconds", "vmrunner_kills", "vmrunner_orphans",
        "vmrunner_latched", "vmrunner_queue_oldest_seconds", "vmrunner_pool_size",
        "vmrunner_pool_claims", "vmrunner_cost_usd", "vmrunner_engine_lease_seconds",
        "vmrunner_notify_waiting", "vmrunner_notify_oldest_seconds", "vmrunner_notify_given_up",
    } <= families.keys()  # fmt: skip
    (ended,) = families["vmrunner_builds"].samples
    assert ended.labels == {"provider": "fake", "result": "failure", "reason": "exit_code"}
    calls = {
        (sample.labels["provider"], sample.labels["op"], sample.labels["outcome"]): sample.value
        for sample in families["vmrunner_provider_calls"].samples
        if sample.name.endswith("_total")
    }
    assert calls["fake", "create", "ok"] == 1.0
    counts = [
        s.value
        for s in families["vmrunner_build_phase_seconds"].samples
        if s.name.endswith("_count")
    ]
    assert counts
    assert set(counts) == {1.0}
    sweeps = {
        sample.labels["scope"]: sample.value
        for sample in families["vmrunner_reaper_last_sweep_timestamp_seconds"].samples
    }
    (of_all, of_fake) = (sweeps.pop(""), *sweeps.values())
    assert of_all == of_fake > 0
    assert next(iter(sweeps)).startswith("fake|")
    assert build not in text
    again = client.get("/metrics").text
    assert "vmrunner_build_phase_seconds_count" in again


@pytest.mark.parametrize(
    ("path", "field", "fix"),
    [
        ("/builds?limit=0", "limit", "at least 1"),
        ("/builds?limit=x", "limit", "such as 1"),
        ("/builds?" + "&".join(f"label=a{n}=b" for n in range(2000)), "label", "at most 64"),
        ("/builds?" + "&".join(["state=queued"] * 2000), "state", "at most"),
        ("/builds?after=vm-1", "after", "the `next` of the page before"),
        ("/sandboxes?after=vm-1", "after", "the `next` of the page before"),
        ("/instances?after=b-1", "after", "the `next` of the page before"),
        ("/builds?state=qeued", "state", "did you mean 'queued'"),
        ("/costs?since=nan", "since", "write it like 30m"),
        ("/costs?by=team", "by", "label:NAME"),
        ("/costs?by=", "by", "label:NAME"),
        ("/builds/{build}/chunks?wait=maybe", "wait", "write one of the two"),
    ],
)
def test_a_parameter_that_cannot_be_names_its_fix(
    http: Service, path: str, field: str, fix: str
) -> None:
    client = http.client()
    build = only(client.post(f"{API}/builds", json={"steps": ["say x"]}))["id"]
    answer = client.get(API + path.format(build=build))
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert fix in answer.json()["fix"]
    assert "Value error" not in answer.text
    assert not re.fullmatch(rf"{field}: '[^']*'", answer.json()["detail"]), "what is wrong with it"


def test_a_build_has_so_many_labels_at_most(http: Service) -> None:
    labels = {f"n{n}": "v" for n in range(65)}
    answer = http.client().post(f"{API}/builds", json={"steps": ["say x"], "labels": labels})
    assert (answer.status_code, answer.json()["field"]) == (422, "labels")
    assert "64" in answer.json()["fix"]
