"""Deletes of condemned VMs: forced and asked again past their deadline."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.reaper_inputs import NOW, row
from vmrunner.core.reap_plan import Deletion
from vmrunner.model import Death, Fate, Outcome, Ref
from vmrunner.providers import Provider
from vmrunner.reaper.kills import kill
from vmrunner.reaper.report import LineFate

REFUSED = Outcome(fate=Fate.FAILED, error="protected")
ACCEPTED = Outcome(fate=Fate.ACCEPTED)


def killed(answers: list[Outcome], expires_at: float) -> tuple[list[bool], LineFate]:
    """Ask for one death; return whether each call was forced, and the last outcome."""
    forced: list[bool] = []

    def delete(refs: Any, *, force: bool = False) -> dict[Ref, Outcome]:
        forced.append(force)
        return dict.fromkeys(refs, answers[len(forced) - 1])

    ref = row().ref
    assert ref is not None
    provider = cast(Provider, SimpleNamespace(name="p", now=lambda: NOW, delete=delete))
    done = kill(provider, [Deletion(ref=ref, reason=Death.EXPIRED, expires_at=expires_at)])
    return forced, done[ref].fate


@pytest.mark.parametrize(
    ("answers", "forced"),
    [
        ([ACCEPTED], [False]),
        ([REFUSED, ACCEPTED], [False, True]),
        ([REFUSED, REFUSED, ACCEPTED], [False, True, True]),
    ],
)
def test_what_refuses_to_die_is_forced_at_once(answers, forced) -> None:
    assert killed(answers, NOW - 1) == (forced, LineFate.ACCEPTED)


def test_each_pass_asks_three_times_at_most() -> None:
    assert killed([REFUSED] * 9, NOW - 1) == ([False, True, True], LineFate.FAILED)


def test_inside_its_deadline_nothing_is_forced() -> None:
    assert killed([REFUSED] * 9, NOW + 1) == ([False], LineFate.FAILED)
