"""The version of a database's tables, and the upgrade to the newest.

A database is read far more often than it is migrated, and Alembic takes a tenth of a second to
import: it is loaded only when there is something to do.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table, text
from sqlalchemy.engine import URL

from vmrunner.errors import ConfigError
from vmrunner.ledger.connections import single_transaction
from vmrunner.ledger.statements import Prepared
from vmrunner.ledger.tables import ALL
from vmrunner.lib import database_url

_MIGRATIONS = Path(__file__).parent / "migrations"
_FOUND = Prepared(lambda: select(column("version_num")).select_from(table("alembic_version")))


@cache
def known() -> list[str]:
    """Return all versions that this code knows, oldest first: the numbers that their files begin
    with. Read once: an upgrade of the program writes others where they are."""
    files = (_MIGRATIONS / "versions").glob("[0-9]*_*.py")
    return sorted(path.name.partition("_")[0] for path in files)


def version(connection: Connection) -> str | None:
    """The database's version; None when it has no tables of ours yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def difference(connection: Connection) -> str:
    """Return what is wrong with the version of a ledger that was opened, in words; empty: nothing.
    While nodes run, one of a newer vmrunner may have upgraded it."""
    found = _FOUND(connection).scalar()
    if found == known()[-1]:
        return ""
    return (
        f"the ledger has version {found} and this process knows {known()[-1]}: it launches and "
        "concludes nothing, and kills what is past its deadline alone"
    )


def _ours(connection: Connection, url: URL) -> str | None:
    """Return the version of a database that may be ours. Raises ConfigError for another
    program's."""
    found = version(connection)
    tables = set(inspect(connection).get_table_names())
    # A server's database may be shared, as long as no name is taken twice.
    strange = tables if url.get_backend_name() == "sqlite" else tables & {ours.name for ours in ALL}
    if (found is None and strange) or (found is not None and "ledger" not in tables):
        some = ", ".join(sorted(tables)[:3])
        shown = database_url.shown(url.render_as_string(hide_password=False))
        raise ConfigError(
            f"database.url: {shown} is another program's: it has the tables {some}",
            hint="name another one, with VMRUNNER_DATABASE_URL or [database] url",
        )
    return found


def behind(found: str | None) -> bool:
    """True if a database of this version needs an upgrade. Raises ConfigError when it is newer."""
    versions = known()
    if found is not None and found not in versions:
        raise ConfigError(
            f"database.url: the ledger has version {found}; this vmrunner knows {versions[-1]}",
            hint="it was upgraded by a newer vmrunner: use that one",
        )
    return found != versions[-1]


def current(url: URL) -> str | None:
    """The version of the database at `url`."""
    with single_transaction(url) as connection:
        return _ours(connection, url)


def upgrade(url: URL) -> str:
    """Bring the database at `url` to the newest version, all or nothing; returns that version."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with single_transaction(url, vmrunner_write=True) as connection:
        if behind(_ours(connection, url)):
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return known()[-1]
