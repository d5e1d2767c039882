"""Pauses of pools whose VMs do not come up."""

from __future__ import annotations

from vmrunner.engine.pool_troubles import FIRST_PAUSE, LONGEST_PAUSE, PoolTroubles
from vmrunner.model import EmptyReason


def pauses(reason: EmptyReason, count: int) -> list[float]:
    """Failures, each as soon as the pause after the former one is over."""
    troubles, now, found = PoolTroubles(), 100.0, []
    for _ in range(count):
        troubles.note("fast", reason, clock=5.0, now=now)
        trouble = troubles.of("fast")
        assert trouble is not None
        assert trouble.since == 5.0
        found.append(trouble.until - now)
        now = trouble.until
    return found


def test_each_failure_doubles_the_pause() -> None:
    found = pauses(EmptyReason.BOOT, 8)
    assert found[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert found[-1] == LONGEST_PAUSE


def test_what_costs_no_vm_is_tried_more_often() -> None:
    assert max(pauses(EmptyReason.CAPACITY, 8)) < LONGEST_PAUSE


def test_vms_that_were_made_together_fail_once() -> None:
    troubles = PoolTroubles()
    for second in range(8):
        troubles.note("fast", EmptyReason.BOOT, clock=0.0, now=float(second))
    trouble = troubles.of("fast")
    assert trouble is not None
    assert (trouble.failures, trouble.until) == (1, FIRST_PAUSE)
    troubles.note("fast", EmptyReason.REFUSED, clock=0.0, now=9.0, least=600.0)
    assert troubles.of("fast") is not None
    assert troubles.of("fast").until == 609.0  # type: ignore[union-attr]


def test_a_vm_that_is_ready_ends_them() -> None:
    troubles = PoolTroubles()
    troubles.note("fast", EmptyReason.BOOT, clock=0.0, now=0.0)
    troubles.over("fast")
    assert troubles.of("fast") is None
    troubles.note("fast", EmptyReason.BOOT, clock=0.0, now=100.0)
    assert troubles.of("fast") is not None
    assert troubles.of("fast").until == 100.0 + FIRST_PAUSE  # type: ignore[union-attr]
