"""Hosts with one machine id."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmrunner.engine.cloned_hosts import SETTLED, CloneWatch
from vmrunner.ledger.transfer_types import Member
from vmrunner.model import Process

HERE = Process(machine="m", boot="b-1", pid_namespace="n", pid=1, started=1)


def member(beat: float, **changes: str) -> Member:
    process = replace(HERE, **{"boot": "b-2", **changes})  # type: ignore[arg-type]
    return Member(
        id="e-2", process=process, kind="serve", joined_at=100.0, seen_at=beat,
        providers=frozenset(), version="0014",
    )  # fmt: skip


def test_a_clone_that_lives_is_refused_with_the_fix() -> None:
    watch = CloneWatch(HERE)
    assert watch.look([member(100.0)], 0.0) is None
    assert not watch.over
    assert watch.look([member(100.0)], 4.0) is None
    error = watch.look([member(105.0)], 6.0)
    assert error is not None
    assert "machine id m, and so has the host of e-2" in str(error)
    assert "systemd-machine-id-setup" in error.hint


@pytest.mark.parametrize("clock", [-1e6, 0.0, 1e6])
def test_what_this_host_was_before_it_booted_beats_no_more(clock: float) -> None:
    """By whichever clock: only a change tells."""
    watch = CloneWatch(HERE)
    for second in range(int(SETTLED)):
        assert watch.look([member(clock)], float(second)) is None
        assert not watch.over
    assert watch.look([member(clock)], SETTLED) is None
    assert watch.over


@pytest.mark.parametrize("changes", [{"machine": "another"}, {"boot": "b-1"}])
def test_others_are_no_clones(changes: dict[str, str]) -> None:
    watch = CloneWatch(HERE)
    for second in range(3):
        assert watch.look([member(float(second), **changes)], float(second)) is None
        assert watch.over
