"""Copies of a PostgreSQL ledger, by its own programs: pg_dump, pg_restore, psql."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from vmrunner.errors import ConfigError, LedgerError
from vmrunner.ledger.connections import defaults, single_transaction
from vmrunner.ledger.sql import Connection
from vmrunner.ledger.tables import ALL
from vmrunner.ledger.urls import LedgerUrl

T = TypeVar("T")

#: Nothing else of the database: it may be shared with other programs.
_TABLES: Final = (*(table.name for table in ALL), "alembic_version")
_PLAIN: Final = ("--no-owner", "--no-privileges")


def save(url: LedgerUrl, file: Path, facts: Callable[[Connection], T]) -> T:
    """Dump it into a new file, in pg_dump's custom format; return what `facts` reads in the very
    snapshot of the dump."""
    with single_transaction(url, isolation_level="REPEATABLE READ") as connection:
        # A server that ends idle transactions would end the snapshot.
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        snapshot = connection.exec_driver_sql("SELECT pg_export_snapshot()").scalar_one()
        found = facts(connection)
        file.touch(mode=0o600, exist_ok=False)
        tables = [f"--table={name}" for name in _TABLES]
        _run(
            url, "pg_dump", "--format=custom", *_PLAIN, *tables, f"--snapshot={snapshot}",
            f"--file={file}", "--lock-wait-timeout=30s",
        )  # fmt: skip
        return found


def put_back(url: LedgerUrl, file: Path, statements: Iterable[str]) -> None:
    """Put a dump in the place of the tables that are there, and run these statements, all in one
    transaction."""
    drop = f"DROP TABLE IF EXISTS {', '.join(_TABLES)} CASCADE"
    # The dump leaves an empty search path behind.
    after = [f"--command={text}" for text in ("RESET search_path", *statements)]
    with tempfile.NamedTemporaryFile(suffix=".sql") as script:
        # A pipe would end well for psql where pg_restore fails in the middle.
        _run(None, "pg_restore", *_PLAIN, f"--file={script.name}", str(file))
        _run(
            url, "psql", "--no-psqlrc", "--quiet", "--single-transaction",
            "--set=ON_ERROR_STOP=1", "--command=SET lock_timeout = '30s'", f"--command={drop}",
            f"--file={script.name}", *after,
        )  # fmt: skip


def _run(url: LedgerUrl | None, program: str, *arguments: str) -> None:
    environment = dict(os.environ)
    if url is not None:
        options = dict(url.arguments)
        password = options.pop("password", None)
        if password is not None:  # not in the argument list, which any user may read
            environment["PGPASSWORD"] = str(password)
        arguments = (f"--dbname={_conninfo({**defaults(url), **options})}", *arguments)
    try:
        done = subprocess.run(
            [program, *arguments], env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise ConfigError(
            f"{program} is not here, which copies of a PostgreSQL ledger need",
            hint="apt-get install postgresql-client, of the server's version or a newer one",
        ) from error
    if done.returncode:
        words = "; ".join(done.stderr.strip().splitlines()[:3]) or f"exit code {done.returncode}"
        raise LedgerError(f"the ledger's database failed: {words}", hint="nothing was changed")


def _conninfo(options: Mapping[str, Any]) -> str:
    from psycopg.conninfo import make_conninfo

    return make_conninfo(**options)
