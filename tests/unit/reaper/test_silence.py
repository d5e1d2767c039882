"""Silence of a place that could not be seen: no VM's fault, and no reason to wait."""

from __future__ import annotations

from tests.support.engine_parts import EngineParts
from vmrunner.engine.membership import Membership
from vmrunner.model import Death, InstanceState, Reason, Result
from vmrunner.providers.fake import Call, Fault
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


def test_the_ledgers_condemned_wait_for_no_listing(parts: EngineParts) -> None:
    """A sweep that is made again may take minutes, where a cloud is slow."""
    build, row = parts.running(ttl=10_000.0)
    reaper = Reaper(parts.context, Membership(one_host=True), lambda: 1e6)
    parts.cloud.fail("sweep", Fault.SERVER_ERROR)
    reaper.run(sweep=True)
    parts.ledger.builds.finish(
        build.id, epoch=build.epoch, now=parts.clock(), result=Result.SUCCESS,
        reason=Reason.EXIT_CODE,
    )  # fmt: skip
    states: list[InstanceState] = []

    def note(call: Call) -> None:
        if call.method == "sweep":
            states.append(parts.ledger.instances.get(row.id).state)

    parts.cloud.on_call = note
    reaper.run(sweep=False)
    assert states[0] is InstanceState.DELETING
