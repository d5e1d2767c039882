"""Bugs to plant in what keeps the ledger and the store from growing, and in connections to a
database (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

RETENTION, GC = "tests/integration/test_retention.py", "tests/integration/test_store_gc.py"
CONNECTIONS = "tests/integration/test_ledger_connections.py"

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
        "self._begun(self._engine, servers, connections.READING)",
        "self._begun(self._engine, servers, connections.SERVER)",
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
)
