"""Bugs to plant in what runs by time: timers, tasks, leases, and who watches whom."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

DAEMON, TASK = "runtime/daemon.py", "runtime/bounded_task.py"
SERVED = "tests/integration/test_daemon_clock.py"
TASKS, TIMERS = "tests/unit/runtime/test_bounded_task.py", "tests/unit/runtime/test_timers.py"
TURNS, CALLS = "tests/unit/reaper/test_turns.py", "tests/unit/reaper/test_ledger_calls.py"
WATCH = "tests/unit/lib/test_change_watch.py"
CRON = "tests/unit/runtime/test_cron_jobs.py"
SIDE = "tests/unit/reaper/test_concurrent_passes.py"
AUDIT = "tests/unit/core/test_audit_rules.py"
WITNESS = "tests/unit/reaper/test_clock_witness.py"
RECHECK = "tests/unit/reaper/test_reap_pass.py"
LEDGER = "tests/integration/test_ledger_logs.py"

BUGS: Final = (
    Bug(
        "no sweep but by the cron line",
        DAEMON,
        '            ("sweep", PASS, self._sweeps),\n',
        "",
        f"{SERVED}::test_it_sweeps_though_no_cron_line_comes",
    ),
    Bug(
        "a timer by the wall clock",
        "runtime/timers.py",
        "monotonic: Callable[[], float] = time.monotonic) -> None:",
        "monotonic: Callable[[], float] = lambda: time.time()) -> None:",
        f"{SERVED}::test_a_clock_that_is_set_loses_no_pass",
    ),
    Bug(
        "a timer that fires once",
        "runtime/timers.py",
        "            timer.due = now + timer.seconds\n",
        '            timer.due = float("inf")\n',
        f"{TIMERS}::test_each_is_called_when_its_time_has_come",
    ),
    Bug(
        "one timer's failure ends all",
        "runtime/timers.py",
        '                log.exception("%s", timer.name)\n',
        "                raise\n",
        f"{TIMERS}::test_what_fails_stops_no_other",
    ),
    Bug(
        "a pass that goes on counts as finished",
        DAEMON,
        "        if not report.ongoing and well:\n",
        "        if True:\n",
        f"{SERVED}::test_a_pass_that_goes_on_is_no_finished_one",
    ),
    Bug(
        "look who lives at each pass alone",
        DAEMON,
        '            ("ledger-pass", CHECK, self._passes),\n',
        '            ("ledger-pass", PASS, self._passes),\n',
        f"{SERVED}::test_the_daemons_own_looks_find_a_dead_engine",
    ),
    Bug(
        "kill nothing while the ledger is silent",
        DAEMON,
        '            ("overdue", CHECK, self._overdue),\n',
        "",
        f"{SERVED}::test_what_is_known_dies_while_the_ledger_is_silent",
    ),
    Bug(
        "wait for who reaps however long",
        DAEMON,
        "            turns = self._ask(lambda: self._turns.take(providers))\n",
        "            turns = self._turns.take(providers)\n",
        f"{SERVED}::test_a_silent_ledger_keeps_no_sweep_waiting",
    ),
    Bug(
        "a thread for each run",
        TASK,
        "            if self._worker is None:\n                self._begin()\n            self._w",
        "            self._begin()\n            self._w",
        f"{TASKS}::test_runs_need_no_new_thread",
    ),
    Bug(
        "a run that hangs for ever",
        TASK,
        "        if now - max(began, self._logged_at) < self._bound:\n",
        "        if True:\n",
        f"{TASKS}::test_a_hanging_run_is_replaced_and_a_failing_one_survived",
    ),
    Bug(
        "two uploaders beside each other",
        TASK,
        "        if self._alone:\n",
        "        if False:\n",
        f"{TASKS}::test_one_that_goes_alone_is_never_doubled",
    ),
    Bug(
        "ask a silent ledger again and again",
        "reaper/ledger_calls.py",
        "                if self._patience <= now - since < LOST_CALL:\n",
        "                if False:\n",
        f"{CALLS}::test_while_one_hangs_nobody_waits",
    ),
    Bug(
        "forget at a slow look what was watched",
        "lib/change_watch.py",
        "self._gap = lease if gap is None else gap",
        "self._gap = lease / 2 if gap is None else gap",
        f"{WATCH}::test_it_is_found_however_rarely_we_look",
    ),
    Bug(
        "a long pause of ours is their silence",
        "lib/change_watch.py",
        "min(now - watched.looked, self.lease / LOOKS)",
        "now - watched.looked",
        f"{WATCH}::test_a_long_pause_of_ours_counts_for_nothing",
    ),
    Bug(
        "who is refused keeps the lease",
        DAEMON,
        "        self._turns.blind(report.blind)\n",
        "",
        "tests/integration/test_two_daemons.py::test_who_is_refused_leaves_reaping_to_the_other",
    ),
    Bug(
        "a lease that is renewed is taken all the same",
        "ledger/engines.py",
        'and_(_l.holder == arg("former"), _l.until == arg("seen"))',
        '_l.holder == arg("former")',
        f"{LEDGER}::test_a_lease_has_one_holder",
    ),
    Bug(
        "a lease of the dead lasts for ever",
        "engine/leases.py",
        "            if not (self._watch.silent(name) or gone(found.holder)):\n",
        "            if not gone(found.holder):\n",
        f"{TURNS}::test_a_dead_ones_heir_comes_within_a_lease",
    ),
    Bug(
        "a lease by our own clock",
        "engine/leases.py",
        "self._watch.silent(name) or gone",
        "found.until < self._clock() or gone",
        f"{TURNS}::test_one_reaps_however_far_clocks_are_apart",
    ),
    Bug(
        "the blind keep the lease",
        "reaper/turns.py",
        "                self._taker.release(lease)\n",
        "                pass\n",
        f"{TURNS}::test_who_is_shown_nothing_gives_up_the_lease",
    ),
    Bug(
        "nobody reaps while all are blind",
        "reaper/turns.py",
        "            turn.ours = not self._taker.another(lease)\n",
        "            turn.ours = False\n",
        f"{TURNS}::test_where_nobody_takes_it_the_blind_go_on",
    ),
    Bug(
        "one lease for places that others cannot see",
        "reaper/turns.py",
        'text = " ".join(sorted(map(str, self._scopes[name].scopes)))',
        'text = ""',
        f"{TURNS}::test_who_has_other_places_reaps_them",
    ),
    Bug(
        "a hung pass is begun again each round",
        "reaper/reaper.py",
        "return running is not None and not running.report.done() and not lost",
        "return False",
        f"{SIDE}::test_a_pass_that_goes_on_is_not_begun_twice",
    ),
    Bug(
        "a last pass in the future is a young one",
        "core/audit_rules.py",
        "            silent = abs(now - max(last or 0.0, begun))\n",
        "            silent = now - max(last or 0.0, begun)\n",
        f"{AUDIT}::test_a_last_pass_in_the_future_is_silence",
    ),
    Bug(
        "clocks that are apart are told by nobody",
        "core/audit_rules.py",
        "        if abs(ahead) > CLOCKS_APART\n",
        "        if False\n",
        f"{AUDIT}::test_clocks_that_are_apart_are_told",
    ),
    Bug(
        "believe a clock that leapt",
        "reaper/clock_witness.py",
        "    if believed is None or now - believed <= LEAP:\n",
        "    if True:\n",
        f"{WITNESS}::test_a_clock_weeks_fast_is_in_doubt",
    ),
    Bug(
        "believe no leap, ever",
        "reaper/clock_witness.py",
        "            if now - self._doubted < PROOF:\n",
        "            if True:\n",
        f"{WITNESS}::test_a_leap_is_believed_once_it_was_watched",
    ),
    Bug(
        "restore over who beats, by our clock",
        "services/restore.py",
        "    if beats and not living:  #",
        "    if False:  #",
        "tests/unit/services/test_restore_place.py::test_who_beats_lives_whatever_its_clock_says",
    ),
    Bug(
        "a duplicate is not compared with its row",
        "reaper/reap_pass.py",
        "            return bool(rows) and rows[0].ref not in (None, kill.ref)\n",
        "            return True\n",
        f"{RECHECK}::test_a_duplicate_is_compared_with_its_row",
    ),
    Bug(
        "a leftover is not compared with its row",
        "reaper/reap_pass.py",
        "            return bool(rows) and rows[0].state is InstanceState.GONE\n",
        "            return True\n",
        f"{RECHECK}::test_a_leftover_is_compared_with_its_row",
    ),
    Bug(
        "an orphan that has a row by now dies",
        "reaper/reap_pass.py",
        "            return not (instances.known(named) or instances.recorded([kill.ref]))\n",
        "            return True\n",
        f"{RECHECK}::test_an_orphan_that_has_a_row_lives",
    ),
    Bug(
        "cron lines hear of no clock that is set back",
        "runtime/cron_jobs.py",
        "        if self._ahead < before - SET_BACK:\n",
        "        if False:\n",
        f"{CRON}::test_a_clock_set_back_makes_no_job_wait",
    ),
    Bug(
        "cron lines hear of no clock that is set forward",
        "runtime/cron_jobs.py",
        "        self._scheduler.wakeup()\n",
        "",
        f"{CRON}::test_a_clock_set_forward_lets_pass_no_job",
    ),
    Bug(
        "rows are not known without the ledger",
        "reaper/pending_kills.py",
        "            self._rows = others | by_ref\n",
        "            self._rows = {}\n",
        "tests/unit/reaper/test_pending_kills.py::test_rows_are_known_until_they_are_read_again",
    ),
    Bug(
        "a pool is forgotten by our own clock",
        "engine/early_deaths.py",
        "for pool in readable if membership.pool_forgotten(pool)}",
        "for pool in readable if context.clock() > pool.named_at + 600.0}",
        "tests/faults/test_pools.py::test_clocks_that_are_apart_empty_no_pool",
    ),
    Bug(
        "a provider that gets no thread ends the round",
        "reaper/reaper.py",
        "            if isinstance(error, Throttled):  # no thread: the others go on\n",
        "            if False:\n",
        f"{SIDE}::test_one_that_gets_no_thread_keeps_no_other",
    ),
    Bug(
        "a pool of threads has none from the start",
        "lib/threads.py",
        "for _ in range(RESERVED if size is None else 0):",
        "for _ in range(0):",
        "tests/unit/lib/test_threads.py::test_where_no_thread_starts_those_there_do_all",
    ),
    Bug(
        "who drives nothing hears of no upgrade",
        "runtime/engine_host.py",
        "            self._ledger().recognise()\n",
        "",
        "tests/integration/test_schema_drift.py::test_who_drives_nothing_hears_of_an_upgrade",
    ),
)
