"""Whose a build is: the tenant that is stored with it, whatever labels it wears."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.integration.test_http_sandboxes import Pretended
from tests.integration.test_http_sandboxes import served as served  # the fixture
from tests.support.http_service import OTHERS, TENANT, Service, only, service
from tests.support.ledger_builds import launch, submitted
from vmrunner.api.remote_service import RemoteService
from vmrunner.config import forges
from vmrunner.config.forges import GarmSettings, ScaleSetSettings
from vmrunner.integrations.garm.bootstrap import CONTROLLER, NAME
from vmrunner.integrations.garm.provider import GarmProvider
from vmrunner.integrations.github.runners import NUMBER, SET, RunnerBuilds
from vmrunner.ledger import Ledger
from vmrunner.model import Principal, TokenScope

API = "/api/v1"
CORE = {"team": "core"}
EVIL = '{"repository": "evil/fork"}'  # a tenant whose tokens force another name


@pytest.fixture
def http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    rule = {"match": {"sub": "x"}, "labels": {"branch": "{ref}"}}
    issuer = {"issuer": "https://ci.example", "audience": "here", "rules": [rule]}
    with service(tmp_path, server={"oidc": [issuer]}) as found:
        yield found


def stored(ledger: Ledger, build: str, tenant: str, **changes: Any) -> str:
    """A build with labels that no submission over HTTP would have let through."""
    return submitted(ledger, build, tenant=tenant, **changes).id


def started(ledger: Ledger, build: str, instance: str) -> None:
    assert ledger.instances.start([launch(ledger, build, instance)], until=200.0)


@pytest.mark.parametrize("kind", ["builds", "sandboxes"])
def test_a_label_that_others_force_is_refused(http: Service, kind: str) -> None:
    http.tenant(team="core")
    evil, whole = http.tenant(repository="evil/fork"), http.client()
    body: dict[str, Any] = {"steps": ["say x"]} if kind == "builds" else {}
    for name in ("team", "branch"):  # a token forces the one, an issuer's rule the other
        wears = {**body, "labels": {name: "core"}}
        refused = evil.post(f"{API}/{kind}?dry_run=true", json=wears)
        assert (refused.status_code, refused.json()["error"]) == (403, "NotAllowed")
        assert f"labels: {name} " in refused.json()["detail"]
        assert name in refused.json()["fix"]
        assert whole.post(f"{API}/{kind}?dry_run=true", json=wears).status_code == 200
    free = {**body, "labels": {"nightly": "1", "repository": "evil/fork"}}
    assert evil.post(f"{API}/{kind}?dry_run=true", json=free).status_code == 200


def test_a_name_is_free_once_no_token_forces_it(http: Service) -> None:
    evil = http.tenant(repository="evil/fork")
    http.token(TENANT, labels=CORE, expires_at=5.0)  # its tenant gets another on Monday
    body = {"steps": ["say x"], "labels": CORE}
    assert evil.post(f"{API}/builds?dry_run=true", json=body).status_code == 403
    for token in http.app.ledger.tokens.list():
        if token.labels == CORE:
            http.app.ledger.tokens.revoke(token.id, 1.0)
    assert evil.post(f"{API}/builds?dry_run=true", json=body).status_code == 200


def test_what_is_run_again_wears_no_others_label(http: Service) -> None:
    http.tenant(team="core")
    evil = http.tenant(repository="evil/fork")
    labels = {**CORE, "repository": "evil/fork"}
    build = stored(http.app.ledger, "b-1", "local", provider="fake", labels=labels)
    assert evil.post(f"/builds/{build}/again").status_code == 403
    assert len(http.app.ledger.builds.list()) == 1


def test_a_name_leads_to_the_principals_own(http: Service) -> None:
    core, ledger = http.tenant(team="core"), http.app.ledger
    nightly = stored(ledger, "b-1", '{"team": "core"}', labels=CORE, name="nightly")
    fake = stored(ledger, "b-2", EVIL, labels=CORE, name="nightly")
    assert only(core.get(f"{API}/builds/nightly"))["id"] == nightly
    assert [item["id"] for item in core.get(f"{API}/builds").json()["items"]] == [nightly]
    assert core.get(f"{API}/builds/{fake}").status_code == 404
    assert fake not in core.get("/", headers={"Accept": "text/html"}).text
    assert ledger.builds.counts(CORE) == {"queued": 1}
    assert len(http.client().get(f"{API}/builds?label=team%3Dcore").json()["items"]) == 2


@pytest.mark.parametrize("theirs", OTHERS)
def test_a_worn_label_opens_nothing_of_anybodys(http: Service, theirs: dict[str, str]) -> None:
    """Both ways: who wears it sees nothing of who is worn, and nobody takes its VM for theirs."""
    core, other, ledger = http.tenant(team="a"), http.tenant(**theirs), http.app.ledger
    tenant = Principal(actor="", scopes=TENANT, labels=theirs).tenant
    worn = stored(ledger, "b-1", tenant, labels={**theirs, "team": "a"})
    started(ledger, worn, "vm-1")
    assert core.get(f"{API}/builds/{worn}").status_code == 404
    for path in ("instances", "costs", "builds"):
        assert core.get(f"{API}/{path}").json()["items"] == []
    assert core.get(f"{API}/instances/vm-1").status_code == 404
    whose = other.get(f"{API}/instances/vm-1").status_code
    assert whose == (404 if "team" in theirs else 200), "a tenant's labels are the build's"


def test_a_vm_is_found_by_the_beginning_of_its_id(http: Service) -> None:
    """Among those that its reader sees: another tenant's makes no beginning mean several."""
    core, other, ledger = http.tenant(**CORE), http.tenant(team="x"), http.app.ledger
    for number, tenant in enumerate((CORE, {"team": "y"})):
        name = Principal(actor="", scopes=TENANT, labels=tenant).tenant
        started(ledger, stored(ledger, f"b-{number}", name, labels=tenant), f"vm-1{number}")
    for word in ("vm-10", "vm-1", "1"):
        assert only(core.get(f"{API}/instances/{word}"))["id"] == "vm-10"
        assert other.get(f"{API}/instances/{word}").status_code == 404
        assert other.post(f"{API}/instances/{word}/destroy").status_code == 404
    assert core.get(f"{API}/instances/vm-11").status_code == 404
    assert http.client().get(f"{API}/instances/vm-1").status_code == 409


def test_builds_are_seen_as_the_model_says(http: Service) -> None:
    """The statements and `Principal.sees` tell the same, of names that only look alike too."""
    ledger = http.app.ledger
    tenants = [
        "local", "unfiltered", '{"team": "core"}', '{"repository": "r", "team": "core"}', EVIL,
        '{"TEAM": "core"}', '{"team": "CORE"}', '{"xteam": "core"}', '{"a": "team", "b": "core"}',
        '{"a": "\\"team\\": \\"core\\""}', '{"team": "core2"}',
    ]  # fmt: skip
    for number, tenant in enumerate(tenants):
        name = stored(ledger, f"b-{number}", tenant, labels={**CORE, "repository": "r"})
        started(ledger, name, f"vm-{number}")
    for labels in (CORE, {"repository": "r"}, {**CORE, "repository": "r"}, {"team": "x"}):
        principal = Principal(actor="", scopes=TENANT, labels=labels)
        seen = {row.id for row in ledger.builds.list() if principal.sees(row)}
        vms = {row.build for row in ledger.instances.list(own=labels)}
        rows = ledger.spending.since(0.0, labels)
        assert vms == seen == {row.build for row in (*rows.open, *rows.spent)}
        assert sum(ledger.builds.counts(labels).values()) == len(seen)
    assert len(seen) == 0
    assert {row.build for row in ledger.instances.list(own=CORE)} == {"b-0", "b-1", "b-2", "b-3"}


def test_costs_by_a_forced_label_are_its_tenants(http: Service) -> None:
    ledger = http.app.ledger
    http.tenant(team="core")
    for name, tenant in {"b-1": EVIL, "b-2": '{"team": "core"}'}.items():
        stored(ledger, name, tenant, labels={**CORE, "x": "1"})
    builds = {"b-1", "b-2"}
    assert ledger.spending.values("team", builds) == {"b-2": "core"}
    assert ledger.spending.values("x", builds) == {"b-1": "1", "b-2": "1"}


@pytest.mark.parametrize("labels", [{}, {"team": "ci"}], ids=["whole", "filtered"])
def test_nobody_elses_build_counts_as_a_runner(http: Service, labels: dict[str, str]) -> None:
    """Of a tenant below ours neither: it has our label, and another of its own."""
    below = '{"repository": "r", "team": "ci"}'
    settings = ScaleSetSettings.model_validate({"name": "fast", "build": {"provider": "fake"}})
    token = http.token(TENANT if labels else frozenset(TokenScope), labels=labels)
    remote = RemoteService(http.url, token)
    builds = RunnerBuilds(remote, forges.target("https://github.com/org"), settings)
    runner = {SET: builds._word, NUMBER: "1", CONTROLLER: "c", NAME: "garm-1", "team": "ci"}
    for number, tenant in enumerate((EVIL, below)):
        stored(http.app.ledger, f"b-{number}", tenant, labels=runner)
    assert builds.seen().live == ()
    assert GarmProvider(remote, GarmSettings(), "c").instances("pool") == []
    remote.client.close()


def test_a_sandbox_is_called_by_its_tenant_alone(served: tuple[Service, Pretended]) -> None:
    found, _ = served
    core: httpx2.Client = found.tenant(team="core")
    evil = found.tenant(repository="evil/fork")
    dev = only(core.post(f"{API}/sandboxes", json={"name": "dev"}))["id"]
    worn = {"name": "dev", "labels": CORE}
    assert evil.post(f"{API}/sandboxes", json=worn).status_code == 403
    assert only(evil.post(f"{API}/sandboxes", json={"name": "dev"}))["id"] != dev
    assert only(core.get(f"{API}/sandboxes/dev"))["id"] == dev
