"""Statements that were compiled ahead are what SQLAlchemy makes of the ledger's modules now."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from vmrunner import ledger
from vmrunner.ledger import frozen, upgrade
from vmrunner.ledger.sql import Deferred, columns_of, real, select
from vmrunner.ledger.statements import Compiled, Prepared, arg
from vmrunner.ledger.tables import BUILDS, LABELS
from vmrunner.ledger.urls import parse_url

ROOT = Path(__file__).parents[3]


def statements() -> Iterator[tuple[str, Prepared]]:
    for module in pkgutil.iter_modules(ledger.__path__, f"{ledger.__name__}."):
        if module.name.rpartition(".")[2] not in ("migrations", "models", "column_types"):
            importlib.import_module(module.name)
            yield from frozen.named(module.name)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_each_frozen_statement_is_what_is_compiled(dialect: str) -> None:
    found = dict(statements())
    assert len(found) > 200
    for name, statement in found.items():
        text = frozen.find(statement, dialect)
        assert text is not None, name
        assert Compiled(*text) == statement.compiled(dialect), name


def content(file: Path) -> tuple[list[str], list[tuple[object, ...]]]:
    """All of a database in no order, and the columns of its tables."""
    with closing(sqlite3.connect(file)) as made:
        names = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        tables = [name for (name,) in made.execute(names)]
        columns = [row for name in tables for row in made.execute(f"PRAGMA table_info({name})")]
        return sorted(made.iterdump()), columns


def test_a_new_ledger_is_what_all_migrations_make(tmp_path: Path) -> None:
    ready, migrated = tmp_path / "ready.db", tmp_path / "migrated.db"
    upgrade.migrate(parse_url(f"sqlite:///{migrated}"))
    assert upgrade.upgrade(parse_url(f"sqlite:///{ready}")) == upgrade.known()[-1]
    assert content(ready) == content(migrated)


@pytest.mark.parametrize("written", ["none", "former"])
def test_a_new_ledger_has_migrations_that_came_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """As where one was written and `scripts/statements` did not run yet."""
    migrated = tmp_path / "migrated.db"
    upgrade.migrate(parse_url(f"sqlite:///{migrated}"))
    monkeypatch.setattr(frozen, "NEW_LEDGER", tmp_path / "new.json")
    if written == "former":
        former = tmp_path / "former.db"
        upgrade.migrate(parse_url(f"sqlite:///{former}"), to=upgrade.known()[-2])
        with closing(sqlite3.connect(former)) as ledger:
            _begin, *made, _commit = ledger.iterdump()
        (tmp_path / "new.json").write_text(json.dumps(made))
    ready = tmp_path / "ready.db"
    upgrade.upgrade(parse_url(f"sqlite:///{ready}"))
    assert content(ready) == content(migrated)


def test_the_generator_agrees_with_its_files() -> None:
    subprocess.run([sys.executable, ROOT / "scripts/statements", "--check"], check=True)


def test_a_statement_for_one_occasion_is_not_frozen() -> None:
    made = Prepared(lambda: select(BUILDS.c.id).where(BUILDS.c.id == arg("id")))
    assert frozen.find(made, "sqlite") is None
    assert made.compiled("sqlite").text.split() == (
        ["SELECT", "builds.id", "FROM", "builds", "WHERE", "builds.id", "=", ":p_id"]
    )


def test_what_is_put_off_is_neither_true_nor_a_list() -> None:
    condition = BUILDS.c.state == "queued"
    assert isinstance(condition, Deferred)
    with pytest.raises(TypeError, match="neither true nor false"):
        bool(condition)
    with pytest.raises(TypeError):
        iter(condition)
    with pytest.raises(AttributeError, match="builds has no column stat"):
        _ = BUILDS.c.stat


def test_what_is_put_off_becomes_sqlalchemys_own() -> None:
    from sqlalchemy import column, table

    build = LABELS.c.build
    text = str(real(select(LABELS.c.name).where((build == "x") | ~(build > "y"))))
    labels = table("labels", *map(column, columns_of(LABELS))).c
    from sqlalchemy import select as theirs

    assert text == str(theirs(labels.name).where((labels.build == "x") | ~(labels.build > "y")))
