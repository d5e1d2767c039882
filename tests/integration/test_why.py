"""Why a build waits, how it ended, and what happened to it: as each command tells it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.command_line import Cli
from tests.support.ledger_builds import running
from tests.support.scripted_app import ScriptedApp
from vmrunner.api.build import raise_for
from vmrunner.api.errors import BuildFailed
from vmrunner.api.runner import Runner
from vmrunner.config.sources import load
from vmrunner.model import Principal
from vmrunner.runtime.background import BackgroundEngines
from vmrunner.services import queue_reasons


@pytest.fixture
def app(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedApp]:
    monkeypatch.setattr(BackgroundEngines, "ensure", lambda *_: None)
    app = ScriptedApp(load(environ={}, start=home).settings)
    yield app
    app.close()


def waits(cli: Cli, build: str) -> str:
    """What `ps` and `show` say alike."""
    (shown,) = cli("show", build, "-o", "json").items
    listed = {item["id"]: item for item in cli("ps", "-o", "json").items}
    assert listed[build]["waiting"] == shown["waiting"]
    assert shown["waiting"] in " ".join(cli("show", build).out.decode().split())
    return str(shown["waiting"])


def test_a_queued_build_says_why(
    cli: Cli, app: ScriptedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (cli("run", "-d", "--", "say", word).out.decode().strip() for word in "ab")
    assert waits(cli, first).startswith("no engine serves ")
    assert waits(cli, second).endswith("; number 2 of 2 in line")
    serving = SimpleNamespace(served=lambda *_, **__: True)
    monkeypatch.setattr("vmrunner.services.queue_reasons.background", serving)
    assert waits(cli, first) == "an engine takes it next; number 1 of 2 in line"
    app.ledger.events.add(first, "refused", time.time(), message="no capacity in zone a")
    assert waits(cli, first) == "no VM yet: no capacity in zone a; number 1 of 2 in line"
    monkeypatch.setenv("VMRUNNER_LIMITS__MAX_INSTANCES", "1")
    cli("drain")
    assert waits(cli, first).startswith("launching is stopped (drain)")
    assert Runner(app=app).get(first).waiting.startswith("launching is stopped (drain)")
    cli("cancel", first)


def test_a_place_in_line_follows_the_turns_of_tenants(cli: Cli, app: ScriptedApp) -> None:
    for word in "abc":
        cli("run", "-d", "--", "say", word)
    spec = app.ledger.builds.list()[0].spec
    app.ledger.builds.submit(spec, id="b-other", now=time.time(), tenant='{"team": "a"}')
    assert waits(cli, "b-other").endswith("; number 2 of 4 in line")


def test_a_tenant_is_told_nothing_of_others_builds(
    cli: Cli, app: ScriptedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word in "abcde":
        cli("run", "-d", "--", "say", word)
    spec = replace(app.ledger.builds.list()[0].spec, labels={"team": "x"})
    tenant = Principal(actor="token:t-1", scopes=frozenset(), labels={"team": "x"})
    rows = [
        app.ledger.builds.submit(spec, id=f"b-{n}", now=time.time() + n, tenant=tenant.tenant)[0]
        for n in range(2)
    ]

    def reasons_of(**limits: int) -> list[str]:
        for name, value in limits.items():
            monkeypatch.setattr(f"vmrunner.services.queue_reasons.{name}", value)
        reasons = queue_reasons.waiting(app.ledger, app.limits(), rows, tenant)
        return [reasons[row.id].partition("; ")[2] or reasons[row.id] for row in rows]

    assert reasons_of() == ["number 1 of 2 of yours in line", "number 2 of 2 of yours in line"]
    assert reasons_of(LOOKED_AT=2) == ["it waits for its turn"] * 2
    whole = queue_reasons.waiting(app.ledger, app.limits(), rows)
    assert set(whole.values()) == {"2 builds or more stand before it in line"}


def test_a_tenant_is_not_told_how_many_vms_run(
    app: ScriptedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = SimpleNamespace(served=lambda *_, **__: True)
    monkeypatch.setattr("vmrunner.services.queue_reasons.background", serving)
    running(app.ledger, "b-1", "vm-1")
    limits = replace(app.limits(), each={"local": 1})
    spec = replace(app.ledger.builds.get("b-1").spec, labels={"team": "x"})
    tenant = Principal(actor="token:t-1", scopes=frozenset(), labels={"team": "x"})
    row, _ = app.ledger.builds.submit(spec, id="b-2", now=time.time(), tenant=tenant.tenant)
    reasons = [
        queue_reasons.waiting(app.ledger, limits, [row], principal) for principal in (None, tenant)
    ]
    assert reasons == [
        {"b-2": "1 instances of local are running, its limit"},
        {"b-2": "all places for VMs are taken"},
    ]


def test_a_build_behind_all_that_is_looked_at_says_so(
    cli: Cli, app: ScriptedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.services.queue_reasons.LOOKED_AT", 2)
    first, _, third = (cli("run", "-d", "--", "say", x).out.decode().strip() for x in "abc")
    assert waits(cli, first).endswith("; number 1 in line")
    assert waits(cli, third) == "2 builds or more stand before it in line"


def test_the_step_that_failed_is_named_everywhere(cli: Cli, home: Path, app: ScriptedApp) -> None:
    steps = [{"name": "fine", "run": "say hello"}, {"name": "broken", "run": "exit 3"}]
    (home / "job.yml").write_text(json.dumps({"jobs": {"j": {"steps": steps}}}))
    done = cli("run", "-f", "job.yml", "--result-file", "r.json", "j")
    assert done.code == 3
    *_, before, last = done.err.decode().splitlines()
    assert before == "vmrunner: step 'broken' ended with exit code 3"
    assert last.endswith(f"build={done.last[3]} step=broken")
    (result,) = json.loads((home / "r.json").read_text())["items"]
    assert result["failed_step"] == "broken"
    assert [step["exit_code"] for step in result["steps"]] == [0, 3]
    text = cli("show", done.last[3]).out.decode()
    assert "step       step 'broken' ended with exit code 3" in text
    assert "ended " in text
    assert "done" in next(line for line in text.splitlines() if line.startswith("VM "))
    build = Runner(app=app).get(done.last[3])
    assert build.failed_step == "broken"
    with pytest.raises(BuildFailed, match="step 'broken' ended with exit code 3"):
        raise_for(build)


def test_events_are_there_to_be_read(cli: Cli) -> None:
    build = cli("run", "--", "say", "hello").last[3]
    events = cli("events", build, "-o", "json").items
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {"step_started", "step_ended"} <= {event["kind"] for event in events}
    assert cli("events", build).out.decode().splitlines()[0].split() == [
        "SEQ", "TIME", "KIND", "DATA",
    ]  # fmt: skip
    assert cli("events", "nope").code == 3
