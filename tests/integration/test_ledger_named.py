"""A ledger that somebody named: what is no ledger, or mistyped, is told with its fix, and nothing
is left where nothing was."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from tests.support.command_line import Cli
from vmrunner.errors import ConfigError
from vmrunner.ledger import upgrade


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    return place


def ran(cli: Cli, monkeypatch: pytest.MonkeyPatch, url: str, *argv: str) -> tuple[int, str]:
    monkeypatch.setenv("VMRUNNER_DATABASE_URL", url)
    done = cli(*(argv or ("ps",)))
    return done.code, done.err.decode()


def test_a_mistyped_path_makes_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    for path in (place / "typo" / "l.db", place / "l.db"):
        for argv in (("ps",), ("show", "x"), ("vm", "ls"), ("audit",), ("doctor",)):
            code, err = ran(cli, monkeypatch, f"sqlite:///{path}", *argv)
            assert code != 0, argv
        assert f"{path.parent} is not there (mkdir -p" in err or f"no ledger at {path}" in err
        assert list(place.iterdir()) == []


def test_who_wants_a_ledger_there_gets_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    empty = (0, "vmrunner: no build; ps -a shows finished ones too\n")
    for n, argv in enumerate((("db", "upgrade"), ("drain",))):
        url = f"sqlite:///{place}/l{n}.db"
        assert ran(cli, monkeypatch, url)[0] == 2
        assert ran(cli, monkeypatch, url, *argv)[0] == 0
        assert ran(cli, monkeypatch, url) == empty


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite:////"])
def test_a_url_without_a_file_is_refused(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    code, err = ran(cli, monkeypatch, url)
    assert code == 2
    assert f"database.url: {url} names no file" in err


def test_what_is_no_file_leaves_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    os.mkfifo(place / "pipe")
    code, err = ran(cli, monkeypatch, f"sqlite:///{place}/pipe", "drain")
    assert code == 2
    assert f"the file {place}/pipe cannot be opened: it is no file" in err
    assert [path.name for path in place.iterdir()] == ["pipe"]


def test_another_programs_file_is_left_as_it_is(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    for name, table in (("a.db", "builds"), ("b.db", "contacts"), ("c.db", "alembic_version")):
        with closing(sqlite3.connect(place / name)) as other:
            other.execute(f"CREATE TABLE {table} (version_num)")
            other.execute(f"INSERT INTO {table} VALUES ('0004')")
            other.commit()
        before = (place / name).read_bytes()
        code, err = ran(cli, monkeypatch, f"sqlite:///{place}/{name}")
        assert code == 2
        assert f"{place}/{name} is another program's: it has the tables {table}" in err
        assert "VMRUNNER_DATABASE_URL" in err
        assert (place / name).read_bytes() == before
        assert not (place / f"{name}.d").exists()


def test_a_damaged_ledger_is_named_with_its_fix(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    (place / "l.db").write_bytes(b"this is no database" * 1000)
    code, err = ran(cli, monkeypatch, f"sqlite:///{place}/l.db")
    assert code == 1
    assert f"file is not a database ({place}/l.db)" in err
    assert "restore a backup" in err
    assert "reachable" not in err


def test_a_server_that_is_away_leaves_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    code, err = ran(cli, monkeypatch, "postgresql://127.0.0.1:1/none")
    assert code == 1
    assert "see whether the database is up and reachable" in err
    assert not (home / "data").exists()


def test_another_programs_database_is_shown_without_its_password() -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num TEXT)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('abc')"))
        url = make_url("postgresql+psycopg://db/app?user=vm&password=s3cret")
        with pytest.raises(ConfigError, match="is another program's") as raised:
            upgrade._ours(connection, url)
    assert "s3cret" not in str(raised.value)
    engine.dispose()
