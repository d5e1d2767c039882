"""Silence of a place that could not be seen, which is no VM's fault."""

from __future__ import annotations

from tests.support.engine_parts import EngineParts
from vmrunner.engine.membership import Membership
from vmrunner.model import Death, InstanceState
from vmrunner.providers.fake import Fault
from vmrunner.reaper.reaper import Reaper


def test_a_vm_is_stuck_only_while_its_place_was_seen(parts: EngineParts) -> None:
    """However long the reaper has watched: it could not have seen it boot."""
    _, row = parts.booting(ttl=10_000.0)
    alive = lambda _, one_host: one_host  # noqa: E731
    reaper = Reaper(parts.context, Membership(one_host=True, alive=alive), lambda: 1e6)
    limit = parts.context.limits.limits.booting
    for _ in range(3):
        parts.cloud.fail("sweep", Fault.SERVER_ERROR)
        reaper.run(sweep=True)
        parts.clock.advance(limit)
    reaper.run(sweep=True)
    assert parts.ledger.instances.get(row.id).state is InstanceState.BOOTING
    parts.clock.advance(limit + 1)
    reaper.run(sweep=True)
    ended = parts.ledger.instances.get(row.id)
    assert (ended.state, ended.death) == (InstanceState.DELETING, Death.STUCK)
