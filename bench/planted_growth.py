"""Bugs to plant in what keeps the ledger and the store from growing, and in connections to a
database (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

RETENTION, GC = "tests/integration/test_retention.py", "tests/integration/test_store_gc.py"
OLD_ROWS, ROWS = "ledger/old_rows.py", "tests/integration/test_old_rows.py"
CONNECTIONS = "tests/integration/test_ledger_connections.py"

LIVE = "tests/integration/test_ledger_live_vms.py"

BUGS: Final = (
    Bug(
        "wait for a server that vanished as long as the kernel does",
        "ledger/connections.py",
        '        "tcp_user_timeout": 15_000,\n',
        "",
        f"{CONNECTIONS}::test_a_silent_server_is_given_up_in_seconds",
    ),
    Bug(
        "let our patience win over the user's",
        "ledger/connections.py",
        "    return {name: value for name, value in options.items() if name not in url.query}\n",
        "    return options\n",
        f"{CONNECTIONS}::test_the_users_own_patience_wins",
    ),
    Bug(
        "let writers stand behind readers",
        "ledger/database.py",
        "        limit = self._writers if engine is self._writer else self._readers\n",
        "        limit = self._readers\n",
        f"{CONNECTIONS}::test_writers_do_not_stand_behind_readers",
    ),
    Bug(
        "keep the connections beside one that was lost",
        "ledger/database.py",
        "                self._losses += 1\n",
        "                pass\n",
        f"{CONNECTIONS}::test_one_lost_connection_empties_the_pool",
    ),
    Bug(
        "wait for an upgrade without end",
        "ledger/database.py",
        "BEGIN {level}; {connections.READING}",
        "BEGIN {level}; {connections.SERVER}",
        f"{CONNECTIONS}::test_a_read_waits_seconds_for_who_changes_tables",
    ),
    Bug(
        "give a free place to whoever comes first",
        "lib/fair_limit.py",
        "            self._waiting.popleft().set()\n",
        "            self._waiting.pop().set()\n",
        "tests/unit/lib/test_fair_limit.py",
    ),
    Bug(
        "lose a place to who waited in vain",
        "lib/fair_limit.py",
        "                        self._waiting.remove(turn)\n",
        "                        pass\n",
        "tests/unit/lib/test_fair_limit.py::test_who_waited_in_vain_leaves_no_place_taken",
    ),
    Bug(
        "end a night's retention at a build that cannot be read",
        "ledger/removals.py",
        "                except LedgerError:\n                    raise\n",
        "                except VmrunnerError:\n                    raise\n",
        f"{RETENTION}::test_a_build_that_cannot_be_read_keeps_no_other",
    ),
    Bug(
        "end a night's retention at a step that fails",
        "reaper/retention.py",
        "            done = Removal(name, 0, 0, 1)\n",
        "            raise\n",
        f"{RETENTION}::test_a_step_that_fails_keeps_no_other",
    ),
    Bug(
        "end gc at an object that stays",
        "store/object_gc.py",
        '            log.warning("gc: %s stays: %s", name, error)\n',
        "            raise\n",
        f"{GC}::test_what_the_store_keeps_keeps_nothing_else",
    ),
    Bug(
        "go on with gc in a store that is away",
        "store/object_gc.py",
        "            if self._in_row % FAILURES == 0:\n",
        "            if False:\n",
        f"{GC}::test_a_store_that_goes_away_amid_gc_is_left_alone",
    ),
    Bug(
        "mark what is in use as unused",
        "ledger/objects.py",
        "_o.state == _STORED, _o.unreferenced_since.is_(None), ~_REFERENCED)",
        "_o.state == _STORED, _o.unreferenced_since.is_(None))",
        f"{GC}::test_what_is_pointed_at_is_never_marked",
    ),
    Bug(
        "give up a put whose directory went meanwhile",
        "store/files.py",
        "                    if again == _TRIES - 1 or not source.exists():\n",
        "                    if True:\n",
        "tests/integration/test_store_files.py",
    ),
    Bug(
        "take a file system that nobody knows for a local one",
        "lib/local_files.py",
        "    if kind and kind in (*_LOCAL, os.environ.get(LOCAL_VARIABLE)):\n",
        '    if kind not in ("nfs4", "cifs"):\n',
        "tests/integration/test_ledger_open.py::test_what_is_not_known_to_be_local_is_refused",
    ),
    Bug(
        "drop builds whose log is still to be read",
        OLD_ROWS,
        "    _b.removed_at.is_not(None),\n",
        "",
        f"{ROWS}::test_a_build_stays_that_holds_anything",
    ),
    Bug(
        "drop builds whose objects lie in the store",
        OLD_ROWS,
        "    ~exists().where(OBJECTS.c.build == _b.id),\n",
        "",
        f"{ROWS}::test_a_build_stays_that_holds_anything",
    ),
    Bug(
        "drop builds of VMs that are not seen gone",
        OLD_ROWS,
        "    ~exists().where(_i.build == _b.id, ~_GONE | _UNSETTLED),\n",
        "",
        f"{ROWS}::test_a_build_stays_that_holds_anything",
    ),
    Bug(
        "let one odd row keep all builds of its page",
        OLD_ROWS,
        "            return sum(self._each([name], drop) for name in names)\n",
        "            return 0\n",
        f"{ROWS}::test_a_build_stays_that_holds_anything",
    ),
    Bug(
        "drop builds without a sum of their costs",
        OLD_ROWS,
        "    SUMMED.add(connection, cost_report.day_sums(new, owners.__getitem__))\n",
        "",
        f"{ROWS}::test_costs_are_the_same_before_and_after",
    ),
    Bug(
        "count a build in each of its days",
        "core/cost_report.py",
        "        self.past_builds += day.builds if by_day else day.builds_ended\n",
        "        self.past_builds += day.builds\n",
        f"{ROWS}::test_costs_are_the_same_before_and_after",
    ),
    Bug(
        "show one tenant's past costs to all",
        "ledger/spending.py",
        "key.owner.tenant in TRUSTED_TENANTS\n",
        "True\n",
        f"{ROWS}::test_costs_are_the_same_before_and_after",
    ),
    Bug(
        "let counters fall when rows go",
        "ledger/metrics.py",
        "                counts[provider, result, reason] += count\n",
        "                pass\n",
        f"{ROWS}::test_counts_never_fall",
    ),
    Bug(
        "let a night of retention go on for days",
        OLD_ROWS,
        "            while clock() < until:\n",
        "            while True:\n",
        f"{ROWS}::test_a_night_is_bounded_and_the_next_goes_on",
    ),
    Bug(
        "keep what was refused for ever",
        OLD_ROWS,
        '    _i.gone_at < arg("refused"),\n',
        "    _i.gone_at < 0,\n",
        f"{ROWS}::test_vms_that_were_refused_go_after_a_day",
    ),
    Bug(
        "keep a sum for each set of labels there ever was",
        "ledger/day_sums.py",
        "        if many and key.owner.labels:\n",
        "        if False:\n",
        f"{ROWS}::test_many_sets_of_labels_are_bounded",
    ),
    Bug(
        "pause after each log that is let go of",
        "ledger/removals.py",
        "if not has_chunks]",
        "if has_chunks is None]",
        "tests/integration/test_ledger_steps.py::"
        "test_retention_lets_go_of_many_stored_logs_at_once",
    ),
    Bug(
        "give up a page of objects that are not deleted together",
        "store/object_gc.py",
        '                log.info("gc: %s; each by itself", error)\n',
        '                log.info("gc: %s; each by itself", error)\n                return set()\n',
        f"{GC}::test_a_store_that_refuses_many_is_asked_for_each",
    ),
    Bug(
        "keep the logs that were taken and not uploaded",
        "store/uploader.py",
        "                    objects.put_off_logs(taken[number:], now=now + CLAIM, due=again)\n",
        "                    objects.put_off_logs([build], now=now + CLAIM, due=again)\n",
        "tests/integration/test_store_logs.py::"
        "test_logs_that_an_upload_takes_and_leaves_are_others",
    ),
    Bug(
        "count a VM that is gone among those that are open",
        "ledger/live_vms.py",
        "                self._forget(name)\n",
        "",
        f"{LIVE}::test_each_node_counts_what_the_rows_say",
    ),
    Bug(
        "count no VMs that other nodes start",
        "ledger/live_vms.py",
        "elif mark != before:",
        "elif False:",
        f"{LIVE}::test_nodes_that_start_and_end_at_once_keep_the_limit",
    ),
    Bug(
        "count all open VMs before each start",
        "ledger/live_vms.py",
        "if before is None or not before.leads_to(mark) or self._is_old:",
        "if True:",
        f"{LIVE}::test_a_start_reads_no_vm_that_goes_on",
    ),
    Bug(
        "go on counting from a number of a ledger that was set back",
        "ledger/live_vms.py",
        "or not before.leads_to(mark) ",
        "",
        f"{LIVE}::test_a_ledger_that_was_set_back_is_counted_anew",
    ),
    Bug(
        "let each read of a tick have a transaction of its own",
        "ledger/database.py",
        "if shared is not None and servers is None and not snapshot:",
        "if False:",
        "tests/integration/test_ledger_reading.py::test_what_is_read_together_begins_once",
    ),
    Bug(
        "a cloud that answers again is swept in its turn",
        "reaper/reaper.py",
        "when = self._context.monotonic() if retry.silent - silent else retry.when",
        "when = retry.when",
        "tests/faults/test_grace.py::test_a_cloud_that_answers_again_is_swept_at_once",
    ),
)
