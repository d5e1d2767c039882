"""What a tick looks at of the builds that wait."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.support.engine_parts import EngineParts
from vmrunner.engine import engine
from vmrunner.engine.engine import BuildQueue
from vmrunner.model import BuildRecord, Reason


@pytest.fixture
def queue(parts: EngineParts, monkeypatch: pytest.MonkeyPatch) -> BuildQueue:
    monkeypatch.setattr(engine, "QUEUE", 3)
    return BuildQueue(parts.ledger, lambda: frozenset({"local"}))


def names(builds: Iterable[BuildRecord]) -> list[str]:
    return [build.id for build in builds]


def test_a_queue_is_read_again_when_something_changed(
    parts: EngineParts, queue: BuildQueue
) -> None:
    parts.submit("b-1")
    assert names(queue.read(changed=True)) == ["b-1"]
    parts.submit("b-2")
    assert names(queue.read(changed=False)) == ["b-1"]
    assert names(queue.read(changed=True)) == ["b-1", "b-2"]


def test_all_of_a_long_queue_come_by_turns(parts: EngineParts, queue: BuildQueue) -> None:
    """Again and again: the time of any may be over."""
    every = [f"b-{n}" for n in range(8)]
    for name in every:
        parts.submit(name, provider="other", priority=int(name == "b-7"))
    for changed in (True, False):
        found = [names(queue.read(changed=changed)) for _ in range(4)]
        assert {name for batch in found for name in batch} == set(every)
        assert all(batch[:3] == ["b-7", "b-0", "b-1"] for batch in found), "its head each time"
        assert all(len(batch) == len(set(batch)) <= 6 for batch in found)


def test_what_others_wait_for_hides_nothing_of_ours(parts: EngineParts, queue: BuildQueue) -> None:
    for n in range(5):
        parts.submit(f"b-{n}", provider="other", priority=9)
    parts.submit("b-9")
    assert names(queue.read(changed=True)) == ["b-0", "b-1", "b-2", "b-9"]
    parts.ledger.builds.request_cancel("b-9", Reason.USER, parts.clock())
    assert "b-9" in names(queue.read(changed=False)), "a wish to end is work too"
