"""Bugs to plant in what many nodes of one ledger rest on (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

DATABASE = "ledger/database.py"
FAILOVER = "tests/integration/test_failover.py"
DRIFT = "tests/integration/test_schema_drift.py"

NODE_BUGS: Final = (
    Bug(
        "prepare statements where a proxy pools transactions",
        "ledger/connections.py",
        '{"prepare_threshold": None}',
        "{}",
        "tests/integration/test_ledger_together.py::test_who_claims_at_once_keeps_one_limit",
    ),
    Bug(
        "trust whichever server answers",
        DATABASE,
        "if servers is not None or server in self._servers:",
        "if True:",
        f"{FAILOVER}::test_what_a_standby_lacks_is_noticed_before_anything_is_written",
    ),
    Bug(
        "stay with a connection whose server is gone",
        DATABASE,
        "if not (lost and kept):",
        "if True:",
        f"{FAILOVER}::test_a_failover_loses_nothing_and_does_nothing_twice",
    ),
    Bug(
        "go on when somebody upgraded the ledger",
        "ledger/ledger.py",
        "        self._database.check(schema.difference)\n",
        "",
        f"{DRIFT}::test_a_node_under_other_tables_only_kills_past_the_deadline",
    ),
    Bug(
        "wait for a node that knows other tables",
        "engine/membership.py",
        "here is None or here.outdated",
        "here is None",
        f"{DRIFT}::test_who_knows_other_tables_is_told_and_gone",
    ),
)
