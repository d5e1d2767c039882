"""What the command line says to what it cannot read, and how it starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tests.support.command_line import Cli
from tests.support.foreground import ROOT
from vmrunner.cli import app


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["ps", "--nope"], 2),
        (["nope"], 2),
        (["show"], 2),
        (["logs"], 2),
        (["logs", "-f"], 125),
        (["logs", "--timestamps", "-f"], 125),
        (["run", "--nope", "--", "x"], 125),
        (["run", "--cpus", "many", "--", "x"], 125),
        (["watch"], 125),
        (["ssh"], 125),
        (["config", "shw"], 2),
        (["ps", "-o", "xml"], 2),
        (["logs", "x", "--after", "-1"], 2),
    ],
)
def test_usage_errors_are_one_line(cli: Cli, argv: list[str], code: int) -> None:
    done = cli(*argv)
    assert (done.code, done.out) == (code, b"")
    assert done.err.startswith(b"vmrunner: error: ")
    assert done.err.count(b"\n") == 1
    assert b"--help)" in done.err


def test_without_arguments_there_is_help(cli: Cli) -> None:
    done = cli()
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith(b"Usage: vmrunner ")
    assert cli("--help").out.startswith(b"Usage: vmrunner ")
    assert cli("--version").out.startswith(b"vmrunner 0.")


def test_the_help_lists_each_command_under_one_task(cli: Cli) -> None:
    shown = re.findall(r"^  (\w+)  ", cli("--help").out.decode(), re.MULTILINE)
    assert sorted(shown) == sorted(get_command(app()).commands)  # type: ignore[attr-defined]


def test_an_unexpected_error_is_one_line_unless_debugged(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("vmrunner.ledger.builds.Builds.chosen", broken)
    done = cli("ps")
    assert done.code == 1
    assert done.err == b"vmrunner: error: RuntimeError: boom (VMRUNNER_DEBUG=1 shows where)\n"
    monkeypatch.setenv("VMRUNNER_DEBUG", "1")
    assert b"Traceback" in cli("ps").err


def test_the_command_line_starts_without_the_heavy_parts() -> None:
    code = "import sys, vmrunner.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"pydantic", "sqlalchemy", "fabric", "paramiko", "apscheduler", "yaml", "rich"}
    assert not loaded & heavy


def test_completion_knows_the_builds(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmrunner.cli import completion

    build = cli("run", "--name", "mine", "--", "say", "x").last[3]
    assert completion.build_ids("b-") == [(build, "mine")]
    assert completion.instance_ids("vm-") == []
    monkeypatch.setenv("VMRUNNER_CONFIG", "/nonexistent")
    assert completion.build_ids("b-") == []


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_files_of_ours(tmp_path: Path, closed: str) -> None:
    """The ledger would be the next file to get their number."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("VMRUNNER_")}
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m vmrunner ps -a {closed}'],
        env=environ | {"XDG_DATA_HOME": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert b"error" not in done.stderr
    ledger = (tmp_path / "data/vmrunner/ledger.db").read_bytes()
    assert ledger.startswith(b"SQLite format 3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), b"provider: fake starts no VM from a template (name a local one)"),
        (("--network", ""), b"--network: empty"),
        (("--cpus", "2"), b"provider: fake starts no VM from a template"),
        (("--cpus", "many"), b"cpus: 'many'"),
        (("--disk", "1 parsec"), b"disk: '1 parsec'"),
        (("--provider", "nowhere"), b"provider: no provider 'nowhere'"),
    ],
)
def test_a_template_that_cannot_be_is_refused(
    cli: Cli, words: tuple[str, ...], message: bytes
) -> None:
    done = cli("image", "template", *words)
    assert (done.code, message in done.err) == (2, True), done


def test_no_help_tells_a_type_of_python(cli: Cli) -> None:
    def commands(group: Any, *words: str) -> Iterator[tuple[str, ...]]:
        yield words
        for name, command in getattr(group, "commands", {}).items():
            yield from commands(command, *words, name)

    found = {words: cli(*words, "--help").out.decode() for words in commands(get_command(app()))}
    assert len(found) > 40
    choice = re.compile(r"<\w[\w-]*(\|\w[\w-]*)+>")  # such as <table|wide|json|jsonl>
    for words, text in found.items():
        assert "<" not in choice.sub("", text), words
        assert not re.search(r"\[\[|\{\w+…", text), words
    assert "[JOB]... [-- CMD…]\n" in found["run",]
    assert "\n  JOB  A job of vmrunner.yml" in found["run",]
    assert "artifacts get [OPTIONS] {ID} [PATH]...\n" in found["artifacts", "get"]
    assert "  --ttl DURATION " in found["image", "build"]
