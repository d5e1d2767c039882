"""Whether a pool may be filled, as who guards its account says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.engine_parts import EngineParts
from tests.support.pools import POOL
from vmrunner.engine.launcher import Launcher
from vmrunner.engine.membership import Membership
from vmrunner.engine.pools import GUARD_RETRY, PoolManager
from vmrunner.errors import Uncertain


def test_a_guard_that_tells_nothing_is_asked_now_and_then(
    parts: EngineParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pool is not filled, and says why."""
    asked_at = []

    def roles() -> Any:
        asked_at.append(parts.clock())
        if len(asked_at) < 3:
            raise Uncertain("not authorized to perform: lambda:GetFunction")
        return frozenset({"pool"})

    monkeypatch.setattr(parts.provider, "guarded_roles", roles, raising=False)
    sessions: Any = None  # no build is started
    manager = PoolManager(
        parts.context,
        Membership(one_host=True),
        Launcher(parts.context),
        sessions,
        None,
        lambda _, work: work(),
    )
    guarded = []
    for _ in range(5):
        guarded += [manager._is_guarded(POOL), manager._is_guarded(POOL)]
        parts.clock.advance(GUARD_RETRY)
    assert guarded == [False] * 4 + [True] * 6
    assert len(asked_at) == 3
