"""Nothing counts on the order of columns: a model can be put in any order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tests.support.ledger_builds import finished, running
from vmrunner.ledger import Ledger
from vmrunner.model import TokenScope


def parts_of(text: str) -> list[str]:
    """Columns and constraints of a table's text: what commas part that no parenthesis holds."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def turn_around(file: Path) -> None:
    """Put the columns of each table in the opposite order, with all that holds for them."""
    with closing(sqlite3.connect(file)) as database:
        found = database.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        ).fetchall()
        indexes = database.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
        for name, text in found:
            lines = parts_of(text[text.index("(") + 1 : text.rindex(")")])
            names = [row[1] for row in database.execute(f"PRAGMA table_info({name})")]
            columns = [line for line in lines if line.split()[0].strip('"') in names]
            rest = [line for line in lines if line not in columns]
            assert len(columns) == len(names), text
            listed = ", ".join(f'"{column}"' for column in names)
            database.execute(f"ALTER TABLE {name} RENAME TO former")
            database.execute(f"CREATE TABLE {name} ({', '.join([*columns[::-1], *rest])})")
            database.execute(f"INSERT INTO {name} ({listed}) SELECT {listed} FROM former")
            database.execute("DROP TABLE former")
            turned = [row[1] for row in database.execute(f"PRAGMA table_info({name})")]
            assert turned == names[::-1]
        for (text,) in indexes:
            database.execute(text)
        database.commit()


def story(ledger: Ledger) -> Iterator[object]:
    finished(ledger, "b-1", chunks=2)
    running(ledger, "b-2", "vm-b-2")
    ledger.tokens.create("ci", frozenset({TokenScope.SUBMIT}), by="me", now=1.0)
    for build in ("b-1", "b-2"):
        yield ledger.builds.get(build), ledger.events.list(build), ledger.logs.read(build)
    yield ledger.builds.list(), ledger.builds.counts(), ledger.metrics.deaths()
    yield ledger.instances.list(), ledger.instances.open(), ledger.spending.since(0.0, {})
    yield [(token.name, token.scopes, token.created_by) for token in ledger.tokens.list()]
    yield ledger.engines.list(), ledger.images.list(), ledger.pools.all(), ledger.caches.list()


def test_a_ledger_with_turned_columns_tells_the_same(tmp_path: Path) -> None:
    stories = []
    for name in ("plain", "turned"):
        home = tmp_path / name
        url = f"sqlite:///{home}/ledger.db"
        Ledger.open(url, data_dir=home).close()
        if name == "turned":
            turn_around(home / "ledger.db")
        ledger = Ledger.open(url, data_dir=home)
        stories.append(list(story(ledger)))
        ledger.close()
    assert stories[0] == stories[1]
