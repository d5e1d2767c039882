"""URLs of ledgers, as SQLAlchemy takes them."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from vmrunner.errors import ConfigError
from vmrunner.lib import database_url


def parse_url(text: str) -> URL:
    """Raises ConfigError unless it is a URL of a SQLite file or a PostgreSQL database."""
    try:
        url = make_url(database_url.spread(text))
    except (ArgumentError, ValueError) as error:
        raise _bad_url(database_url.shown(text)) from error
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername == "sqlite+pysqlite":
        url = url.set(drivername="sqlite")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise _bad_url(database_url.shown(text))
    if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigError(
            f"database.url: {text} is in memory and would not survive a crash",
            hint="name a file: sqlite:////absolute/path/ledger.db",
        )
    if url.drivername != "sqlite":
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "database.url: PostgreSQL needs a driver that is not installed",
                hint="pip install 'vmrunner[postgres]'",
            ) from error
    return url


def _bad_url(text: str) -> ConfigError:
    return ConfigError(
        f"database.url: {text} is not a database that vmrunner can use",
        hint="sqlite:////absolute/path/ledger.db or postgresql://user@host/name",
    )


def sqlite_path(url: URL) -> Path | None:
    """Return the file of a SQLite ledger."""
    if url.get_backend_name() != "sqlite" or url.database is None:
        return None
    return Path(url.database).absolute()
