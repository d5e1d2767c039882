"""The command line, end to end over a fake cloud: what goes where, and every exit code."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Cli, script
from tests.support.postgres import Server
from tests.support.scripted_app import ScriptedApp, numbered
from vmrunner.config.sources import load
from vmrunner.ledger import Ledger


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    app = ScriptedApp(load(environ={}, start=home).settings)
    yield app.ledger
    app.close()


# --- run -----------------------------------------------------------------------------------------


def test_an_unknown_sandbox_is_told_with_its_fix(anywhere: Cli) -> None:
    done = anywhere("sandbox", "run", "nothere", "--", "true")
    assert done.code == 125
    assert b"there is no build 'nothere' (vmrunner sandbox ls shows them)" in done.err
    assert anywhere("sandbox", "rm", "nothere").err == done.err


def test_the_builds_output_is_stdout_and_all_else_is_stderr(anywhere: Cli) -> None:
    done = anywhere("run", "--", "say", "hello")
    assert (done.code, done.out) == (0, b"hello\n")
    assert done.last[:3] == ("success", "exit_code", "0")
    text = done.err.decode()
    assert all(line.startswith("vmrunner: ") for line in text.splitlines())
    for phase in ("queued", "provisioning", "booting", "connecting", "preparing", "running"):
        # On a busy machine more than a minute: 1m02s.
        assert re.search(rf"\[ *[0-9.hm]+s?\] {phase}", text), text


def test_raw_bytes_stay_as_they_are_in_a_pipe(anywhere: Cli) -> None:
    every = bytes(range(256))
    done = anywhere("run", *script(f"hex {every.hex()}", "hex fffe0d0a", "hex 6e6f20656e64"))
    assert done.out == every + b"\xff\xfe\r\nno end"
    build = done.last[3]
    assert anywhere("logs", build) == (0, done.out, b"")


def test_the_exit_code_is_the_builds_own(anywhere: Cli) -> None:
    for code in (1, 7, 124, 125, 130, 255):
        done = anywhere("run", "--", "exit", str(code))
        assert done.code == code
        assert done.last[:3] == ("failure", "exit_code", str(code))


def test_what_is_ours_to_lose_is_125(anywhere: Cli) -> None:
    done = anywhere("run", "--", "lose")
    assert done.code == 125
    assert done.last[:3] == ("error", "vm_lost", "")


def test_json_has_stdout_to_itself(anywhere: Cli, home: Path) -> None:
    done = anywhere("run", "-o", "json", "--result-file", "r.json", *script("say hello", "exit 3"))
    assert done.code == 3
    (item,) = done.items
    assert (item["result"], item["exit_code"], item["name"]) == ("failure", 3, "j")
    assert item["phases"][0]["state"] == "queued"
    assert b"hello\n" in done.err
    assert json.loads((home / "r.json").read_text()) == json.loads(done.out)


def test_artifacts_are_copied_where_they_are_wanted(anywhere: Cli, home: Path) -> None:
    lines = ("artifact dist/a.whl wheel", "artifact report.xml <x/>")
    argv = ("run", "-a", "dist/*", "--artifacts-to", "came", "--result-file", "r.json")
    done = anywhere(*argv, *script(*lines))
    (item,) = json.loads((home / "r.json").read_text())["items"]
    assert item["artifacts_back"], "the result tells what came back"
    assert all(set(returned) == {"path", "size"} for returned in item["artifacts_back"])
    assert (home / "came/dist/a.whl").read_text() == "wheel"
    build = done.last[3]
    listed = anywhere("artifacts", "ls", build, "-o", "json").items
    assert [(a["path"], a["size"]) for a in listed] == [("dist/a.whl", 5), ("report.xml", 4)]
    assert anywhere("artifacts", "get", build, "report.xml", "--to", "-").out == b"<x/>"
    got = anywhere("artifacts", "get", build, "--to", "all")
    assert got.out.decode().split() == ["all/dist/a.whl", "all/report.xml"]
    missing = anywhere("artifacts", "get", build, "none")
    assert (missing.code, missing.out) == (3, b"")
    assert b"no artifact 'none' (there: dist/a.whl, report.xml)" in missing.err


def test_timestamps(anywhere: Cli) -> None:
    done = anywhere("run", "--timestamps", *script("say a", "hex 62", "say c"))
    stamp = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
    assert re.fullmatch(stamp + b"a\n" + stamp + b"bc\n", done.out), done.out


def test_dry_run_tells_labels_and_variables(anywhere: Cli, home: Path) -> None:
    (home / "j.yml").write_text("jobs: {a: {steps: [make], labels: {team: core}}}")
    argv = ("run", "--dry-run", "-f", "j.yml", "a", "-l", "why=a b", "-e", "N=1\n2")
    (spec,) = anywhere(*argv, "-o", "json").items
    assert (spec["labels"], spec["env"]) == ({"team": "core", "why": "a b"}, {"N": "1\n2"})
    lines = dict(line.split(maxsplit=1) for line in anywhere(*argv).out.decode().splitlines())
    assert lines["labels"] == "team=core 'why=a b'"
    assert lines["env"].startswith("'N=1")
    assert "labels" not in anywhere("run", "--dry-run", "--", "make").out.decode()


def test_a_run_tells_what_goes_into_the_vm(anywhere: Cli, home: Path) -> None:
    place = home / "src"
    subprocess.run(["git", "init", "-q", place], check=True)
    (place / ".gitignore").write_text(".env\n")
    for number in range(51):
        (place / f"{number:02}.c").write_text("text\n")
    (place / ".env").write_text("secret")
    argv = ("--source", str(place), "--", "say", "x")
    listed = anywhere("run", "--dry-run", *argv).out.decode()
    assert "\nSource: 52 files, 260 B\n  .gitignore\n  00.c\n" in listed
    assert listed.endswith("  48.c\n  … and 2 more (-o json)\n")
    (spec,) = anywhere("run", "--dry-run", "-o", "json", *argv).items
    files = spec["source_files"]
    assert (files["count"], files["bytes"], len(files["paths"])) == (52, 260, 52)
    assert ".env" not in files["paths"]
    assert b"vmrunner: source: 52 files, 260 B\n" in anywhere("run", *argv).err


def test_dry_run_writes_nothing(cli: Cli, ledger: Ledger) -> None:
    done = cli("run", "--dry-run", "-o", "json", "--timeout", "5m", "--", "make", "test")
    (spec,) = done.items
    assert (spec["timeout"], spec["steps"][0]["argv"]) == (300, ["make", "test"])
    assert cli("run", "--dry-run", "--", "make").code == 0
    assert ledger.builds.list() == []


def test_the_same_key_is_the_same_build(cli: Cli, ledger: Ledger) -> None:
    first = cli("run", "--idempotency-key", "k", *script("say once", "exit 4"))
    again = cli("run", "--idempotency-key", "k", *script("say once", "exit 4"))
    assert (again.code, again.out, again.last) == (4, b"once\n", first.last)
    other = cli("run", "--idempotency-key", "k", "--", "say", "else")
    assert other.code == 125
    assert b"idempotency key 'k' belongs to build" in other.err
    assert len(ledger.builds.list()) == 1


def test_a_secret_is_shown_by_name_only(
    anywhere: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2-hunter2")
    done = anywhere("run", "--secret", "TOKEN", "-o", "json", "--", "say", "x")
    assert done.items[0]["secrets"] == ["TOKEN"]
    shown = anywhere("show", done.items[0]["id"], "-o", "json")
    everything = done.out + done.err + shown.out
    everything += b"".join(path.read_bytes() for path in (home / "data").rglob("ledger.db*"))
    assert b"hunter2" not in everything


def test_ci_steps_are_groups_and_commands_of_builds_are_text(
    anywhere: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"steps": [{"name": "one", "run": "say ::error::x"}, "hex 6e6f", "say two"]}
    (home / "vmrunner.yml").write_text(json.dumps({"jobs": {"a": job}}))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    out = anywhere("run", "-f", "vmrunner.yml").out.decode()
    assert out.splitlines() == [
        "::group::one",
        ":\u200b:error::x",
        "::endgroup::",
        "::group::hex 6e6f",
        "no",
        "::endgroup::",
        "::group::say two",
        "two",
        "::endgroup::",
    ]
    monkeypatch.delenv("GITHUB_ACTIONS")
    monkeypatch.setenv("GITLAB_CI", "true")
    out = anywhere("run", "-f", "vmrunner.yml").out.decode()
    assert out.count("section_start:") == out.count("section_end:") == 3


# --- looking -------------------------------------------------------------------------------------


def test_show_tells_which_tests_failed(anywhere: Cli) -> None:
    report = "<testsuite><testcase classname='a' name='b'><failure message='why'/></testcase><x>"
    line = f"artifact out/junit.xml {report}</x></testsuite>"
    build = anywhere("run", "-a", "out/*", *script(line)).last[3]
    shown = anywhere("show", build).out.decode()
    assert "\ntests\n  1 of 1 failed\n  a b: why\n" in shown
    (document,) = anywhere("show", build, "-o", "json").items
    (failure,) = document["tests"].pop("failures")
    assert document["tests"] == {"total": 1, "failed": 1, "skipped": 0, "seconds": 0, "unread": []}
    assert {failure[key] for key in ("suite", "name", "message")} == {"a", "b", "why"}
    other = anywhere("run", *script("say x")).last[3]
    assert "tests" not in anywhere("show", other, "-o", "json").items[0]


def test_ps_show_and_logs(anywhere: Cli) -> None:
    done = anywhere("run", "-l", "team=core", "--name", "first", *script(*numbered(5), "exit 2"))
    anywhere("run", "--name", "second", "--", "say", "x")
    build = done.last[3]
    assert anywhere("ps", "-o", "json").items == []
    assert [b["name"] for b in anywhere("ps", "-a", "-o", "json").items] == ["second", "first"]
    assert [b["id"] for b in anywhere("ps", "-a", "-l", "team=core", "-o", "json").items] == [build]
    table = anywhere("ps", "-a", "-o", "wide").out.decode()
    assert "team=core" in table
    assert "failure (2)" in table
    lines = anywhere("ps", "-a", "-o", "jsonl").out.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["second", "first"]

    shown = anywhere("show", "first").out.decode()
    for word in (build, "failure, exit_code, exit code 2", "running", "█", "exit 2"):
        assert word in shown
    (document,) = anywhere("show", build[:-2], "-o", "json").items
    assert [i["state"] for i in document["instances"]] == ["gone"]
    assert "step_ended" in [e["kind"] for e in document["events"]]

    assert anywhere("logs", build).out == b"".join(b"line %d\n" % n for n in range(1, 6))
    assert anywhere("logs", build, "--after", "3").out == b"line 4\nline 5\n"
    numbers = [
        json.loads(x)["seq"] for x in anywhere("logs", build, "-o", "jsonl").out.splitlines()
    ]
    assert numbers == [1, 2, 3, 4, 5]


def test_following_commands_exit_as_the_build_did(anywhere: Cli) -> None:
    build = anywhere("run", *script("say x", "exit 9")).last[3]
    assert anywhere("logs", "-f", build) == (9, b"x\n", b"")
    watched = anywhere("watch", build)
    assert (watched.code, watched.out) == (9, b"x\n")
    assert watched.last == ("failure", "exit_code", "9", build)


def test_what_is_not_there(anywhere: Cli) -> None:
    for argv, code in (
        (("show", "nope"), 3),
        (("logs", "nope"), 3),
        (("logs", "-f", "nope"), 125),
        (("watch", "nope"), 125),
        (("ssh", "nope"), 125),
        (("cancel", "nope"), 3),
        (("artifacts", "ls", "nope"), 3),
        (("vm", "show", "nope"), 3),
        (("vm", "destroy", "nope"), 3),
    ):
        done = anywhere(*argv)
        assert (done.code, done.out) == (code, b""), argv
        assert done.err.startswith(b"vmrunner: error: "), argv
        assert done.err.count(b"\n") == 1


def test_a_finished_build_has_nothing_to_enter_extend_or_end(anywhere: Cli) -> None:
    build = anywhere("run", "--", "say", "x").last[3]
    assert anywhere("ssh", build).code == 125
    assert anywhere("extend", build, "5m").code == 5
    done = anywhere("cancel", build)
    assert (done.code, done.out.decode()) == (0, f"{build}\n")
    assert b"had finished before" in done.err
    mixed = anywhere("cancel", build, "nope")
    assert mixed.code == 7


def test_vms(anywhere: Cli) -> None:
    build = anywhere("run", "--", "say", "x").last[3]
    assert anywhere("vm", "ls", "-o", "json").items == []
    assert anywhere("vm", "ls", "--cloud", "-o", "json").items == []
    (row,) = anywhere("vm", "ls", "-a", "-o", "json").items
    assert (row["build"], row["state"], row["death"]) == (build, "gone", "done")
    assert anywhere("vm", "show", row["id"]).code == 0
    for name in (row["id"], row["build"]):
        assert anywhere("vm", "show", name, "-o", "json").items[0]["id"] == row["id"]
    assert row["id"] in anywhere("vm", "ls", "-a", "--cloud").out.decode()
    assert anywhere("audit").code == 0
    assert anywhere("reap", "-o", "json").items == []
    assert anywhere("reap", "--dry-run", "--provider", "fake").code == 0


def test_ps_tells_what_it_leaves_out_and_counts_steps(anywhere: Cli, home: Path) -> None:
    assert b"only the newest" not in anywhere("run", "--step", "say a", "--step", "say b").err
    anywhere("run", "--", "say", "c")
    done = anywhere("ps", "-a", "--limit", "1")
    assert done.err == b"vmrunner: only the newest 1; --limit shows more\n"
    assert b"say c\n" in done.out
    assert b"say a (+1)\n" in anywhere("ps", "-a").out
    assert anywhere("ps", "-a", "--limit", "2").err == b""
    assert anywhere("ps", "--limit", "0").code == 2


def test_a_vm_that_is_gone_is_told_so(anywhere: Cli) -> None:
    build = anywhere("run", "--", "say", "x").last[3]
    (row,) = [
        row for row in anywhere("vm", "ls", "-a", "-o", "json").items if row["build"] == build
    ]
    done = anywhere("vm", "destroy", row["id"])
    assert (done.code, done.out.decode()) == (0, row["id"] + "\n")
    assert f"vmrunner: {row['id']} was gone already\n".encode() == done.err


def test_drain_stops_launching_for_everybody(cli: Cli, ledger: Ledger) -> None:
    assert cli("drain").code == 0
    assert ledger.paused
    assert b"launching is stopped" in cli("doctor").out
    assert cli("drain", "--off").code == 0
    assert not ledger.paused


def test_who_did_what_is_noted_for_the_page(cli: Cli, ledger: Ledger) -> None:
    cli("drain")
    cli("drain", "--off")
    build = ledger.builds.get(cli("run", "--", "say", "x").last[3])
    cli("vm", "destroy", str(build.instance))
    me = f"local:{os.getuid()}@{socket.gethostname()}"
    assert build.actor == me
    assert [action[1:] for action in ledger.actions.latest(3)] == [
        (me, "destroy", build.instance, "gone_before"),
        (me, "undrain", "all", ""),
        (me, "drain", "all", ""),
    ]


def test_config_and_database(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMRUNNER_SECRET_KEY", "s3cret-s3cret-s3cret-s3cret-s3cret")
    rows = {row["key"]: row for row in cli("config", "show", "-o", "json").items}
    assert rows["secret_key"] == {
        "key": "secret_key",
        "value": "***",
        "origin": "VMRUNNER_SECRET_KEY",
    }
    assert rows["limits.max_ttl"]["value"] == "2h"
    assert rows["limits.max_ttl"]["origin"].endswith("vmrunner.toml")
    assert rows["limits.log_bytes"]["value"] == 64 << 20
    assert b'"64MiB"' in cli("config", "show").out
    assert json.loads(cli("config", "schema").out)["title"] == "vmrunner.toml"
    assert json.loads(cli("config", "schema", "--job").out)["title"] == "vmrunner.yml"
    assert cli("db", "current").out == b"none\n"
    version = cli("db", "upgrade").out
    assert cli("db", "current").out == version != b"none\n"


def test_on_postgresql(
    cli: Cli, postgres: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMRUNNER_DATABASE_URL", postgres.empty())
    refused = cli("run", "--", "say", "x")
    assert refused.code == 125
    assert refused.err.endswith(b"needs an upgrade (vmrunner db upgrade)\n")
    assert cli("db", "upgrade").code == 0
    done = cli("run", "--", "say", "x")
    assert (done.code, done.out) == (0, b"x\n")
    assert cli("logs", done.last[3]).out == b"x\n"
    assert list((home / "data/vmrunner/servers").iterdir())


def test_while_launching_is_stopped_a_build_waits_and_says_why(anywhere: Cli) -> None:
    anywhere("drain")
    done = anywhere("run", "--queue-timeout", "1s", "--", "say", "x")
    assert (done.code, done.out) == (125, b"")
    assert b"warning: launching is stopped: it waits for `vmrunner drain --off`" in done.err
    assert b"it waits: launching is stopped (drain)" in done.err
    assert done.last[:2] == ("error", "queue_timeout")
