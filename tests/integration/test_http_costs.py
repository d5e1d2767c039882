"""Costs over HTTP: the same document as on the command line, and each tenant's own."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

import vmrunner
from tests.support.command_line import Cli
from tests.support.http_service import OTHERS, TENANT, Service, only
from tests.support.scripted_app import wait_until
from vmrunner.api.local_service import LocalService
from vmrunner.cli import main
from vmrunner.core.cost_report import CostKind, CostLine
from vmrunner.model import Budget, BudgetPeriod, Cost, PriceSource, Reason, Result, TokenQuota

API = "/api/v1"


def built(http: Service, client: httpx2.Client, **more: Any) -> str:
    """A build that ended, and whose VM is gone."""
    build: str = only(client.post(f"{API}/builds", json={"steps": ["say x"], **more}))["id"]
    http.ended(build)
    wait_until(lambda: http.app.ledger.builds.get(build).cost.final)
    return build


def lines(client: httpx2.Client, **query: str) -> list[dict[str, Any]]:
    answer = client.get(f"{API}/costs", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def test_a_document_tells_cost_source_and_whether_it_is_final(http: Service) -> None:
    client = http.client()
    build = built(http, client)
    shown = only(client.get(f"{API}/builds/{build}"))
    assert shown["cost"] == pytest.approx(0.1 / 60, abs=1e-6)  # a minute at least
    assert (shown["cost_final"], shown["cost_source"]) == (True, "provider")
    assert shown["instances"][0]["usd_hour"] == 0.1
    with vmrunner.Runner(url=http.url, token=http.token()) as remote:
        remote_view, here = remote.get(build), http.runner.get(build)
        assert remote_view.cost == shown["cost"] == pytest.approx(here.cost, abs=1e-6)
        assert remote_view.cost_detail.final


def test_all_who_ask_get_the_same(
    http: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = http.client()
    built(http, client, labels={"team": "a"})
    monkeypatch.setenv("VMRUNNER_SERVER", http.url)
    monkeypatch.setenv("VMRUNNER_TOKEN", http.token())
    capsys.readouterr()
    assert main(["costs", "--by", "label:team", "--since", "1d", "-o", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == client.get(f"{API}/costs", params={"by": "label:team", "since": "1d"}).json()
    assert (printed["kind"], printed["items"][0]["key"]) == ("cost", "a")
    with vmrunner.Runner(url=http.url, token=http.token()) as remote:
        [remote_view], [here] = remote.costs(by="day"), http.runner.costs(by="day")
        assert (remote_view.key, remote_view.builds, remote_view.cost.source) == (
            here.key, here.builds, here.cost.source,
        )  # fmt: skip
    assert main(["costs"]) == 0
    output = capsys.readouterr()
    assert "$0.0017" in output.out
    assert "together, in 7d00h: $0.0017 (prices of the driver)" in output.err


@pytest.mark.parametrize("theirs", OTHERS)
def test_a_tenant_sees_what_its_own_builds_cost(http: Service, theirs: dict[str, str]) -> None:
    mine, other = http.tenant(team="a"), http.tenant(**theirs)
    built(http, mine)
    [line] = lines(mine)
    assert (line["what"], line["builds"], line["vms"]) == (CostKind.BUILDS.value, 1, 1)
    for by in ("provider", "day", "label:team"):
        assert lines(other, by=by) == []
    assert len(lines(http.client(), by="label:team")) == 1
    page = other.get("/costs", headers={"Accept": "text/html"})
    assert "Nothing was spent" in page.text
    assert "hx-get" not in page.text, "each look sums the VMs of days"
    assert "$0.0017" in mine.get("/costs", params={"by": "day"}).text


def test_a_question_that_cannot_be_is_told(http: Service) -> None:
    for name, value in (("by", "team"), ("since", "soon"), ("until", "1d")):
        answer = http.client().get(f"{API}/costs", params={name: value})
        assert answer.status_code == 422
        assert name in answer.text


def test_a_tokens_builds_cost_no_more_than_its_quota(http: Service) -> None:
    """One build of an hour holds ten cents. Shortly before midnight these are of two days, and up
    to three have room; the fourth has to wait for the next day."""
    quota = TokenQuota(usd_per_day=0.15)
    mine = http.client(http.token(TENANT, labels={"team": "a"}, quota=quota))
    long = {"steps": ["sleep 2"], "ttl": "1h"}
    builds = [only(mine.post(f"{API}/builds", json=long))["id"] for _ in range(4)]
    assert {http.ended(build).reason for build in builds} == {Reason.EXIT_CODE, Reason.BUDGET}
    refused = http.runner.get(builds[-1])
    assert (refused.result, refused.cost, refused.instance) == (Result.ERROR, 0.0, None)
    assert re.search(r"may cost \$0\.\d\d until its deadline", refused.message)
    assert built(http, http.client(), ttl="1h"), "others have their own"


def test_an_identity_whose_rule_limits_no_more_is_free(http: Service) -> None:
    """The rule of `server.oidc` was changed, and its tokens live for an hour."""

    def client(**quota: float) -> httpx2.Client:
        quota_of = TokenQuota(**quota)
        return http.client(http.token(TENANT, labels={"a": "b"}, quota=quota_of, actor="oidc:x"))

    refused = only(client(usd_per_day=0.0).post(f"{API}/builds", json={"steps": ["say x"]}))["id"]
    assert http.ended(refused).reason is Reason.BUDGET
    assert http.runner.get(built(http, client())).reason is Reason.EXIT_CODE


def test_budgets_are_metrics_without_ids(http: Service) -> None:
    budgets = http.app.ledger.budgets
    budgets.declare([Budget(usd=40.0, period=BudgetPeriod.DAY, match={"team": "a"})], time.time())
    budgets.limit("token:t-1", 1.0, time.time())
    text = http.client().get("/metrics").text
    assert 'vmrunner_budget_usd{budget="day team=a"} 40.0' in text
    assert 'vmrunner_budget_held_usd{budget="day team=a"} 0.0' in text
    assert "token:t-1" not in text


def test_the_page_shows_costs_as_the_command_does(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(what: CostKind, key: str | None, usd: float, day: int, **more: Any) -> CostLine:
        at = datetime(2026, 11, day, 12, tzinfo=UTC).timestamp()
        cost = Cost(known=usd, final=day < 26, source=PriceSource.CLOUD, at=at)
        return CostLine(what=what, key=key, cost=cost, **more)

    found = [
        line(CostKind.BUILDS, "core", 1.2031, 20, builds=41, vms=43, seconds=42_900.0),
        line(CostKind.BUILDS, None, 0.0413, 26, builds=2, vms=2, seconds=1452.0),
        line(CostKind.UNCLAIMED, None, 0.331, 20, vms=3, seconds=11_820.0),
    ]
    monkeypatch.setattr(LocalService, "costs", lambda *_: found)
    done = cli("costs", "--by", "label:team", "--since", "7d")
    page = Path(__file__, "../../../docs/money.md").resolve().read_text()
    assert f"--since 7d\n{(done.out + done.err).decode()}```" in page
