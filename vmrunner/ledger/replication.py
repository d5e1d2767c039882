"""Standbys of a PostgreSQL server, and whether they have all that was committed."""

from __future__ import annotations

from typing import Final

from vmrunner.ledger.sql import Connection, text
from vmrunner.ledger.statements import run

#: Who may not see the state of a standby sees that there is one.
_STATE: Final = text(
    "SELECT current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), "
    "(SELECT count(*) FROM pg_stat_replication WHERE state IS NULL OR state <> 'backup')"
)


def risk(connection: Connection) -> str:
    """A message about how committed transactions may be lost; "": nothing is known of that."""
    commit, names, standbys = run(connection, _STATE).one()
    if commit == "off":
        return "synchronous_commit is off: when the server crashes, its last commits are lost"
    if standbys and (not names or commit == "local"):
        lax = "synchronous_commit is local" if names else "synchronous_standby_names is empty"
        return (
            f"a standby is connected, and {lax}: a failover loses the last commits, and then "
            "no row tells of their VMs"
        )
    return ""
