"""Copies of a SQLite ledger, by SQLite's own online backup: the file is never opened but by it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from vmrunner.errors import LedgerError
from vmrunner.ledger import upgrade as schema
from vmrunner.ledger.connections import BUSY_MS, translated
from vmrunner.ledger.database import Database
from vmrunner.ledger.urls import LedgerUrl

_DAMAGED: Final = "the ledger's file is damaged: {}"


def url_of(file: Path) -> LedgerUrl:
    """Return the URL of a copy."""
    return LedgerUrl(f"sqlite:///{file}", file)


def save(database: Database, file: Path) -> None:
    """Copy it into a new file (0600), which needs none beside it. Raises LedgerError when what was
    copied is damaged."""
    file.touch(mode=0o600, exist_ok=False)
    try:
        with closing(sqlite3.connect(file)) as copy:
            database.copy_to(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            _check(copy)
    except sqlite3.Error as error:
        raise translated(error, url_of(file)) from error


def put_back(url: LedgerUrl, path: Path, file: Path, statements: Iterable[str]) -> None:
    """Put a copy in the place of the file at `path`, after these statements, as the newest version
    of the tables. Other processes may have that file open: they see all of it or nothing."""
    staged = path.with_name(f".{path.name}.restore")
    try:
        staged.unlink(missing_ok=True)  # of a restore that was killed
        staged.touch(mode=0o600)
        with closing(sqlite3.connect(file)) as copy, closing(sqlite3.connect(staged)) as stage:
            copy.backup(stage)
            _check(stage)
            with stage:
                for statement in statements:
                    stage.execute(statement)
        schema.upgrade(url_of(staged))
        with closing(sqlite3.connect(staged)) as stage, closing(sqlite3.connect(path)) as target:
            until = time.monotonic() + BUSY_MS / 1000
            stage.backup(target, progress=lambda status, *_: _not_for_ever(status, until))
            target.execute("PRAGMA journal_mode = WAL")
    except sqlite3.Error as error:
        raise translated(error, url) from error
    finally:
        staged.unlink(missing_ok=True)


def _check(connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise LedgerError(_DAMAGED.format(found), hint="restore a backup")


def _not_for_ever(status: int, until: float) -> None:
    if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > until:
        raise sqlite3.OperationalError("database is locked")
