"""What a host remembers of its ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.ledger.restore_detection import RememberedState, RestoreDetector


@pytest.fixture
def witness(tmp_path: Path) -> RestoreDetector:
    return RestoreDetector(tmp_path / "witness", "here")


def test_the_last_that_was_noted_is_remembered(witness: RestoreDetector) -> None:
    """A shorter one leaves nothing of the longer one before."""
    assert witness.read() is None
    witness.note("vm-0123456789", 17)
    assert witness.read() == RememberedState("here", "vm-0123456789", 17)
    witness.note("vm-1", 2)
    assert witness.read() == RememberedState("here", "vm-1", 2)
