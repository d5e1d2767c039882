"""Lists of builds: what failed since yesterday, of which name, by whom; asked everywhere alike."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection

from tests.support.command_line import Cli
from tests.support.http_service import Service, service
from tests.support.ledger_builds import running, spec, submitted
from tests.support.many_builds import DAY, fill
from vmrunner import Runner, aio
from vmrunner.errors import ConfigError
from vmrunner.ledger import Ledger, build_listing
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.sql import real
from vmrunner.model import BuildChoice, BuildState, Reason, Result, TokenScope
from vmrunner.services import costs

API = "/api/v1"


def ended(ledger: Ledger, build: str, result: Result, at: float, **changes: Any) -> str:
    running(ledger, build, f"vm-{build}", **changes)
    ledger.builds.finish(build, epoch=1, now=at, result=result, reason=Reason.EXIT_CODE)
    return build


def names(ledger: Ledger, **choice: Any) -> list[str]:
    """Numbers of the builds of a choice, read page by page and all at once."""
    whole = [row.id for row in ledger.builds.chosen(BuildChoice(**choice))]
    paged, before = list[str](), None
    while before is not None or not paged:
        page = ledger.builds.page(BuildChoice(before=before, **choice), 2, 1 << 20)
        paged += [row.id for row in page.builds]
        if (before := page.next) is None:
            break
    assert paged == whole
    return [name.removeprefix("b-") for name in whole]


@pytest.fixture
def five(ledger: Ledger) -> Ledger:
    """Four that ended at 200, 300, 400, 500, and one that waits since 10."""
    ended(ledger, "b-1", Result.FAILURE, 200.0, name="nightly-x", provider="local")
    ended(ledger, "b-2", Result.SUCCESS, 300.0, name="nightly", provider="cloud")
    ended(ledger, "b-3", Result.TIMEOUT, 500.0, name="Nightly")
    ended(ledger, "b-4", Result.FAILURE, 400.0, name="night_", labels={"team": "core"})
    submitted(ledger, "b-5", name="nightly")
    return ledger


def test_each_word_of_a_choice_picks_and_all_hold_together(five: Ledger) -> None:
    assert names(five) == ["5", "4", "3", "2", "1"]
    assert names(five, results=[Result.FAILURE]) == ["4", "1"]
    assert names(five, results=[Result.FAILURE, Result.TIMEOUT]) == ["4", "3", "1"]
    assert names(five, name="nightly") == ["5", "2"]
    assert names(five, name="nightly*") == ["5", "2", "1"]  # and not Nightly
    assert names(five, name="night_*") == ["4"]  # no wildcard of LIKE
    assert names(five, provider="cloud") == ["2"]
    assert names(five, states=[BuildState.QUEUED]) == ["5"]
    assert names(five, results=[Result.FAILURE], labels={"team": "core"}) == ["4"]
    assert names(five, results=[Result.FAILURE], name="nightly*") == ["1"]
    assert names(five, name="nope*") == names(five, provider="x") == []


def test_sandboxes_are_picked_whatever_they_are_called(ledger: Ledger) -> None:
    hidden = {"env": {"sandbox_ttl": "null", "x": '"sandbox_ttl":null'}}
    for number in range(1, 7):
        more = {"sandbox_ttl": 60.0, "steps": ()} if number % 2 else {}
        submitted(ledger, f"b-{number}", **more, **hidden)
    assert names(ledger, sandbox=True) == ["5", "3", "1"]
    assert names(ledger, sandbox=False) == ["6", "4", "2"]
    assert names(ledger, sandbox=True, name="nope") == []


@pytest.mark.parametrize("few", [True, False])
def test_what_ended_counts_by_its_end(
    five: Ledger, monkeypatch: pytest.MonkeyPatch, few: bool
) -> None:
    if not few:
        monkeypatch.setattr(build_listing, "_FEW", 0)
    assert names(five, since=300.0) == ["4", "3", "2"]
    assert names(five, since=10.0) == ["5", "4", "3", "2", "1"]
    assert names(five, until=300.0) == ["5", "1"]
    assert names(five, since=300.0, until=500.0) == ["4", "2"]
    assert names(five, since=300.0, results=[Result.FAILURE]) == ["4"]
    assert names(five, since=501.0) == []


def test_who_submitted_is_an_actor_or_a_tokens_name(ledger: Ledger) -> None:
    scopes = frozenset(TokenScope)
    tokens = [ledger.tokens.create(n, scopes, by="t", now=1.0)[1] for n in ("ada", "ada", "bob")]
    for at, actor in enumerate(["root@host", *(token.actor for token in tokens)]):
        ledger.builds.submit(spec(), id=f"b-{at}", now=10.0, actor=actor)
    assert names(ledger, actors=["ada"]) == ["2", "1"]
    assert names(ledger, actors=["root@host"]) == ["0"]
    assert names(ledger, actors=[tokens[1].actor, "bob"]) == ["3", "2"]
    assert names(ledger, actors=["nobody"]) == []


#: Choices that find few builds, or none, of 30,000.
RARE: dict[str, BuildChoice] = {
    "result": BuildChoice(results=[Result.TIMEOUT]),
    "no such result": BuildChoice(results=[Result.ERROR, Result.CANCELLED]),
    "name": BuildChoice(name="job-7"),
    "prefix": BuildChoice(name="zzz*"),
    "actor": BuildChoice(actors=["token:t-1"]),
    "actor, since": BuildChoice(actors=["token:t-1"], since=29_000 * 10.0),
    "nobody": BuildChoice(actors=["nobody"]),
    "provider": BuildChoice(provider="cloud"),
    "an hour of long ago": BuildChoice(since=DAY, until=DAY + 3600),
    "nothing since": BuildChoice(since=1e9),
    "failed this hour": BuildChoice(since=300_000.0 - 3600, results=[Result.FAILURE]),
    "queued": BuildChoice(active=True),
    "running": BuildChoice(states=[BuildState.RUNNING, BuildState.HELD]),
    "first in line": BuildChoice(states=[BuildState.QUEUED], above=""),
    "newer": BuildChoice(results=[Result.TIMEOUT], above="b"),
    "sandbox": BuildChoice(sandbox=True),
}
#: Indexes that few builds are in.
SMALL = ("ix_builds_open", "ix_builds_sandboxes")


def test_few_among_many_are_found_by_an_index(ledger: Ledger) -> None:
    fill(ledger, 30_000)
    sqlite = ledger._database.sqlite

    def plan(connection: Connection, choice: BuildChoice) -> list[str]:
        query = real(build_listing.chosen(connection, choice, codec.BUILD[0]).limit(101))
        sql = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
        explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN"
        return [str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {sql}")]

    plans = {
        name: ledger._database.read(lambda c, choice=choice: plan(c, choice))
        for name, choice in RARE.items()
    }
    through = "SCAN builds USING INDEX sqlite_autoindex" if sqlite else "using pk_builds"
    for name, steps in plans.items():
        whole = [s for s in steps if s.startswith("SCAN builds") and not s.endswith(SMALL)]
        assert not [s for s in steps if through in s or "Seq Scan on builds" in s] or (
            not sqlite and any("Merge Join" in s or "Nested Loop" in s for s in steps)
        ), f"{name}: {steps}"
        assert not whole, f"{name}: {steps}"
    found = ledger.builds.page(RARE["an hour of long ago"], 100, 1 << 20)
    assert (len(found.builds), found.next is None) == (100, False)
    assert len(ledger.builds.chosen(RARE["an hour of long ago"])) == 360


def test_each_clock_is_asked_once_for_a_list(ledger: Ledger) -> None:
    """A driver that is not there took 40 ms to say so, for each VM of a list."""
    for number in range(5):
        running(ledger, f"b-{number}", f"vm-{number}")
    clocks = Counter[tuple[Any, ...]]()

    def time_at(*clock: Any) -> float:
        clocks[clock] += 1
        return 1000.0

    providers: Any = SimpleNamespace(time_at=time_at)
    builds = ledger.builds.list()
    shown = costs.until_now(ledger, providers, builds)
    assert [row.id for row in shown] == [row.id for row in builds]
    assert list(clocks.values()) == [1]


# --- over HTTP ------------------------------------------------------------------------------------


def listed(client: httpx2.Client, **query: Any) -> list[str]:
    answer = client.get(f"{API}/builds", params=query)
    assert answer.status_code == 200, answer.text
    return [build["id"].removeprefix("b-") for build in answer.json()["items"]]


def test_a_server_is_asked_the_same(http: Service) -> None:
    ledger, client = http.app.ledger, http.client()
    now = time.time()
    ended(ledger, "b-1", Result.FAILURE, now - 30 * 3600, name="nightly")
    ended(ledger, "b-2", Result.FAILURE, now - 3600, name="nightly-2")
    ended(ledger, "b-3", Result.SUCCESS, now - 60)
    assert listed(client, result="failure", since="24h") == ["2"]
    assert listed(client, result=["failure", "success"]) == ["3", "2", "1"]
    assert listed(client, name="nightly*", limit=1) == ["2"]
    at = datetime.fromtimestamp(now - 7200, UTC)
    assert listed(client, since=at.isoformat()) == ["3", "2"]
    assert client.get(f"{API}/builds?since={at.isoformat()}").json()["items"]  # its + unescaped
    assert listed(client, until=at.isoformat().replace("+00:00", "Z")) == ["1"]
    assert listed(client, state=["active", "finished"]) == ["3", "2", "1"]
    first = client.get(f"{API}/builds", params={"result": "failure", "limit": 1}).json()
    assert listed(client, result="failure", after=first["next"]) == ["1"]
    runner = Runner(url=http.url, token=http.token())
    with runner:
        assert [b.id for b in runner.list(result="failure", since="24h")] == ["b-2"]
        assert [b.id for b in runner.list(result=["failure"], until=at)] == ["b-1"]
        assert [b.id for b in runner.list(name="nightly*", actor="nobody")] == []


def test_a_page_of_sandboxes_is_full(http: Service) -> None:
    ledger, client = http.app.ledger, http.client()
    for number in range(1, 9):
        submitted(ledger, f"b-{number}", **({"sandbox_ttl": 60.0} if number in (1, 2, 8) else {}))
    first = client.get(f"{API}/sandboxes", params={"limit": 2}).json()
    assert [item["id"] for item in first["items"]] == ["b-8", "b-2"]
    rest = client.get(f"{API}/sandboxes", params={"limit": 2, "after": first["next"]}).json()
    assert [item["id"] for item in rest["items"]] == ["b-1"]
    assert rest.get("next") is None


def test_a_tenant_finds_its_own_alone_by_any_word(http: Service) -> None:
    whole = http.client()
    mine, theirs = http.tenant(team="a"), http.tenant(team="b")
    for client in (mine, theirs):
        answer = client.post(f"{API}/builds", json={"steps": ["exit 1"], "name": "nightly"})
        build = answer.json()["items"][0]
        http.ended(build["id"])
    queries: list[dict[str, Any]] = [
        {"result": "failure"}, {"name": "nightly"}, {"name": "night*"}, {"actor": "t"},
        {"provider": build["provider"]}, {"since": "24h"}, {"state": "finished"},
    ]  # fmt: skip
    for query in queries:
        assert len(listed(whole, **query)) == 2, query
        assert len(listed(mine, **query)) == 1, query
        assert set(listed(mine, **query)).isdisjoint(listed(theirs, **query)), query


def test_an_identity_is_found_by_its_subject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    rule = {"match": {"sub": "x"}, "labels": {"a": "b"}}
    issuer = {"issuer": "https://ci.example", "audience": "x", "rules": [rule]}
    with service(tmp_path, server={"oidc": [issuer]}) as found:
        actor = "oidc:https://ci.example#repo:a/b"
        found.app.ledger.builds.submit(spec(), id="b-1", now=1.0, actor=actor)
        assert listed(found.client(), actor="repo:a/b") == ["1"]
        assert listed(found.client(), actor="repo:a") == []


@pytest.mark.parametrize(
    ("query", "text", "fix"),
    [
        ("result=failed", "result: no result 'failed'", "did you mean 'failure'?"),
        ("state=done", "state: no state 'done'", "one of: active, "),
        ("since=yesterday", "since: 'yesterday' is neither a time", "write 24h"),
        ("since=1764547200", "since: 1764547200 s are more than", "write 24h"),
        ("since=2026-11-30T08:00:00", "since: '2026-11-30T08:00:00' is neither", "write 24h"),
        ("since=2026-13-01", "since: '2026-13-01' is neither", "write 24h"),
        ("since=1h&until=2h", "since: 1h is after until 2h", "the earlier one is since"),
        ("name=*x", "name: '*x' has a * that is not at its end", "or the beginning of one and *"),
        ("name=*", "name: '*' has no beginning", "leave it out"),
        ("name=a*b", "name: 'a*b' has a * that is not at its end", "or the beginning"),
        ("name=a&name=b", "name: it is there 2 times", "say it once"),
        ("since=24h&since=2h", "since: it is there 2 times", "say it once"),
        ("name=a%07b", "name: 'a\\x07b' is too long or not printable", "at most 500"),
        ("actor=", "actor: empty", "give it a value"),
        ("label=a", "label: 'a' has no name and value", "write NAME=VALUE"),
        ("label=a=b&label=a=c", "label: 'a' is given as 'b' and as 'c'", "give one"),
        ("resluts=failure", "resluts: no such parameter", "did you mean 'result'?"),
    ],
)
def test_a_bad_word_is_told_with_its_fix(http: Service, query: str, text: str, fix: str) -> None:
    answer = http.client().get(f"{API}/builds?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(text)
    assert fix in answer.json()["fix"]


def test_a_span_of_no_time_holds_no_build(http: Service) -> None:
    """A program that asks from where it asked before may do so twice within one second."""
    client = http.client()
    client.post(f"{API}/builds", json={"steps": ["say x"]})
    for path in ("builds", "sandboxes"):
        for moment in ("2026-11-30T08:00:00Z", "24h"):
            answer = client.get(f"{API}/{path}", params={"since": moment, "until": moment})
            assert (answer.status_code, answer.json()["items"]) == (200, []), answer.text


def test_a_filter_has_bounds(http: Service) -> None:
    client = http.client()
    for query in ({"actor": ["a"] * 21}, {"name": "a" * 501}, {"result": ["success"] * 6}):
        answer = client.get(f"{API}/builds", params=query)
        assert answer.status_code == 422, query


# --- the command line, and Python -----------------------------------------------------------------


def test_ps_asks_by_result_name_and_time(anywhere: Cli) -> None:
    failed = anywhere("run", "--name", "nightly", "--", "exit", "3").last[3]
    anywhere("run", "--name", "other", "--", "say", "x")
    assert anywhere("ps", "--result", "failure", "-q").out.decode().split() == [failed]
    assert anywhere("ps", "--name", "night*", "-aq").out.decode().split() == [failed]
    assert anywhere("ps", "--name", "nightly", "-q").out == b""
    assert len(anywhere("ps", "--since", "1h", "-o", "json").items) == 2
    assert anywhere("ps", "--until", "1h", "-o", "json").items == []
    assert len(anywhere("ps", "--state", "finished", "-o", "json").items) == 2
    assert anywhere("ps", "-a", "--provider", "nope", "-q").out == b""
    assert anywhere("ps", "-a", "--actor", "nobody", "-q").out == b""
    assert b"no such build" in anywhere("ps", "--result", "timeout").err
    refused = anywhere("ps", "--result", "failed")
    assert (refused.code, b"did you mean 'failure'?" in refused.err) == (2, True)
    assert b"give one of the two" in anywhere("ps", "-q", "-o", "json").err


def test_python_asks_alike(http: Service) -> None:
    ledger = http.app.ledger
    ended(ledger, "b-1", Result.FAILURE, time.time(), name="nightly")
    runner = http.runner
    assert [b.id for b in runner.list(result=Result.FAILURE, since=3600)] == ["b-1"]
    assert [b.id for b in runner.list(state="finished", name="nightly")] == ["b-1"]
    assert runner.list(since=datetime.now(UTC), active=False) == []
    with pytest.raises(ConfigError, match=r"active: state says that already"):
        runner.list(active=True, state="queued")
    with pytest.raises(ConfigError, match=r"has no time zone"):
        runner.list(since=datetime(2026, 1, 1))
    with pytest.raises(ConfigError, match=r"result: 7 is not text"):
        runner.list(result=[7])  # type: ignore[list-item]

    async def main() -> list[str]:
        async with aio.Runner(app=http.app) as client:
            return [b.id for b in await client.list(result="failure")]

    assert asyncio.run(main()) == ["b-1"]
