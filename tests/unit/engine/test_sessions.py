"""Sessions: one a build, what it may write, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_parts import EngineParts
from vmrunner.core.lifecycle import InstanceSign
from vmrunner.engine import reporter as reporting
from vmrunner.engine.reporter import SEALING, LedgerReporter
from vmrunner.engine.sessions import STORE_PATIENCE, STORE_RETRY, SessionManager
from vmrunner.errors import CredentialsRefused, Fenced, LedgerError, StoreError, Uncertain
from vmrunner.model import (
    BuildRecord,
    BuildState,
    BuildUsage,
    EventKind,
    HostUsage,
    InstanceState,
    Reason,
    Result,
)
from vmrunner.providers.fake import Fault
from vmrunner.session import End, SessionJob

SUCCESS = End(result=Result.SUCCESS, reason=Reason.EXIT_CODE, exit_code=0)


class Played:
    """A session that a test plays: it does `acts` when it is run, and remembers its stops."""

    def __init__(self) -> None:
        self.job: SessionJob | None = None
        self.stops: list[Reason] = []
        self.acts: Callable[[Any], End] = lambda _: SUCCESS

    def __call__(self, job: SessionJob, reporter: Any) -> Played:
        self.job, self.reporter = job, reporter
        return self

    def stop(self, reason: Reason) -> None:
        self.stops.append(reason)

    def run(self) -> End:
        return self.acts(self.reporter)


class Ticks(threading.Event):
    """An event that nobody sets: to wait for it moves the virtual clock."""

    def __init__(self, parts: EngineParts) -> None:
        super().__init__()
        self.parts = parts

    def wait(self, timeout: float | None = None) -> bool:
        self.parts.clock.advance(timeout or 0.0)
        return False


class Driver:
    """A manager whose sessions run when `run` is called."""

    def __init__(self, parts: EngineParts) -> None:
        self.parts = parts
        self.session = Played()
        self.works: list[Callable[[], None]] = []
        self.manager = SessionManager(
            parts.context, self.session, lambda _, work: self.works.append(work)
        )

    def start(self) -> None:
        self.manager.start(*self.parts.booting())

    def run(self) -> None:
        for work in self.works:
            work()


@pytest.fixture
def driver(parts: EngineParts) -> Driver:
    return Driver(parts)


def test_a_session_is_told_all_that_its_build_needs(parts: EngineParts, driver: Driver) -> None:
    parts.context.source_of = lambda build: parts.root / f"{build.id}.tar"
    driver.start()
    driver.run()
    job = driver.session.job
    assert job is not None
    assert (job.build, job.instance) == parts.rows()
    assert job.source == parts.root / "b-1.tar"
    assert job.access == parts.ledger.instances.access(job.instance.id)


def test_a_session_begins_once_the_ledger_answers(
    parts: EngineParts, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "WRITE_RETRY", 0.0)  # nobody waits for a clock that stands still
    access, failures = parts.ledger.instances.access, [LedgerError("away"), LedgerError("away")]

    def answered_at_last(instance: str) -> Any:
        if failures:
            raise failures.pop()
        return access(instance)

    monkeypatch.setattr(parts.ledger.instances, "access", answered_at_last)
    driver.start()
    driver.run()
    assert [word.end for word in driver.manager.ends()] == [SUCCESS]


def test_a_store_that_is_away_is_waited_for(parts: EngineParts, driver: Driver) -> None:
    answers = [StoreError("away"), StoreError("away"), parts.root / "source"]

    def source_of(_: BuildRecord) -> Path:
        answer = answers.pop(0)
        if isinstance(answer, StoreError):
            raise answer
        return answer

    parts.context.source_of = source_of
    driver.start()
    session = driver.manager.of("b-1")
    assert session is not None
    session.stopping = Ticks(parts)
    driver.run()
    assert driver.session.job is not None
    assert driver.session.job.source == parts.root / "source"
    troubles = [e for e in parts.ledger.events.list("b-1") if e.kind == EventKind.TROUBLE]
    assert [e.data["error"] for e in troubles] == ["away", "away"]


def test_a_store_that_stays_away_loses_the_attempt(parts: EngineParts, driver: Driver) -> None:
    def away(_: BuildRecord) -> Path:
        raise StoreError("away")

    parts.context.source_of = away
    driver.start()
    session = driver.manager.of("b-1")
    assert session is not None
    session.stopping = Ticks(parts)
    began = parts.clock()
    driver.run()
    assert STORE_PATIENCE <= parts.clock() - began <= STORE_PATIENCE + STORE_RETRY
    (word,) = driver.manager.ends()
    assert word.end is not None
    assert (word.end.result, word.end.lost, word.end.message) == (Result.ERROR, True, "away")


def test_who_waits_for_the_store_can_be_stopped(parts: EngineParts, driver: Driver) -> None:
    def away(_: BuildRecord) -> Path:
        driver.manager.stop("b-1", Reason.USER)
        raise StoreError("away")

    parts.context.source_of = away
    driver.start()
    driver.run()
    assert driver.session.stops == [Reason.USER]


def test_its_last_word_is_told_once(driver: Driver) -> None:
    driver.start()
    driver.run()
    (word,) = driver.manager.ends()
    assert word.end is not None
    assert (word.end.result, word.end.exit_code) == (Result.SUCCESS, 0)
    assert driver.manager.ends() == driver.manager.all() == []


def test_a_dropped_session_is_stopped_and_has_no_last_word(driver: Driver) -> None:
    driver.start()

    def acts(reporter: Any) -> End:
        driver.manager.drop("b-1")
        with pytest.raises(Fenced):
            reporter.state(BuildState.CONNECTING)
        return SUCCESS

    driver.session.acts = acts
    driver.run()
    assert driver.session.stops == [Reason.VM_LOST]
    assert driver.manager.ends() == []


def test_only_the_first_reason_to_stop_counts_and_a_deadline(driver: Driver) -> None:
    driver.start()

    def acts(_: Any) -> End:
        for reason in (Reason.USER, Reason.VM_LOST, Reason.DEADLINE, Reason.DEADLINE):
            driver.manager.stop("b-1", reason)
        return SUCCESS

    driver.session.acts = acts
    driver.run()
    assert driver.session.stops == [Reason.USER, Reason.DEADLINE]


def test_a_stop_before_its_session_is_there_is_kept(driver: Driver) -> None:
    driver.start()
    driver.manager.stop("b-1", Reason.PREEMPTED, InstanceSign.PREEMPTED)
    driver.run()
    assert driver.session.stops == [Reason.PREEMPTED]
    assert driver.manager.ends()[0].active.sign is InstanceSign.PREEMPTED


@pytest.mark.parametrize(
    ("error", "reason", "lost"),
    [
        (CredentialsRefused("no"), Reason.CREDENTIALS, False),
        (ZeroDivisionError("a bug"), Reason.INTERNAL, True),
    ],
)
def test_a_session_that_raises_ends_its_build_and_no_engine(
    driver: Driver, error: Exception, reason: Reason, lost: bool
) -> None:
    def acts(_: Any) -> End:
        raise error

    driver.session.acts = acts
    driver.start()
    driver.run()
    (word,) = driver.manager.ends()
    assert word.end is not None
    assert (word.end.reason, word.end.lost) == (reason, lost)


def test_a_session_that_lost_its_build_gives_no_verdict(parts: EngineParts, driver: Driver) -> None:
    def acts(reporter: Any) -> End:
        reporter.state(BuildState.CONNECTING)
        return SUCCESS

    driver.session.acts = acts
    driver.start()
    parts.mark_deleting(parts.rows()[1])
    driver.run()
    assert [word.end for word in driver.manager.ends()] == [None]


# --- what it reports ---


@pytest.fixture
def reporter(parts: EngineParts, monkeypatch: pytest.MonkeyPatch) -> LedgerReporter:
    monkeypatch.setattr(reporting, "WRITE_RETRY", 0.0)  # nobody waits for a clock that stands still
    parts.cloud.seals = True
    parts.reopen()
    return LedgerReporter(parts.context, *parts.booting())


def test_states_move_the_build_and_its_vm_forward_only(
    parts: EngineParts, reporter: LedgerReporter
) -> None:
    for state in (BuildState.CONNECTING, BuildState.PREPARING, BuildState.CONNECTING):
        reporter.state(state)
    build, row = parts.rows()
    assert (build.state, row.state) == (BuildState.PREPARING, InstanceState.READY)


def test_a_report_waits_for_the_ledger(
    parts: EngineParts, reporter: LedgerReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, failures = parts.ledger.logs.append, [LedgerError("stored, and the answer lost")]

    def stored_at_last(*args: Any, **options: Any) -> Any:
        chunk = append(*args, **options)
        if failures:
            raise failures.pop()
        return chunk

    monkeypatch.setattr(parts.ledger.logs, "append", stored_at_last)
    reporter.log(4, b"one\n")
    assert [chunk.data for chunk in parts.ledger.logs.read("b-1")] == [b"one\n"], "and once"


@pytest.mark.parametrize("stored", [True, False])
def test_an_event_whose_answer_is_lost_is_told_once(
    parts: EngineParts, reporter: LedgerReporter, monkeypatch: pytest.MonkeyPatch, *, stored: bool
) -> None:
    add, failures = parts.ledger.events.add, [LedgerError("the answer was lost")]

    def not_answered(*args: Any, **options: Any) -> None:
        if failures:
            if stored:
                add(*args, **options)
            raise failures.pop()
        add(*args, **options)

    monkeypatch.setattr(parts.ledger.events, "add", not_answered)
    reporter.event(EventKind.SOURCE, sent=1, total=2)
    assert parts.event_count(EventKind.SOURCE) == 1


def test_a_report_waits_no_longer_than_its_vm_may_live(
    parts: EngineParts, reporter: LedgerReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> int:
        parts.clock.advance(30)
        raise LedgerError("down")

    monkeypatch.setattr(parts.ledger.logs, "offset", down)
    with pytest.raises(LedgerError):
        reporter.stored()
    assert parts.clock() >= parts.rows()[1].deadline


def test_no_step_starts_before_the_metadata_service_is_off(
    parts: EngineParts, reporter: LedgerReporter
) -> None:
    parts.cloud.fail("seal", Fault.SERVER_ERROR)
    reporter.steps_started()
    build, row = parts.rows()
    assert build.steps_started
    assert parts.machine(row).sealed


def test_a_metadata_service_that_stays_on_ends_the_wait(
    parts: EngineParts, reporter: LedgerReporter
) -> None:
    parts.cloud.fail("seal", *(2 * [Fault.SERVER_ERROR]))
    parts.cloud.on_call = lambda call: parts.clock.sleep(SEALING / 2)
    with pytest.raises(Uncertain):
        reporter.steps_started()
    assert not parts.build().steps_started


def test_what_the_host_saw_stands_beside_what_the_vm_said(
    parts: EngineParts, driver: Driver
) -> None:
    end = replace(SUCCESS, usage=BuildUsage(memory_peak=7))
    driver.session.acts = lambda _: end
    parts.provider.used = lambda _: HostUsage(cpu_seconds=2.5, disk=9)  # type: ignore[attr-defined]
    driver.start()
    driver.run()
    (word,) = driver.manager.ends()
    assert word.end is not None
    assert word.end.usage == BuildUsage(memory_peak=7, vm_cpu_seconds=2.5, vm_disk=9)


def test_a_figure_that_cannot_be_had_costs_no_verdict(parts: EngineParts, driver: Driver) -> None:
    def used(_: object) -> HostUsage:
        raise OSError("no such file")

    parts.provider.used = used  # type: ignore[attr-defined]
    driver.start()
    driver.run()
    (word,) = driver.manager.ends()
    assert word.end == SUCCESS


def test_a_session_without_a_thread_is_none_and_starts_later(
    parts: EngineParts, caplog: pytest.LogCaptureFixture
) -> None:
    free = [False]
    works: list[Callable[[], None]] = []

    def spawn(_: str, work: Callable[[], None]) -> None:
        if not free[0]:
            raise RuntimeError("can't start new thread")
        works.append(work)

    manager = SessionManager(parts.context, Played(), spawn)
    build, row = parts.booting()
    for _ in range(3):
        manager.start(build, row)
        assert manager.of(build.id) is None
        assert manager.touched() == {build.id}  # the next tick comes back to it
    assert len(caplog.records) == 1
    free[0] = True
    manager.start(build, row)
    assert manager.of(build.id) is not None
    works[0]()
    assert [ended.end for ended in manager.ends()] == [SUCCESS]


def test_a_session_short_of_memory_ends_no_build(
    parts: EngineParts, driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    def short(_: Any) -> End:
        raise MemoryError

    driver.session.acts = short
    build, row = parts.booting()
    for _ in range(3):
        driver.works.clear()
        driver.manager.start(build, row)
        driver.manager.touched()
        driver.run()
        assert [ended.end for ended in driver.manager.ends()] == [None]
        assert driver.manager.touched() == {"b-1"}  # the next tick comes back to it
    assert [record.getMessage() for record in caplog.records] == [
        "session of b-1: MemoryError; all such are tried again"
    ]
    driver.works.clear()
    driver.session.acts = lambda _: SUCCESS
    driver.manager.start(build, row)
    driver.run()
    assert [ended.end for ended in driver.manager.ends()] == [SUCCESS]


def test_what_sessions_need_is_loaded_once(parts: EngineParts) -> None:
    works: list[Callable[[], None]] = []
    loads: list[str] = []
    manager = SessionManager(
        parts.context, Played(), lambda _, work: works.append(work), lambda: loads.append("loaded")
    )
    manager.expect()
    manager.expect()
    assert not loads  # beside the tick, which waits for nothing
    for work in works:
        work()
    assert loads == ["loaded"]
