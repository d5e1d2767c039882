"""The gate that keeps transactions and forks apart."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.sshd import wait_for
from vmrunner.errors import LedgerError
from vmrunner.ledger.fork_safety import TransactionGate


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """Another thread than the test's."""
    with ThreadPoolExecutor(1) as threads:
        yield threads


def test_a_transaction_within_another_opens_no_gap(beside: ThreadPoolExecutor) -> None:
    gate = TransactionGate()
    with gate.passed():
        with gate.passed():
            pass
        assert beside.submit(gate.shut, 0.0).result() is False
        with gate.passed():  # it was let in before the gate was shut
            assert gate.shut(1e9) is False, "nobody waits for itself"
    assert beside.submit(gate.shut, 0.0).result() is True


def test_whoever_shuts_waits_for_the_last(beside: ThreadPoolExecutor) -> None:
    gate = TransactionGate()
    with gate.passed():
        shut = beside.submit(gate.shut, 60.0)
        wait_for(lambda: gate._shut)
    assert shut.result() is True


def test_an_empty_gate_is_worked_at_by_nobody_else() -> None:
    done: list[str] = []
    gate = TransactionGate()
    with gate.passed():
        gate.when_empty(lambda: done.append("while somebody is inside"))
    assert gate.shut(0.0)
    gate.when_empty(lambda: done.append("during a fork"))
    gate.open()
    gate.when_empty(lambda: done.append("empty"))
    TransactionGate(refuses=True).when_empty(lambda: done.append("in a child"))
    assert done == ["empty"]


def test_a_gate_that_refuses_lets_nobody_in() -> None:
    gate = TransactionGate(refuses=True)
    with pytest.raises(LedgerError, match="forked while another thread"), gate.passed():
        pass
    assert gate.shut(0.0) is False
