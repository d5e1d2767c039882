"""Caches over HTTP: a tenant's own, and values alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import vmrunner
from tests.support.caches import save
from tests.support.http_service import TENANT, Service, only
from vmrunner.model import CacheScope, TokenScope
from vmrunner.model.caches import MOST_CACHES

API = "/api/v1"
RULE = {"key": "pip", "path": "/root/.cache/pip"}


@pytest.fixture
def kept(http: Service) -> dict[str, str]:
    """A cache of each tenant, by its team."""
    ledger = http.app.ledger
    for team in ("a", "b"):
        save(ledger, team, CacheScope(tenant=f'{{"team": "{team}"}}', own=""))
    return {cache.object: cache.id for cache in ledger.caches.list()}


def test_a_tenant_sees_and_removes_its_own_alone(http: Service, kept: dict[str, str]) -> None:
    client = http.tenant(team="a")
    assert [item["id"] for item in client.get(f"{API}/caches").json()["items"]] == [kept["a"]]
    first = next(n for n, (a, b) in enumerate(zip(*kept.values(), strict=True)) if a != b)
    for name in (kept["b"], kept["b"][: first + 1], "c-none"):
        assert client.post(f"{API}/caches/{name}/remove").status_code == 404
    assert only(client.post(f"{API}/caches/{kept['a'][:8]}/remove"))["key"] == "k"
    assert [cache.object for cache in http.app.ledger.caches.list()] == ["b"]


def test_a_token_without_a_filter_sees_all(http: Service, kept: dict[str, str]) -> None:
    with vmrunner.Runner(url=http.url, token=http.token()) as runner:
        assert {cache.id for cache in runner.service.caches()} == set(kept.values())
        assert runner.service.remove_cache(kept["b"]) == kept["b"]
    assert [cache.object for cache in http.app.ledger.caches.list()] == ["a"]
    (done, *_) = http.app.ledger.actions.latest()
    assert (done.verb, done.subject, done.detail) == ("cache-remove", kept["b"], "k /cache")


def test_a_client_sees_as_many_as_the_ledger_may_have(
    http: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []
    monkeypatch.setattr(http.app.ledger.caches, "list", lambda _, limit: limits.append(limit) or [])
    with vmrunner.Runner(url=http.url, token=http.token()) as runner:
        assert runner.service.caches() == []
    assert limits == [MOST_CACHES]


def test_the_page_has_a_tenants_own_alone(http: Service, kept: dict[str, str]) -> None:
    mine = http.client(http.token(TENANT, labels={"team": "a"})).get("/caches").text
    assert (kept["a"] in mine, kept["b"] in mine) == (True, False)
    whole = http.client().get("/caches").text
    assert all(name in whole for name in kept.values())
    reader = http.client(http.token(frozenset({TokenScope.READ}))).get("/caches").text
    assert ("/cache" in reader, "Remove" in reader) == (True, False)


def test_a_rule_comes_back_as_it_was_said(http: Service) -> None:
    rule = {**RULE, "fallback": ["pi"]}
    build = only(http.client().post(f"{API}/builds", json={"steps": ["exit 0"], "caches": [rule]}))
    assert build["caches"] == [rule]
    assert http.ended(build["id"]).spec.caches == (
        vmrunner.CacheRule(key="pip", path="/root/.cache/pip", fallback=("pi",)),
    )


@pytest.mark.parametrize(
    ("rule", "field", "fix"),
    [
        ({**RULE, "key": "{hash:/etc/passwd}"}, "caches", "relative to it"),
        ({**RULE, "key": "{hash:*.lock}"}, "caches", "put the hash itself into the key"),
        ({**RULE, "path": "/proc/1"}, "caches", "a directory that it fills"),
        ({**RULE, "path": "up/../here"}, "caches", "such as /root/.cache/pip"),
        ({"key": "pip"}, "caches", ""),
    ],
)
def test_what_no_server_may_do_for_a_caller_is_refused(
    http: Service, rule: dict[str, str], field: str, fix: str
) -> None:
    answer = http.client().post(f"{API}/builds", json={"steps": ["exit 0"], "caches": [rule]})
    assert answer.status_code == 422
    assert field in answer.json()["field"]
    assert fix in answer.text


def test_the_client_names_the_sources_files(http: Service, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.lock").write_text("1")
    rule = {"key": "pip-{hash:*.lock}", "path": "/root/.cache/pip"}
    with vmrunner.Runner(url=http.url, token=http.token()) as runner:
        remote = runner.submit("exit 0", source=source, caches=[rule]).spec.caches
    local = http.runner.submit("exit 0", source=source, caches=[rule]).spec.caches
    assert remote == local
    assert "{" not in remote[0].key


def test_a_build_with_caches_runs_again_for_its_tenant_alone(http: Service) -> None:
    """Its steps would fill the caches of whoever presses the button, and read them."""
    mine, whole = http.tenant(team="a"), http.client()
    build = only(mine.post(f"{API}/builds", json={"steps": ["exit 0"], "caches": [RULE]}))["id"]
    assert only(mine.post(f"/builds/{build}/again"))["caches"] == [{**RULE, "fallback": []}]
    refused = whole.post(f"/builds/{build}/again")
    assert (refused.status_code, refused.json()["error"]) == (403, "NotAllowed")
    assert "caches: the tenant team=a submitted it" in refused.json()["detail"]
    assert "that tenant" in refused.json()["fix"]
