"""Bugs to plant in upgrades of a ledger that nodes use meanwhile (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

STEPS, TESTS = "ledger/migrations/steps.py", "tests/integration/test_upgrade.py"

BUGS: Final = (
    Bug(
        "fill rows in the transaction that changed their table",
        STEPS,
        "def fill(table: str, values: str, where: str) -> None:\n"
        '    """Set `values` (SQL) in the rows `where` (SQL), in batches by `id`."""\n'
        "    if not beside_others():\n",
        "def fill(table: str, values: str, where: str) -> None:\n"
        '    """Set `values` (SQL) in the rows `where` (SQL), in batches by `id`."""\n'
        "    if True:\n",
        f"{TESTS}::test_others_read_and_write_during_long_steps",
    ),
    Bug(
        "fill the first batch alone",
        STEPS,
        "            last = ids[-1]\n",
        "            break\n",
        f"{TESTS}::test_two_upgrades_do_not_run_at_once",
    ),
    Bug(
        "take an index that was half made for whole",
        STEPS,
        'if op.get_bind().execute(half_made, {"name": name}).scalar():',
        "if not half_made:",
        f"{TESTS}::test_an_index_that_was_half_made_is_made_anew",
    ),
    Bug(
        "let rows of later have what those of before were filled with",
        STEPS,
        "        server_default=None if later is None else sa.text(later),\n",
        "        server_default=sa.text(value),\n",
        f"{TESTS}::test_a_new_row_has_no_filled_value",
    ),
    Bug(
        "begin a migration that was cut short as though it were new",
        STEPS,
        "    op.add_column(table, column, if_not_exists=True if beside_others() else None)\n",
        "    op.add_column(table, column)\n",
        f"{TESTS}::test_an_upgrade_that_was_cut_short_goes_on",
    ),
    Bug(
        "keep all others waiting behind a change that waits",
        "ledger/upgrade.py",
        "    if not driver(connection).autocommit:\n",
        "    if False:\n",
        f"{TESTS}::test_a_change_waits_shortly_and_comes_back",
    ),
    Bug(
        "upgrade beside another upgrade",
        "ledger/upgrade.py",
        'if guard.execute(f"SELECT pg_try_advisory_xact_lock({_LOCK})").fetchone()[0]:',
        "if guard:",
        f"{TESTS}::test_two_upgrades_do_not_run_at_once",
    ),
)
