"""URLs of ledgers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vmrunner.errors import ConfigError
from vmrunner.lib import database_url

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

#: Schemes of URLs, and the name by which SQLAlchemy takes each.
_DRIVERS: Final = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


@dataclass(frozen=True)
class LedgerUrl:
    """A URL of a ledger; `text` is how SQLAlchemy takes it. `file`: of SQLite, whatever is in its
    name."""

    text: str
    file: Path | None = None

    def get_backend_name(self) -> str:
        """The name of the database's kind: sqlite or postgresql."""
        return self.text.partition(":")[0].partition("+")[0]

    @cached_property
    def _parts(self) -> database_url.ConnectArguments:
        return database_url.connect_arguments(self.text)

    @property
    def database(self) -> str | None:
        return self._parts.database if self.file is None else str(self.file)

    @property
    def query(self) -> Mapping[str, str | tuple[str, ...]]:
        return self._parts.query

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a PostgreSQL client's connection."""
        return self._parts.arguments

    def render_as_string(self) -> str:
        """The URL, with its password."""
        return self.text

    @property
    def of_sqlalchemy(self) -> URL:
        from sqlalchemy.engine import URL, make_url

        if self.file is not None:
            return URL.create("sqlite", database=str(self.file))
        url = make_url(self.text)
        if self.get_backend_name() == "sqlite":  # it reads %XX in a path, which nobody else does
            url = url.set(database=self.database)
        return url


def parse_url(text: str) -> LedgerUrl:
    """Raises ConfigError unless it is a URL of a SQLite file or a PostgreSQL database."""
    try:
        scheme, _, rest = database_url.spread(text).partition("://")
        url = LedgerUrl(f"{_DRIVERS[scheme]}://{rest}")
        database = url.database
    except (KeyError, ValueError) as error:
        raise _bad_url(database_url.shown(text)) from error
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite and database in (None, "", ":memory:"):
        raise ConfigError(
            f"database.url: {text} is in memory and would not survive a crash",
            hint="name a file: sqlite:////absolute/path/ledger.db",
        )
    if not sqlite:
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


def sqlite_path(url: LedgerUrl) -> Path | None:
    """Return the file of a SQLite ledger."""
    if url.get_backend_name() != "sqlite" or url.database is None:
        return None
    return Path(url.database).absolute()
