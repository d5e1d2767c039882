"""One pass, as the command line asks for it."""

from __future__ import annotations

import threading

from tests.support.engine_parts import EngineParts
from tests.support.sshd import wait_for
from vmrunner.engine.context import EngineLimits
from vmrunner.reaper.once import reap


def test_only_a_whole_pass_counts_as_one(parts: EngineParts) -> None:
    """Whoever watches the reaper must not hear of a sweep of one provider."""
    given = parts.ledger, {"local": parts.provider}, EngineLimits(), parts.context.paths
    reap(*given, dry_run=True)
    reap(*given, provider="local")
    assert parts.ledger.engines.heartbeats() == {}
    reap(*given)
    assert {"pass", "sweep"} <= parts.ledger.engines.heartbeats().keys()


def test_its_threads_end_with_it(parts: EngineParts) -> None:
    """However often a program asks for one."""
    before = set(threading.enumerate())
    given = parts.ledger, {"local": parts.provider}, EngineLimits(), parts.context.paths
    reap(*given)
    wait_for(lambda: set(threading.enumerate()) <= before)
