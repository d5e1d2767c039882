"""Bugs to plant in what an engine bounds, pauses and keeps: looks, offers, sessions, waits
(`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

POLLER = "tests/unit/engine/test_poller.py"

BUGS: Final = (
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
        "providers/retired.py",
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
)
