"""`init`, `config path`, `config get`, `db status`, `version`: what one asks on the first day."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.integration.test_ledger_open import run_sql
from tests.support.command_line import Cli
from vmrunner import __version__
from vmrunner.config import sources
from vmrunner.ledger import Ledger

PROJECTS = [
    ({"Makefile": "all:\n\tcc x\ntest: all\n\t./x\n"}, ["make test"], "debian:trixie"),
    ({"Makefile": "X := 1\nall:\n\tcc x\n", "go.mod": ""}, ["go test ./..."], "golang:1"),
    ({"Makefile": "check :\n\t./x\n", "Cargo.toml": ""}, ["make check"], "debian:trixie"),
    ({"Cargo.toml": "", "Cargo.lock": ""}, ["cargo test --locked"], "rust:1"),
    ({"package.json": '{"scripts": {"test": "x"}}', "package-lock.json": ""},
     ["npm ci", "npm test"], "node:22"),
    ({"package.json": "[" * 5000}, ["npm install", "npm test"], "node:22"),
    ({"pyproject.toml": "[tool.pytest.ini_options]"}, ["pip install . pytest", "pytest"],
     "python:3.13"),
    ({"CMakeLists.txt": ""}, ["cmake -S . -B build", "cmake --build build",
     "ctest --test-dir build"], "debian:trixie"),
    ({}, ["echo it works; uname -a"], "debian:trixie"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "steps", "container"), PROJECTS)
def test_init_writes_a_job_that_fits_what_lies_there(
    cli: Cli, home: Path, files: dict[str, str], steps: list[str], container: str
) -> None:
    for name, text in files.items():
        (home / name).write_text(text)
    done = cli("init")
    assert done.out.decode().split() == ["vmrunner.yml", "vmrunner.schema.json"]
    text = (home / "vmrunner.yml").read_text()
    assert text.startswith("# yaml-language-server: $schema=vmrunner.schema.json\n")
    checked = cli("run", "--dry-run", "-f", "vmrunner.yml", "test", "-o", "json")
    assert checked.code == 0, checked.err
    (spec,) = checked.items
    assert [step["run"] for step in spec["steps"]] == steps
    assert spec["container"] == container


def test_each_line_that_init_comments_out_is_valid(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = home / "project"
    project.mkdir()
    assert cli("init", "project", "--config", "--no-schema").code == 0
    assert not (project / "vmrunner.schema.json").exists()
    job = project / "vmrunner.yml"
    assert not job.read_text().startswith("# yaml-language-server")
    job.write_text(re.sub(r"^    # (?=[a-z]+:)", "    ", job.read_text(), flags=re.MULTILINE))
    monkeypatch.setenv("TOKEN", "x" * 20)
    done = cli("run", "--dry-run", "-f", str(job), "test", "--secret", "TOKEN", "-o", "json")
    assert done.code == 0, done.err
    assert done.items[0]["memory"] == 4 << 30
    file = project / "vmrunner.toml"
    assert tomllib.loads(file.read_text())["providers"] == {"local": {"kind": "qemu"}}
    text = re.sub(r"^#(?=[a-z\[])", "", file.read_text(), flags=re.MULTILINE)
    assert set(tomllib.loads(text)) >= {"database", "server", "budgets", "notify", "limits"}
    file.write_text(text.replace('url = "postgresql://vmrunner@127.0.0.1/vmrunner"', ""))
    monkeypatch.setenv("VMRUNNER_CONFIG", str(file))
    shown = cli("config", "get", "limits.max_ttl")
    assert (shown.code, shown.out) == (0, b"4h\n"), shown.err


def test_a_first_configuration_holds_beside_the_users(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two providers and no default, and each command asked for one."""
    mine = home / "mine.toml"
    mine.write_text('[providers.cloud]\nkind = "ec2"\nregion = "eu-west-1"\nsubnets = ["s-1"]\n')
    project = home / "project"
    project.mkdir()
    assert cli("init", "project", "--config").code == 0
    monkeypatch.setattr(sources, "user_file", lambda: mine)
    monkeypatch.delenv("VMRUNNER_CONFIG", raising=False)
    monkeypatch.chdir(project)
    shown = cli("config", "show", "-o", "json")
    assert {item["key"]: item["value"] for item in shown.items}["default_provider"] == "local"
    done = cli("run", "--dry-run", "-f", "vmrunner.yml", "test", "-o", "json")
    assert (done.code, done.items[0]["provider"]) == (0, "local"), done.err


def test_init_overwrites_nothing(cli: Cli, home: Path, tmp_path: Path) -> None:
    project = home / "project"
    project.mkdir()
    (project / "vmrunner.yml").write_text("mine")
    refused = cli("init", "project")
    assert (refused.code, b"stays as it is" in refused.err) == (5, True)
    assert [path.name for path in project.iterdir()] == ["vmrunner.yml"]
    elsewhere = tmp_path / "elsewhere"
    (project / "vmrunner.toml").symlink_to(elsewhere)  # a name that is taken by nothing
    assert cli("init", "project", "--config").code == 5
    assert not elsewhere.exists()
    assert (project / "vmrunner.yml").read_text() == "mine"
    assert cli("init", "nowhere").code == 2


def test_config_path_says_which_files_hold(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VMRUNNER_CONFIG", raising=False)
    (home / "vmrunner.toml").write_text("this is = no TOML [")
    rows = {row["source"]: row for row in cli("config", "path", "-o", "json").items}
    assert list(rows) == ["user", "project"]
    assert rows["user"]["state"] == "absent"
    assert (rows["project"]["state"], rows["project"]["path"]) == (
        "used",
        str(home / "vmrunner.toml"),
    )
    monkeypatch.setenv("VMRUNNER_CONFIG", "other.toml")
    rows = {row["source"]: row["state"] for row in cli("config", "path", "-o", "json").items}
    assert rows == {"project": "unread", "VMRUNNER_CONFIG": "absent"}


def test_config_get_prints_a_value_alone(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMRUNNER_LIMITS__MAX_INSTANCES", "7")
    monkeypatch.setenv("VMRUNNER_DATABASE_URL", "postgresql://u:hunter2hunter2@h/d")
    assert cli("config", "get", "limits.max_instances").out == b"7\n"
    assert cli("config", "get", "limits.privileged").out == b"false\n"
    assert cli("config", "get", "limits.images").out == b"\n"
    assert json.loads(cli("config", "get", "limits").out)["max_instances"] == 7
    assert cli("config", "get", "database.url").out == b"postgresql://u:***@h/d\n"
    for word, meant in (("limits.max_instance", "limits.max_instances"), ("limit", "limits")):
        refused = cli("config", "get", word)
        assert (refused.code, f"did you mean '{meant}'?".encode() in refused.err) == (3, True)
    far = cli("config", "get", "zzz").err
    assert far == b"vmrunner: error: no key 'zzz' (vmrunner config show lists them)\n"


def test_db_status_upgrades_nothing(
    url: str, data_dir: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMRUNNER_DATABASE_URL", url)
    if "sqlite" in url:
        (fresh,) = cli("db", "status", "-o", "json").items
        assert (fresh["version"], fresh["pending"], data_dir.exists()) == (None, [], False)
    Ledger.open(url, data_dir=data_dir).close()
    (whole,) = cli("db", "status", "-o", "json").items
    assert whole["version"] == whole["newest"]
    assert whole["pending"] == []
    assert whole["bytes"] > 100_000
    run_sql(url, "UPDATE alembic_version SET version_num = '0018'")
    for _ in range(2):
        (old,) = cli("db", "status", "-o", "json").items
        assert (old["version"], old["pending"][0]) == ("0018", "0019")
    assert b"vmrunner db upgrade" in cli("db", "status").err
    run_sql(url, "UPDATE alembic_version SET version_num = '9999'")
    newer = cli("db", "status")
    assert (newer.code, b"a newer vmrunner" in newer.err) == (0, True)


def test_versions_for_people_and_scripts(cli: Cli) -> None:
    plain = f"vmrunner {__version__}\n".encode()
    assert cli("-V").out == cli("--version").out == cli("version").out == plain
    (row,) = cli("version", "-o", "json").items
    assert row["vmrunner"] == __version__
    assert row["tables"].isdecimal()
