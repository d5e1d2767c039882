"""Bugs to plant in parts of the ledger and the store that keep what was said (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

LOGS, BACKUP = "tests/integration/test_ledger_logs.py", "tests/integration/test_backup.py"
CALLS = "tests/integration/test_postgres_calls.py"

BUGS: Final = (
    Bug(
        "keep events that were told in the ledger for ever",
        "ledger/outbox.py",
        "            _FORGET(connection, before=now - KEEP)\n",
        "",
        "tests/integration/test_webhooks_given_up.py"
        "::test_what_was_told_is_remembered_for_a_week_and_forgotten",
    ),
    Bug(
        "put back a copy that nobody checked",
        "ledger/sqlite_copy.py",
        "            _check(stage)\n",
        "",
        f"{BACKUP}::test_a_copy_that_is_damaged_is_not_put_back",
    ),
    Bug(
        "forget what was seen at all providers",
        "ledger/sightings.py",
        '_s.provider == arg("provider"), or_(_s.place == arg("place"), _s.place == "")',
        'arg("provider") != "", or_(_s.place == arg("place"), _s.place == "")',
        f"{LOGS}::test_sightings_are_kept_for_each_place",
    ),
    Bug(
        "believe a row of a server that nobody knows",
        "ledger/database.py",
        "                if server in self._servers:\n                    found:",
        "                if server:\n                    found:",
        f"{CALLS}::test_no_look_up_believes_a_server_before_it_is_known",
    ),
    Bug(
        "take what the last statement was told for the next one's answer",
        "ledger/postgres_calls.py",
        "        client.close()  # what it says next belongs to these\n",
        "",
        f"{CALLS}::test_no_answer_is_taken_for_the_next_one",
    ),
    Bug(
        "write beside the transaction that the client has to begin",
        "ledger/postgres_calls.py",
        '        client.execute("SELECT")  # begins one, where the client does that\n',
        "        pass\n",
        f"{CALLS}::test_a_statement_is_of_the_clients_transaction",
    ),
)
