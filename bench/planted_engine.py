"""Bugs to plant in what an engine bounds, pauses and keeps: looks, offers, sessions, waits
(`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

POLLER = "tests/unit/engine/test_poller.py"

COMPLETION = "tests/unit/engine/test_completion.py"
WAITING = "tests/faults/test_waiting.py"
ANSWERS = "tests/unit/engine/test_provider_answers.py"

BUGS: Final = (
    Bug(
        "a session that got no thread stays",
        "engine/sessions.py",
        "            del self._all[build.id]\n            reporter.close()\n",
        "            reporter.close()\n",
        "tests/unit/engine/test_sessions.py::test_a_session_without_a_thread_is_none_and_starts_later",
    ),
    Bug(
        "a refusal is an attempt",
        "ledger/build_writes.py",
        "BuildState.QUEUED, now, uncounted=1)",
        "BuildState.QUEUED, now, uncounted=0)",
        f"{WAITING}::test_refusals_are_no_attempts_at_a_build",
    ),
    Bug(
        "rows of refusals stay for ever",
        "ledger/build_writes.py",
        "gone = _DROP_REFUSED(connection, id=build_id, before=before).all()\n",
        "gone: list[tuple[str]] = []\n",
        f"{WAITING}::test_a_long_wait_leaves_as_much_as_an_hour",
    ),
    Bug(
        "events of refusals stay for ever",
        "ledger/build_writes.py",
        "            _DROP_EVENTS(connection, id=build_id)\n",
        "",
        f"{WAITING}::test_a_long_wait_leaves_as_much_as_an_hour",
    ),
    Bug(
        "each refusal is a phase",
        "ledger/build_writes.py",
        "if [phase.state for phase in build.phases[-3:]] == _TRY:",
        "if False:",
        f"{WAITING}::test_a_long_wait_leaves_as_much_as_an_hour",
    ),
    Bug(
        "no refused VM is known for removed",
        "ledger/build_writes.py",
        "            removed_vms.note_removed(connection, [row[0] for row in gone])\n",
        "            del gone\n",
        "tests/integration/test_ledger_set_back.py::test_a_row_that_was_removed_is_no_set_back",
    ),
    Bug(
        "a refused build is tried again at once",
        "core/scheduling.py",
        "elif refusal is not None and refusal.until > self._now:",
        "elif False:",
        "tests/unit/core/test_scheduling.py",
    ),
    Bug(
        "the pause after a refusal never grows",
        "engine/completion.py",
        "refused - 1, LONGEST_REFUSED_WAIT",
        "0, LONGEST_REFUSED_WAIT",
        COMPLETION,
    ),
    Bug(
        "pauses of builds that others ended are kept",
        "engine/completion.py",
        "if now > refusal.until + WAIT_FORGOTTEN:",
        "if False:",
        COMPLETION,
    ),
    Bug(
        "a provider that failed is asked at once again",
        "engine/provider_answers.py",
        "            each.again_at = now + backoff(FIRST_PAUSE, each.failures, LONGEST_PAUSE)\n",
        "",
        ANSWERS,
    ),
    Bug(
        "each question to a silent provider takes a thread",
        "engine/provider_answers.py",
        "        if silent >= ASKS:\n            return\n",
        "",
        ANSWERS,
    ),
    Bug(
        "answers of providers are remembered for ever",
        "engine/provider_answers.py",
        "while len(self._questions) > REMEMBERED:",
        "while False:",
        ANSWERS,
    ),
    Bug(
        "an old answer holds for ever",
        "engine/provider_answers.py",
        "now <= question.answered_at + HOLDS:",
        "True:",
        ANSWERS,
    ),
    Bug(
        "an answer wakes the tick that had it",
        "engine/provider_answers.py",
        "            self._take(question, now)\n        else:\n",
        "            self._take(question, now)\n            self._wake()\n        else:\n",
        ANSWERS,
    ),
    Bug(
        "the tick waits for a late delete",
        "engine/launcher.py",
        "        context.delete_threads(instance.provider).submit(delete)\n",
        "        delete()\n        context.wake()\n",
        "tests/unit/engine/test_launcher.py::test_a_vm_that_comes_when_its_row_dies_is_deleted",
    ),
    Bug(
        "a place that fails is asked as often as ever",
        "engine/poller.py",
        "trouble.failures, trouble.until = trouble.failures + 1, now + pause",
        "trouble.failures += 1",
        f"{POLLER}::test_a_place_that_fails_is_asked_less_and_told_rarely",
    ),
    Bug(
        "each failed look is told",
        "engine/poller.py",
        "            trouble.told_at = now\n",
        "",
        f"{POLLER}::test_a_place_that_fails_is_asked_less_and_told_rarely",
    ),
    Bug(
        "a refusal about one VM pauses none",
        "engine/poller.py",
        "            self._throttled[error.instance] = now + max(wait, VM_PAUSE)\n",
        "",
        f"{POLLER}::test_a_refusal_about_one_vm_pauses_that_alone",
    ),
    Bug(
        "a refusal about one VM pauses its place",
        "engine/poller.py",
        "isinstance(error, Throttled) and error.instance:",
        "False:",
        f"{POLLER}::test_a_refusal_about_one_vm_pauses_that_alone",
    ),
    Bug(
        "a driver's own pace is not asked for",
        "providers/retired_providers.py",
        "return provider.look_every if isinstance(provider, PacesLooks) else LookPace()",
        "return LookPace()",
        f"{POLLER}::test_a_driver_says_how_often_its_vms_are_looked_at",
    ),
    Bug(
        "a driver's pace leaves its place dark",
        "engine/poller.py",
        "return min(pace.changing if age < OLD else pace.steady, SLOWEST)",
        "return pace.changing if age < OLD else pace.steady",
        f"{POLLER}::test_no_pace_lets_a_place_that_answers_count_as_dark",
    ),
    Bug(
        "what changes waits for the look that is under way",
        "engine/poller.py",
        "_CHANGING else 1\n",
        "_CHANGING else 0\n",
        f"{POLLER}::test_what_changes_waits_for_no_other_look",
    ),
    Bug(
        "a delete that is under way is sent once more by another slot",
        "engine/terminator.py",
        "and row.id not in flying and",
        "and",
        "tests/unit/engine/test_terminator.py::test_one_call_at_a_time_goes_to_a_vm",
    ),
    Bug(
        "a delete without an answer is never looked at",
        "engine/terminator.py",
        "instance in batch.instances and batch.sent_at > answers_by",
        "instance in batch.instances",
        "tests/unit/engine/test_terminator.py::test_no_look_comes_before_the_answer_for_long",
    ),
)
