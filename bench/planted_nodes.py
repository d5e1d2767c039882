"""Bugs to plant in what many nodes of one ledger rest on (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

DATABASE = "ledger/database.py"
FAILOVER = "tests/integration/test_failover.py"
DRIFT = "tests/integration/test_schema_drift.py"

CHANGES = "tests/integration/test_ledger_changes.py"
IDLE = "tests/integration/test_idle_cost.py"
SHARED = "tests/integration/test_ledger_shared_writes.py"
NOT_ANSWERED = "tests/faults/test_failovers.py::test_who_is_not_answered_takes_nothing_for_granted"
OPEN_ROWS, ATTENTION = "ledger/open_rows.py", "engine/work_selection.py"

BUGS: Final = (
    Bug(
        "miss what a failed tick read",
        "engine/snapshot.py",
        "        if not finished:",
        "        if False:",
        "tests/unit/engine/test_reconciler.py::test_what_a_failed_tick_read_is_looked_at_again",
    ),
    Bug(
        "look no more at a VM that was another's for a while",
        "engine/poller.py",
        "                self._next.pop(name, None)\n",
        "",
        "tests/unit/engine/test_poller.py::test_a_vm_that_was_anothers_has_its_turn_again",
    ),
    Bug(
        "number no changes",
        DATABASE,
        "                    change_counter.draw(connection)\n",
        "",
        f"{CHANGES}::test_a_reader_follows_each_change",
    ),
    Bug(
        "number what nobody asks for",
        "ledger/change_counter.py",
        "        changes = bool(names - _QUIET)\n",
        "        changes = bool(names)\n",
        f"{CHANGES}::test_a_log_and_a_lease_are_no_change",
    ),
    Bug(
        "number another transaction's changes",
        "ledger/change_counter.py",
        'literal_column("-txid_current()")',
        'literal_column("1-txid_current()")',
        f"{CHANGES}::test_a_reader_follows_each_change",
    ),
    Bug(
        "never read all again",
        OPEN_ROWS,
        " or not 0 <= now - self._whole < WHOLE\n",
        "\n",
        f"{CHANGES}::test_what_no_transaction_told_is_found_in_time",
    ),
    Bug(
        "keep what was decoded of a row that differs when all are read",
        OPEN_ROWS,
        "row[-1] and row != self._read.get(row[0])",
        "row[-1] and row[0] not in self._read",
        f"{CHANGES}::test_a_whole_read_decodes_what_differs",
    ),
    Bug(
        "take rows in the order in which they changed",
        OPEN_ROWS,
        "        values.sort(key=lambda value: value[0])\n",
        "",
        f"{CHANGES}::test_rows_stay_in_order_however_they_come",
    ),
    Bug(
        "forget whose turn it was when no slot was free",
        "engine/poller.py",
        "                    self._late += [row.id for row in part]\n",
        "                    pass\n",
        "tests/unit/engine/test_poller.py::test_whoever_finds_no_free_slot_waits_for_the_next",
    ),
    Bug(
        "believe a counter that went back",
        OPEN_ROWS,
        "or not before.leads_to(mark) or",
        "or",
        f"{CHANGES}::test_a_database_that_was_set_back_is_read_whole",
    ),
    Bug(
        "forget a build that just goes on until its end",
        ATTENTION,
        "snapshot.changed | touched | self._due(snapshot)",
        "snapshot.changed | touched",
        f"{IDLE}::test_an_idle_node_reads_no_more_the_more_is_open",
    ),
    Bug(
        "let a build whose VM ended go on",
        ATTENTION,
        "            and active.stopped is None\n",
        "",
        "tests/unit/engine/test_reconciler.py::test_a_session_whose_vm_ended_is_heard_for_a_while",
    ),
    Bug(
        "prepare statements where a proxy pools transactions",
        "ledger/connections.py",
        '"prepare_threshold": None, ',
        "",
        "tests/integration/test_ledger_together.py::test_no_build_is_claimed_twice",
    ),
    Bug(
        "keep what a look that was interrupted began with",
        "ledger/database.py",
        "self._stop_looking()  # a look that was not read to its end",
        "pass  # a look that was not read to its end",
        "tests/integration/test_ledger_shared.py::test_a_look_that_was_interrupted_hides_nothing",
    ),
    Bug(
        "undo all ends that share a commit where one of them fails",
        "ledger/shared_writes.py",
        'raw.execute("ROLLBACK TO shared").close()',
        "raise",
        f"{SHARED}::test_of_ends_together_each_has_its_own_fate",
    ),
    Bug(
        "let a batch wait for a row of another node's",
        "ledger/shared_writes.py",
        "driver(connection).execute(_IMPATIENT).close()",
        "pass",
        f"{SHARED}::test_one_that_another_node_holds_up_waits_alone",
    ),
    Bug(
        "let a write that waits for a row hold up a node's others",
        "ledger/shared_writes.py",
        ", waits=False",
        "",
        f"{SHARED}::test_a_lone_one_that_is_held_up_holds_up_nobody",
    ),
    Bug(
        "let a node that is stopped keep its rows",
        "ledger/connections.py",
        "idle_in_transaction_session_timeout', '30s'",
        "application_name', 'x'",
        f"{SHARED}::test_a_node_that_is_stopped_keeps_no_row",
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
        "if new or not lost:",
        "if True:",
        f"{FAILOVER}::test_what_a_standby_lacks_is_noticed_before_anything_is_written",
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
        "found is None or found.outdated",
        "found is None",
        f"{DRIFT}::test_who_knows_other_tables_is_told_and_gone",
    ),
    Bug(
        "end a build whose session begins while the ledger is away",
        "engine/sessions.py",
        "active.reporter.patiently(lambda: self._job(active))",
        "self._job(active)",
        "tests/unit/engine/test_sessions.py::test_a_session_begins_once_the_ledger_answers",
    ),
    Bug(
        "queue a lost build again and leave its VM to another write",
        "ledger/build_writes.py",
        "build.instance if mark is None else mark.instance or build.instance",
        "build.instance",
        "tests/unit/engine/test_completion.py::test_a_lost_attempt_dooms_its_vm_and_is_queued_again",
    ),
    Bug(
        "let a hint wait for the tick of the timer",
        "engine/engine.py",
        "                hinted = self._context.monotonic()\n",
        "            hinted = self._context.monotonic()\n",
        "tests/unit/engine/test_ticks.py::test_a_hint_waits_for_no_tick_of_the_timer",
    ),
    Bug(
        "write again what may have been written",
        DATABASE,
        "if attempt == RETRIES - 1 or sqlstate(error) not in _CONFLICTS:",
        "if attempt == RETRIES - 1:",
        f"{NOT_ANSWERED}[logs.append-CommitFate.DONE]",
    ),
    Bug(
        "take what was not answered for written",
        DATABASE,
        "                if isinstance(cause_of(error), self._forbidden):\n",
        "                if 'done' in locals():\n                    return done\n"
        "                if isinstance(cause_of(error), self._forbidden):\n",
        f"{NOT_ANSWERED}[logs.append-CommitFate.UNDONE]",
    ),
    Bug(
        "store a log again that may have been stored",
        "engine/reporter.py",
        "work(next(tries) > 0)",
        "work(next(tries) < 0)",
        f"{NOT_ANSWERED}[logs.append-CommitFate.DONE]",
    ),
)
