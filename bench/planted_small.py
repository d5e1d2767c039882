"""Bugs to plant where a small thing keeps a large promise (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

WATCHDOG = "runtime/stop_watchdog.py"
WATCHDOG_TESTS = "tests/unit/runtime/test_stop_watchdog.py"
DAEMON = "runtime/daemon.py"

BUGS: Final = (
    Bug(
        "a stop has no bound",
        DAEMON,
        "        self._watchdog.arm()\n",
        "",
        "tests/integration/test_serve.py::test_a_ledger_that_hangs_ends_a_stop_with_status_one",
    ),
    Bug(
        "each signal puts the end of a stop off",
        WATCHDOG,
        "                if self._over.get(timeout=remaining):\n                    return\n",
        "                if self._over.get(timeout=remaining):\n                    return\n"
        "                end = time.monotonic() + self._seconds\n",
        f"{WATCHDOG_TESTS}::test_the_time_runs_from_the_first_signal_on",
    ),
    Bug(
        "a log that hangs keeps a stop from its end",
        WATCHDOG,
        "    signal.setitimer(signal.ITIMER_REAL, LAST_WORDS)\n",
        "",
        f"{WATCHDOG_TESTS}::test_a_log_that_hangs_too_keeps_nothing",
    ),
    Bug(
        "the watchdog's thread begins when it is needed",
        WATCHDOG,
        "        self._over.put(False)\n",
        "        threading.Thread(target=self._over.put, args=(False,)).start()\n",
        f"{WATCHDOG_TESTS}::test_a_stop_needs_no_new_thread",
    ),
    Bug(
        "a configuration needs the models of builds",
        "config/field_checks.py",
        "from vmrunner.lib import globs, units\n",
        "from vmrunner.lib import globs, units\nfrom vmrunner.model import builds as _builds\n",
        "tests/integration/test_startup.py::test_a_command_loads_what_it_needs",
    ),
    Bug(
        "a host that is gone keeps its row of a pool",
        "ledger/pools.py",
        "before=state.noted_at - PLACE_KEPT)",
        "before=0.0)",
        "tests/integration/test_pool_claims.py::test_a_host_that_is_gone_leaves_no_place_for_good",
    ),
    Bug(
        "the reaper waits for the scopes of dead clouds",
        "reaper/turns.py",
        "        wait(new, SCOPES_PATIENCE)\n",
        "        wait(new)\n",
        "tests/unit/reaper/test_turns.py::test_dead_clouds_are_no_silent_ledger",
    ),
    Bug(
        "a host short of memory ends a build",
        "engine/sessions.py",
        "        except MemoryError as error:\n",
        "        except RecursionError as error:\n",
        "tests/unit/engine/test_sessions.py::test_a_session_short_of_memory_ends_no_build",
    ),
    Bug(
        "that nobody knows who reaps is logged at each look",
        DAEMON,
        "            if self._doubt.is_due(now):\n",
        "            if True:\n",
        "tests/integration/test_daemon.py::"
        "test_a_ledger_that_stays_silent_is_told_ever_more_rarely",
    ),
    *(
        Bug(
            name,
            "engine/engine.py",
            "        return removed and self._context.clock() > self._last_end\n",
            f"        return {instead}\n",
            "tests/integration/test_daemon.py::"
            "test_a_background_engine_outlives_a_removed_ledger_by_its_vms",
        )
        for name, instead in (
            ("serve a ledger that was deleted for ever", "False"),
            ("leave a VM with the ledger that was deleted", "removed"),
        )
    ),
    Bug(
        "make a deleted ledger anew, without tables",
        "ledger/connections.py",
        '?mode=rw"',
        '?mode=rwc"',
        "tests/integration/test_ledger_open.py::test_a_removed_ledger_is_not_made_again",
    ),
    Bug(
        "tell anew that the ledger is away, whenever an idle engine wanted to end",
        "engine/engine.py",
        "        if self._away.is_due(self._context.monotonic()):\n",
        "        if True:\n",
        "tests/integration/test_daemon.py::test_an_idle_engine_tells_rarely_that_a_ledger_is_away",
    ),
)
