"""What a former release left goes on: its ledger, its configuration, a driver written for its port.
All three are frozen in `tests/data/former`, with what that release said of them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support import thirdparty
from tests.support.command_line import isolated

ROOT = Path(__file__).parents[2]
FORMER = thirdparty.FORMER.parent
INSTALLATION = "2eb418c5-a653-4374-b8d0-6af479330a2b"
CONFIG = """
default_provider = "there"
secret_key = "FQD5q6Y81NHJ1im8ZwXiXEPE5wmHRoVPvRJm2jBDodc="

[[budgets]]
match = { team = "core" }
usd_per_month = 1000

[caches]
scope = ["ref"]

[providers.there]
kind = "former"
region = "south"
max_instances = 3
"""
#: The command line, with builds that do what their steps spell.
SCRIPTED = """
import sys
from tests.support.scripted_app import Scripted
from vmrunner.cli import main
from vmrunner.runtime.app import App
class Wired(App):
    def sessions(self): return Scripted
sys.exit(main(sys.argv[1:], join=lambda loaded: Wired(loaded.settings)))
"""
#: Of what goes on after the dump: a VM that is being deleted, a build that waits.
MOVING = {"waiting", "deletes"}

Documents = dict[str, list[dict[str, Any]]]
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line over what that release left, once its ledger was upgraded."""
    home = isolated(tmp_path, monkeypatch)
    site = thirdparty.install(home / "site", thirdparty.FORMER)
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    data = home / "data/vmrunner"
    (home / "config/vmrunner").mkdir(parents=True)
    data.mkdir(parents=True)
    (home / "config/vmrunner/config.toml").write_text(CONFIG)
    (data / "installation").write_text(INSTALLATION)
    shutil.copytree(FORMER / "store", data / "store")
    with closing(sqlite3.connect(data / "ledger.db")) as database:
        database.executescript((FORMER / "ledger.sql").read_text())

    def call(*argv: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPTED, *argv],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("db", "upgrade")
    return call


@pytest.fixture(scope="module")
def former() -> Documents:
    documents: Documents = json.loads((FORMER / "documents.json").read_text())
    return documents


def changes(now: object, former: object, field: str = "") -> list[str]:
    """What a former value has that today's has not, or otherwise; fields may be added."""
    match now, former:
        case dict(), dict():
            kept = former.keys() - MOVING
            return [c for key in kept for c in changes(now.get(key), former[key], f"{field}.{key}")]
        case list(), list() if len(now) == len(former):
            pairs = zip(now, former, strict=True)
            return [c for n, (a, b) in enumerate(pairs) for c in changes(a, b, f"{field}[{n}]")]
        case _:
            return [] if now == former else [f"{field}: {former!r} was, {now!r} is"]


def now(run: Run, *argv: str) -> dict[str, dict[str, Any]]:
    """Documents of a command by their first field, which names them."""
    items = json.loads(run(*argv, "-o", "json"))["items"]
    return {item.get("id", item.get("key")): item for item in items}


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("ps", ("ps", "-a")),
        ("vm", ("vm", "ls", "-a")),
        ("token", ("token", "ls")),
        ("costs", ("costs", "--by", "label:team", "--since", "3650d")),
    ],
)
def test_its_rows_read_as_they_did(
    run: Run, former: Documents, kind: str, command: tuple[str, ...]
) -> None:
    found = now(run, *command)
    for document in former[kind]:
        assert changes(found[document.get("id", document.get("key"))], document) == []


def test_each_build_shows_as_it_did(run: Run, former: Documents) -> None:
    for document in former["show"]:
        (found,) = now(run, "show", document["id"]).values()
        assert changes(found, document) == [], document["name"]
    by_name = {document["name"]: document["id"] for document in former["show"]}
    assert run("logs", by_name["passes"]) == "hello\n"
    assert run("logs", by_name["fails"]) == "one\n"


def test_its_driver_runs_builds_beside_its_ledger(run: Run) -> None:
    """The build that waits too, once launching is on again."""
    run("drain", "--off")
    assert run("run", "--", "say again") == "again\n"
    assert run("logs", "--follow", "waits") == "later\n"
    builds = {item["name"]: item for item in now(run, "ps", "-a").values()}
    assert builds["waits"]["result"] == "success"
    assert builds["waits"]["cost"] >= 0.6


def test_each_value_of_its_configuration_is_read_the_same(run: Run, tmp_path: Path) -> None:
    shutil.copy(FORMER / "config.toml", tmp_path / "config/vmrunner/config.toml")
    shown = json.loads(run("config", "show", "-o", "json"))["items"]
    values = {item["key"]: item["value"] for item in shown}
    former = json.loads((FORMER / "config.json").read_text())
    assert changes(values, former) == []
