"""One tick's decisions about builds that run: take over, listen, drive, decide, see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.support.engine_parts import EngineParts
from tests.support.ledger_builds import OFFER, PROCESS
from tests.support.pools import waiting
from vmrunner.core.scheduling import OffersAnswer
from vmrunner.engine.completion import BuildCompletion
from vmrunner.engine.context import EngineContext
from vmrunner.engine.deadlines import DeadlineArmer
from vmrunner.engine.launcher import Launcher
from vmrunner.engine.membership import Membership
from vmrunner.engine.poller import InstancePoller
from vmrunner.engine.pools import PoolManager
from vmrunner.engine.reconciler import SESSION_GRACE, Reconciler
from vmrunner.engine.sessions import SessionManager
from vmrunner.engine.terminator import Terminator
from vmrunner.engine.work_selection import LOG_HANDOVER
from vmrunner.errors import LedgerError
from vmrunner.ledger.open_rows import OpenRowsReader
from vmrunner.model import (
    BuildState,
    Death,
    EventKind,
    InstanceState,
    Key,
    Power,
    Reason,
    Result,
    Seen,
    Spec,
)
from vmrunner.providers.fake import Fault
from vmrunner.session import End, SessionJob


class Silent:
    """A session that goes on until it is stopped, and says nothing."""

    def __init__(self) -> None:
        self.stops: list[Reason] = []

    def __call__(self, _job: SessionJob, _reporter: Any) -> Silent:
        return self

    def stop(self, reason: Reason) -> None:
        self.stops.append(reason)

    def run(self) -> End:
        return End(result=Result.SUCCESS, reason=Reason.EXIT_CODE, exit_code=0)


class Bench:
    """A reconciler and its parts; its sessions end when `end_sessions` is called."""

    def __init__(self, parts: EngineParts, context: EngineContext) -> None:
        self.session = Silent()
        self.works: list[Callable[[], None]] = []
        self.launcher = Launcher(context)
        self.sessions = SessionManager(
            context, self.session, lambda _, work: self.works.append(work)
        )
        self.poller = InstancePoller(context)
        self.context = context
        self.membership = Membership(one_host=True, alive=lambda _, one_host: one_host)
        self.completion = BuildCompletion(context)
        self.pools = PoolManager(
            context, self.membership, self.launcher, self.sessions, None, lambda _, work: work()
        )
        self.reconciler = Reconciler(
            context,
            self.membership,
            self.launcher,
            self.sessions,
            self.completion,
            Terminator(context),
            self.poller,
            self.pools,
            DeadlineArmer(context),
        )
        self.parts = parts

    def tick(self, seconds: float = 0.0) -> None:
        """One round, so many seconds later."""
        self.parts.clock.advance(seconds)
        reconciler = self.reconciler
        view = reconciler.gather()
        reconciler.take_over(view)
        reconciler.collect_session_ends(view)
        reconciler.advance(view)
        reconciler.mark_deleting(view)
        self.poller.poll(view.mine, view.restless, lambda _: False)
        reconciler.apply_observations(view, self.poller.observations())
        reconciler.finish()

    def end_sessions(self) -> None:
        for work in self.works:
            work()


@pytest.fixture
def bench(parts: EngineParts) -> Bench:
    return Bench(parts, parts.context)


def test_an_owner_who_joined_during_the_read_keeps_its_vm(
    parts: EngineParts, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is there is read last: else a new engine's row would seem to have no owner."""
    read = OpenRowsReader.read

    def after_another_launched(reader: OpenRowsReader, now: float) -> Any:
        parts.join("e-2", PROCESS)
        parts.submit()
        launcher = Launcher(parts.context_of("e-2"))
        launcher.start([parts.planned(parts.build())])
        launcher.collect()
        return read(reader, now)

    monkeypatch.setattr(OpenRowsReader, "read", after_another_launched)
    view = bench.reconciler.gather()
    assert [row.owner for row in view.rows.values()] == ["e-2"]
    assert view.mine == {}


def test_a_vm_that_can_be_reached_gets_one_session(parts: EngineParts, bench: Bench) -> None:
    parts.booting()
    for _ in range(3):
        bench.tick(1)
    assert len(bench.works) == 1
    assert parts.rows()[1].address is not None


def test_a_container_is_pinned_before_anything_runs_in_it(
    parts: EngineParts, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, pinned = parts.provider.look, list[str | None]()

    def shown(ids: Sequence[Key]) -> dict[Key, Seen]:
        return {key: replace(seen, container="c@sha256:1") for key, seen in look(ids).items()}

    def spawned(_: str, work: Callable[[], None]) -> None:
        pinned.append(parts.ledger.instances.container("b-1"))
        bench.works.append(work)

    monkeypatch.setattr(parts.provider, "look", shown)
    monkeypatch.setattr(bench.sessions, "_spawn", spawned)
    parts.booting(container="c:1")
    for _ in range(3):
        bench.tick(1)
    assert pinned == ["c@sha256:1"]
    assert parts.event_count(EventKind.PINNED) == 1
    parts.booting("b-2", container="c@sha256:1")
    bench.tick(1)
    assert len(pinned) == 2
    assert parts.event_count(EventKind.PINNED, "b-2") == 0, "nothing is written of what is known"


def test_a_retry_takes_no_other_bytes_from_a_pool(
    parts: EngineParts, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, now = parts.ledger, parts.clock()

    def offers(_: str, __: Spec) -> OffersAnswer:
        return OffersAnswer(offers=(OFFER,))

    parts.running()
    first = parts.rows()[1]
    ledger.instances.note_containers([(first.id, first.epoch, "debian@sha256:1")], now)
    row = waiting(ledger, "vm-other", now=now)
    bench.pools.read()
    monkeypatch.setattr("vmrunner.core.pools.claimable", lambda *_: True)

    def found(attempt: int) -> str:
        find = bench.pools.claimable(bench.reconciler.gather(), offers)
        vm = find(replace(parts.build(), attempt=attempt))
        return vm.id if vm is not None else ""

    # A try that was not counted has left its digest, too.
    assert (found(0), found(1)) == ("", ""), "what it has is not known"
    ledger.instances.note_containers([(row.id, row.epoch, "debian@sha256:2")], now)
    assert (found(0), found(1)) == ("", "")
    same = waiting(ledger, "vm-same", now=now)
    ledger.instances.note_containers([(same.id, same.epoch, "debian@sha256:1")], now)
    assert (found(0), found(1)) == (same.id, same.id)


@pytest.mark.parametrize("runs", [False, True])
def test_only_what_never_ran_waits_for_room_anew(
    parts: EngineParts, bench: Bench, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    """A node may refuse a pod that runs already, as after its own restart."""
    (parts.running if runs else parts.booting)()
    look = parts.provider.look

    def shown(ids: Sequence[Key]) -> dict[Key, Seen]:
        full = {"power": Power.DEAD, "address": None, "unfit": Reason.NO_CAPACITY}
        return {key: replace(seen, **full) for key, seen in look(ids).items()}

    monkeypatch.setattr(parts.provider, "look", shown)
    for _ in range(3):
        bench.tick(1)
        parts.clock.advance(SESSION_GRACE)
    build = parts.build()
    if runs:
        assert (build.result, build.reason) == (Result.ERROR, Reason.VM_LOST)
    else:
        assert build.result is None
        assert build.attempt == 0


def test_the_verdict_of_a_session_ends_build_and_vm(parts: EngineParts, bench: Bench) -> None:
    _, row = parts.booting()
    bench.tick()
    bench.end_sessions()
    bench.tick()
    assert parts.build().result is Result.SUCCESS
    assert parts.ledger.instances.get(row.id).state is InstanceState.DELETING


@pytest.mark.parametrize("step", [(Membership, "update"), (InstancePoller, "poll")])
def test_what_a_failed_tick_read_is_looked_at_again(
    parts: EngineParts, bench: Bench, monkeypatch: pytest.MonkeyPatch, step: tuple[type, str]
) -> None:
    """A ledger that is out of reach for a moment may end any tick, at any place."""

    def away(*_: Any) -> None:
        raise LedgerError("away")

    parts.booting()
    bench.tick()
    parts.booting("b-2")
    with monkeypatch.context() as patched:
        patched.setattr(*step, away)
        with pytest.raises(LedgerError):
            bench.tick()
    bench.tick()
    assert len(bench.works) == 2


def test_a_queued_build_that_nobody_wants_ends(parts: EngineParts, bench: Bench) -> None:
    parts.submit()
    parts.ledger.builds.request_cancel("b-1", Reason.USER, parts.clock())
    bench.tick()
    assert parts.build().result is Result.CANCELLED


def test_a_cancelled_build_is_stopped_by_its_session(parts: EngineParts, bench: Bench) -> None:
    parts.booting()
    bench.tick()
    parts.ledger.builds.request_cancel("b-1", Reason.USER, parts.clock())
    bench.tick()
    bench.end_sessions()
    assert bench.session.stops == [Reason.USER]


def test_a_session_is_told_when_its_time_is_over(parts: EngineParts, bench: Bench) -> None:
    _, row = parts.booting()
    bench.tick()
    bench.tick(row.deadline - LOG_HANDOVER - 1 - parts.clock())
    session = bench.sessions.of("b-1")
    assert session is not None
    assert session.stopped is None
    bench.tick(1)
    assert session.stopped is Reason.DEADLINE


def test_past_the_deadline_vm_dies_and_build_times_out(parts: EngineParts, bench: Bench) -> None:
    _, row = parts.booting()
    bench.tick()
    bench.tick(row.deadline + 1 - parts.clock())
    assert (parts.build().result, parts.build().reason) == (Result.TIMEOUT, Reason.DEADLINE)
    assert parts.ledger.instances.get(row.id).death is Death.EXPIRED


def test_a_build_whose_owner_is_gone_is_taken_over(parts: EngineParts) -> None:
    build, _ = parts.booting()
    parts.ledger.engines.leave("e-1")
    parts.join("e-2", PROCESS)
    heir = Bench(parts, parts.context_of("e-2"))
    heir.tick()
    taken, row = parts.rows()
    assert (taken.owner, row.owner) == ("e-2", "e-2")
    assert taken.epoch == row.epoch > build.epoch
    assert heir.sessions.of("b-1") is not None


def test_a_build_whose_owner_lives_is_left_to_it(parts: EngineParts) -> None:
    build, _ = parts.booting()
    parts.join("e-2", PROCESS)
    heir = Bench(parts, parts.context_of("e-2"))
    heir.tick()
    assert parts.build() == build
    assert heir.sessions.all() == []


def test_a_create_that_a_dead_engine_left_is_sent_again(parts: EngineParts) -> None:
    parts.cloud.fail("create", Fault.LOST_RESPONSE)
    _, row = parts.booting()
    parts.ledger.engines.leave("e-1")
    parts.join("e-2", PROCESS)
    heir = Bench(parts, parts.context_of("e-2"))
    heir.tick()
    assert heir.launcher.is_pending(row.id)
    assert len(list(parts.cloud.things())) == 1, "the identical order is the same VM"


def test_a_vm_found_by_name_gets_its_reference(parts: EngineParts, bench: Bench) -> None:
    parts.cloud.fail("create", Fault.LOST_RESPONSE)
    _, row = parts.booting()
    bench.tick()
    assert parts.rows()[1].ref == parts.cloud.of(row.id)[0].ref


def test_a_session_whose_vm_ended_is_heard_for_a_while(parts: EngineParts, bench: Bench) -> None:
    """It may have the exit code already."""
    _, row = parts.running()
    bench.sessions.start(*parts.rows())
    parts.cloud.preempt(parts.machine(row))
    bench.tick()
    bench.tick(SESSION_GRACE - 1)
    assert not parts.build().finished
    bench.tick(1)
    assert (parts.build().result, parts.build().reason) == (Result.ERROR, Reason.PREEMPTED)


def test_why_a_vm_ended_is_told_to_its_build(
    parts: EngineParts, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its provider's words: else nobody learns them, since the VM goes."""
    _, row = parts.booting()
    look = parts.provider.look

    def shown(ids: Sequence[Key]) -> dict[Key, Seen]:
        ended = {"power": Power.STOPPING, "address": None, "detail": "no runtime is configured"}
        return {key: replace(seen, **ended) for key, seen in look(ids).items()}

    monkeypatch.setattr(parts.provider, "look", shown)
    bench.tick(1)
    message = parts.ledger.instances.get(row.id).message
    assert message == "the VM ended before it was ready: no runtime is configured"


def test_a_dying_vm_that_is_seen_dead_is_closed(parts: EngineParts, bench: Bench) -> None:
    row = parts.dying()
    bench.tick()
    assert parts.ledger.instances.get(row.id).state is InstanceState.DELETING
    parts.cloud.die(parts.machine(row))
    bench.tick(1)
    assert parts.ledger.instances.get(row.id).state is InstanceState.GONE


def test_a_vm_that_nobody_sees_is_not_closed(parts: EngineParts, bench: Bench) -> None:
    row = parts.dying()
    machine = parts.machine(row)
    parts.cloud.die(machine)
    machine.tombstone = 0.0
    bench.tick(1)
    assert machine.power is Power.DEAD
    assert parts.ledger.instances.get(row.id).state is InstanceState.DELETING


def test_a_vm_that_no_build_needs_must_die(parts: EngineParts, bench: Bench) -> None:
    build, row = parts.booting()
    parts.ledger.builds.finish(
        build.id,
        epoch=build.epoch,
        result=Result.ERROR,
        reason=Reason.INTERNAL,
        now=parts.clock(),
    )
    bench.tick()
    assert parts.build().state is BuildState.FINISHED
    assert parts.ledger.instances.get(row.id).death is Death.DONE


def test_nobody_counts_as_silent_while_we_slept(parts: EngineParts, bench: Bench) -> None:
    bench.tick(5)
    assert bench.reconciler.watching == 5
    bench.tick(3600)
    assert bench.reconciler.watching == 0
