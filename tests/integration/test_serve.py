"""`vmrunner serve` as a program, over a cloud in a file: it reads its configuration again, hands
over, ends in bounded time; one of several reaps, and who watches it hears when it falls silent."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.blackbox import (
    CONFIG,
    GAP,
    NEWBORN,
    TTL,
    Cli,
    data_of,
    program,
    serving,
    started,
    tags_of,
    until,
)
from tests.support.blackbox import cli as cli  # the fixture
from tests.support.blackbox import cloud as cloud  # the fixture
from tests.support.file_cloud import FileCloud

Serve = subprocess.Popen[bytes]


def serve_log(home: Path) -> str:
    return (home / "serve.log").read_text()


@contextlib.contextmanager
def ledger_of(home: Path) -> Iterator[sqlite3.Connection]:
    path = data_of(home) / "ledger.db"
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as database, database:
        yield database


def reaper_of(home: Path) -> str | None:
    with ledger_of(home) as database:
        rows = database.execute("SELECT holder FROM leases WHERE name LIKE 'reaper:%'").fetchall()
    return rows[0][0] if rows else None


# --- SIGHUP --------------------------------------------------------------------------------------


def test_sighup_changes_limits_and_what_cannot_be_used_changes_nothing(
    home: Path, cli: Cli, cloud: FileCloud
) -> None:
    config = home / "vmrunner.toml"
    config.write_text(CONFIG + "[limits]\nmax_instances = 1\n")
    with serving(home, cli) as serve:
        started(cli, cloud)
        waiting = cli("run", "-d", "--", "until", "never").out.decode().strip()
        for bad, why in (
            ("[limits]\nmax_instances = 'many'\n", "limits.max_instances"),
            ("[limits", "not valid TOML"),
            ("[limits]\nmax_instances = 9\n[database]\nurl = 'sqlite:////x.db'\n", "database.url"),
            ("[limits]\nmax_instances = 9\n[reaper]\nsweep = 'daily'\n", "reaper.sweep"),
            ("[limits]\nmax_instances = 9\n[server]\nlisten = '127.0.0.1:1'\n", "server.listen"),
        ):
            config.write_text(CONFIG + bad)
            serve.send_signal(signal.SIGHUP)
            until(lambda text=why: text in serve_log(home), what=why)
        assert serve_log(home).count("the configuration stays as it was") == 5
        assert "Traceback" not in serve_log(home)
        config.write_text(CONFIG)
        assert cli("show", waiting, "-o", "json").items[0]["state"] == "queued"
        config.write_text(CONFIG + "[limits]\nmax_instances = 2\n")
        serve.send_signal(signal.SIGHUP)
        until(lambda: cli("show", waiting, "-o", "json").items[0]["state"] == "running")


def test_a_pool_that_cannot_be_refuses_all_of_a_configuration(
    home: Path, cli: Cli, cloud: FileCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API obeyed the rest of it, while the log said that all stayed as it was."""
    config, listening = home / "vmrunner.toml", CONFIG + "[server]\nlisten = '127.0.0.1:0'\n"
    monkeypatch.setenv("VMRUNNER_CONFIG", str(config))
    config.write_text(listening)
    with serving(home, cli) as serve:
        (url,) = re.findall(r"the HTTP API is at (\S+)", serve_log(home))
        token = cli("token", "create", "t", "--scope", "submit").out.decode().strip()

        def submitted() -> int:
            body = {"steps": ["say x"], "network": "open"}
            head = {"Authorization": f"Bearer {token}"}
            return httpx2.post(f"{url}/builds?dry_run=true", json=body, headers=head).status_code

        assert submitted() == 200
        for pool in ("provider = 'nowhere'\nsize = 1\n", "ttl = '100h'\nsize = 1\n"):
            config.write_text(f"{listening}[limits]\nnetwork = 'none'\n[pools.fast]\n{pool}")
            refusal = "the configuration stays as it was: pools.fast"
            before = serve_log(home).count(refusal)
            serve.send_signal(signal.SIGHUP)
            until(lambda n=before, text=refusal: serve_log(home).count(text) > n)
            assert submitted() == 200


def test_sighup_does_not_drop_a_provider_with_open_vms(
    home: Path, cli: Cli, cloud: FileCloud
) -> None:
    """It is swept on: its VM dies at its deadline, and so does another that no row tells of."""
    config = home / "vmrunner.toml"
    with serving(home, cli) as serve:
        mine = started(cli, cloud)
        config.write_text(CONFIG.replace("providers.fake", "providers.next"))
        serve.send_signal(signal.SIGHUP)
        until(lambda: "read again; providers: next, fake" in serve_log(home))
        (home / "vmrunner.toml").write_text(CONFIG + CONFIG.replace("fake]", "next]"))
        queued = cli("run", "-d", "--provider", "fake", "--", "say", "x").out.decode().strip()
        serve.send_signal(signal.SIGHUP)  # put back: it may start there again
        until(lambda: serve_log(home).count("read again; providers: next, fake") == 2)
        until(lambda: cli("show", queued, "-o", "json").items[0]["state"] == "finished")
        config.write_text(CONFIG.replace("providers.fake", "providers.next"))
        serve.send_signal(signal.SIGHUP)
        until(lambda: serve_log(home).count("read again; providers: next, fake") == 3)
        assert mine in cloud.alive()
        cloud.advance(TTL + 60)
        until(lambda: not cloud.alive())
        until(lambda: cli("vm", "ls", "-o", "json").items == [])
        serve.send_signal(signal.SIGHUP)
        until(lambda: "read again; providers: next\n" in serve_log(home))


def test_a_vm_receiving_a_large_source_is_not_idle(home: Path, cli: Cli, cloud: FileCloud) -> None:
    """It may take longer than a VM may be ready."""
    with serving(home, cli):
        cli("run", "-d", "--", "source", str(home / "sent"))
        until(lambda: [vm["state"] for vm in cli("vm", "ls", "-o", "json").items] == ["busy"])
        assert [build["state"] for build in cli("ps", "-o", "json").items] == ["preparing"]
        cloud.advance(1200)
        assert cli("reap", "-o", "json").items == []
        (home / "sent").touch()
        until(lambda: cli("ps", "-o", "json").items == [])
        (build,) = cli("ps", "-a", "-o", "json").items
        assert build["result"] == "success"


# --- SIGTERM -------------------------------------------------------------------------------------


def test_sigterm_hands_over_and_the_next_one_goes_on(
    home: Path, cli: Cli, cloud: FileCloud
) -> None:
    with serving(home, cli) as serve:
        mine = started(cli, cloud)
        build = cli("ps", "-o", "json").items[0]["id"]
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(30) == 0
    assert cloud.alive().keys() == {mine}
    assert reaper_of(home) is None
    with serving(home, cli):
        cli("cancel", build)
        until(lambda: not cloud.alive())
        assert cli("show", build, "-o", "json").items[0]["attempt"] == 1


def test_a_call_that_hangs_keeps_no_serve_from_ending(
    home: Path, cli: Cli, cloud: FileCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = home / "hang"
    monkeypatch.setenv("DRAIN", "1")
    monkeypatch.setenv("HANG", str(hang))
    with serving(home, cli) as serve:
        monkeypatch.delenv("HANG")
        mine = started(cli, cloud)
        hang.touch()
        queued = cli("run", "-d", "--", "say", "x").out.decode().strip()
        until(hang.read_text)
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(30) == 0, "the call waits in a thread of its provider"
    assert mine in cloud.alive()
    with serving(home, cli):
        until(lambda: cli("show", queued, "-o", "json").items[0]["state"] == "finished")


def test_a_ledger_that_hangs_ends_a_stop_with_status_one(
    home: Path, cli: Cli, cloud: FileCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leaves says so to the ledger, and waits for it: the one thing that a stop waits for."""
    monkeypatch.setenv("DRAIN", "1")
    with serving(home, cli) as serve, ledger_of(home) as database:
        mine = started(cli, cloud)
        database.execute("BEGIN IMMEDIATE")
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(30) == 1
        assert serve_log(home).count("stopping takes more than 1 s") == 1
        assert mine in cloud.alive()


# --- who reaps -----------------------------------------------------------------------------------


def test_one_of_two_reaps_and_the_other_inherits(home: Path, cli: Cli, cloud: FileCloud) -> None:
    with serving(home, cli) as first:
        until(lambda: reaper_of(home))
        holder = reaper_of(home)
        with program(home):
            until(lambda: engines(home) == 2)
            first.send_signal(signal.SIGKILL)
            first.wait()
            cloud.plant("fake", tags_of(home, "vm-a", cloud.now() - 10))
            until(lambda: reaper_of(home) not in (None, holder))
            # What the former one knew went with it: the heir sweeps at once.
            until(lambda: not cloud.alive())


def engines(home: Path) -> int:
    with ledger_of(home) as database:
        ((count,),) = database.execute("SELECT count(*) FROM engines").fetchall()
    return int(count)


def test_a_silent_reaper_is_heard(home: Path, cli: Cli, cloud: FileCloud) -> None:
    """The process is there, and does nothing: `audit` and `doctor` fail, for cron to see."""
    with serving(home, cli) as serve:
        beats = "SELECT name FROM heartbeats WHERE name IN ('pass', 'sweep') ORDER BY name"
        until(lambda: _all(home, beats) == [("pass",), ("sweep",)])
        assert cli("audit").code == 0
        assert cli("doctor").code == 0
        os.kill(serve.pid, signal.SIGSTOP)
        with ledger_of(home) as database:
            database.execute("UPDATE heartbeats SET at = at - 1000")
            database.execute("UPDATE engines SET joined_at = joined_at - 1000")
        report = cli("audit", "-o", "json")
        assert report.code == 7
        assert {line["fault"] for line in report.items} == {"reaper_silent"}
        assert len(report.items) == 2  # no pass, no sweep
        done = cli("doctor")
        assert done.code == 1
        assert b"has not finished a pass" in done.out
        os.kill(serve.pid, signal.SIGCONT)
        until(lambda: not [x for x in silent(cli) if "a pass" in x])


def silent(cli: Cli) -> list[str]:
    return [line["message"] for line in cli("audit", "-o", "json").items]


def _all(home: Path, query: str) -> list[tuple[object, ...]]:
    with ledger_of(home) as database:
        rows: list[tuple[object, ...]] = database.execute(query).fetchall()
        return rows


# --- orphans -------------------------------------------------------------------------------------


def test_over_the_cap_no_orphan_dies_until_somebody_looked(
    home: Path, cli: Cli, cloud: FileCloud
) -> None:
    """The cap latches: it holds on though some of them go, until none is left."""
    cli("ps")
    ghosts = [cloud.plant("fake", tags_of(home, f"vm-{n}", cloud.now() + 9000)) for n in range(11)]
    cloud.advance(NEWBORN + 60)
    for _ in range(3):
        done = cli("reap")
        cloud.advance(GAP)
    assert len(cloud.alive()) == 11
    assert b"11 resources of this installation have no row (cap 10)" in done.err
    for name in ghosts[:8]:
        cloud.kill(name)
    assert b"3 resources of this installation" in cli("reap").err
    assert len(cloud.alive()) == 3
    assert cli("audit").code == 7
    report = cli("reap", "--orphans", "-o", "json")
    assert [(x["reason"], x["outcome"]) for x in report.items] == [("orphan", "accepted")] * 3
    assert not cloud.alive()
    ghost = cloud.plant("fake", tags_of(home, "vm-x", cloud.now() + 9000))
    cloud.advance(NEWBORN + 60)
    for _ in range(3):
        cli("reap")
        cloud.advance(GAP)
    assert ghost not in cloud.alive()  # the latch is off again


def test_serve_says_what_it_serves_and_that_it_stopped(
    home: Path, cli: Cli, cloud: FileCloud
) -> None:
    del cloud
    with serving(home, cli) as serve:
        text = (home / "serve.log").read_text()
        serve.send_signal(signal.SIGTERM)
        serve.wait(60)
    begun = next(line for line in text.splitlines() if " serving " in line)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} INFO ", begun)
    assert "ledger.db; providers: fake; this engine reaps" in begun
    assert "alembic" not in text
    assert "stopped;" in (home / "serve.log").read_text().splitlines()[-1]
