"""Builds that are submitted at once: one commit for all, and each its own fate."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection

from tests.support.ledger_builds import launch, spec
from tests.support.scripted_app import wait_until
from vmrunner.errors import Conflict, Fenced, LedgerError, NotFound, QuotaUsedUp
from vmrunner.ledger import BuildEnd, Ledger, connections, shared_writes
from vmrunner.ledger.events import add_event
from vmrunner.model import BuildState, Death, EventKind, InstanceState, Reason, Result

MANY = 20


@contextmanager
def held_back(shared: Any) -> Iterator[None]:
    """Let nobody write what waits."""
    assert not shared._led
    shared._led = True
    try:
        yield
    finally:
        with shared._guard:
            shared._hand_over()


class Together:
    """A ledger in which submits wait until all of them may go on."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger = ledger
        self.database: Any = ledger._database
        self.together: Any = ledger.builds._shared
        self.commits = 0
        self.fails: BaseException | None = None
        write = self.database.write

        def counted(work: Callable[..., Any], **options: Any) -> Any:
            self.commits += 1
            if self.fails is not None:
                error, self.fails = self.fails, None
                raise error
            return write(work, **options)

        monkeypatch.setattr(self.database, "write", counted)

    def submit(self, *options: dict[str, Any]) -> list[Future[Any]]:
        """Submit a build with each of these, all at once."""
        with ThreadPoolExecutor(MANY) as threads, held_back(self.together):
            futures = [
                threads.submit(
                    self.ledger.builds.submit,
                    spec(idempotency_key=option.pop("key", None), name=option.pop("name", "")),
                    id=f"b-{n:02}",
                    now=100.0,
                    **option,
                )
                for n, option in enumerate(options)
            ]
            wait_until(lambda: len(self.together._waiting) == len(options))
        return futures


@pytest.fixture
def together(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Together:
    return Together(ledger, monkeypatch)


def test_submits_at_once_share_one_commit(together: Together) -> None:
    futures = together.submit(*({} for _ in range(MANY)))
    assert {future.result()[0].id for future in futures} == {f"b-{n:02}" for n in range(MANY)}
    assert together.commits == 1
    assert len(together.ledger.builds.list()) == MANY


def test_one_that_fails_undoes_itself_alone(together: Together) -> None:
    options: list[dict[str, Any]] = [{} for _ in range(MANY)]
    options[3] = {"key": "k", "name": "first"}
    options[5] = {"key": "k", "name": "other"}
    for n in (7, 8, 9):
        options[n] = {"actor": "token:1", "most": 2}
    futures = together.submit(*options)
    errors = [type(error) for future in futures if (error := future.exception()) is not None]
    assert sorted(errors, key=str) == [Conflict, QuotaUsedUp]
    assert together.commits == 4, "undone as a whole, then alone; those two tell why by themselves"
    assert len(together.ledger.builds.list()) == MANY - 2


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_one_that_another_node_holds_up_waits_alone(together: Together, url: str) -> None:
    """Two nodes whose batches want the same rows, in another order, would wait for each other."""
    ledger = together.ledger
    _, token = ledger.tokens.create("t", frozenset(), by="me", now=0.0)
    held = {"actor": token.actor, "most": 9}
    with ThreadPoolExecutor() as threads, psycopg.connect(url) as other:
        other.execute("SELECT id FROM tokens FOR UPDATE")
        submitted = threads.submit(together.submit, {}, held, {})
        wait_until(lambda: len(ledger.builds.list()) == 2)
        assert {build.actor for build in ledger.builds.list()} == {""}
        other.rollback()
        assert [future.exception() for future in submitted.result()] == [None] * 3
    assert len(ledger.builds.list()) == 3


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_lone_one_that_is_held_up_holds_up_nobody(ledger: Ledger, url: str) -> None:
    """The node that has its row may have been stopped."""
    _, token = ledger.tokens.create("t", frozenset(), by="me", now=0.0)
    shared: Any = ledger.builds._shared  # type: ignore[attr-defined]
    with ThreadPoolExecutor() as threads, psycopg.connect(url) as other:
        other.execute("SELECT id FROM tokens FOR UPDATE")
        held = threads.submit(
            ledger.builds.submit, spec(), id="b-held", now=1.0, actor=token.actor, most=9
        )
        try:
            wait_until(lambda: shared._led)
            free = threads.submit(ledger.builds.submit, spec(), id="b-free", now=1.0)
            assert free.result(10)[0].id == "b-free"
            assert not held.done()
        finally:
            other.rollback()
        assert held.result(10)[0].id == "b-held"


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_two_nodes_that_want_each_others_rows_both_write(ledger: Ledger, data_dir: Path) -> None:
    """Each has one row and waits for the other's; no write is lost, and none is done twice."""
    other = Ledger.open(str(ledger.url), data_dir=data_dir)
    names = [ledger.tokens.create("t", frozenset(), by="me", now=0.0)[1].id for _ in range(2)]
    both = threading.Barrier(2)

    def touch(token: str, *, waits: bool) -> Callable[[Connection], int]:
        turns = iter([waits])

        def work(connection: Connection) -> int:
            if next(turns, False):
                both.wait(60)
            text = f"UPDATE tokens SET name = name || 'x' WHERE id = '{token}'"
            return connection.exec_driver_sql(text).rowcount

        return work

    def write(node: Ledger, first: str, second: str) -> list[int | Exception]:
        works = [touch(first, waits=False), touch(second, waits=True)]
        shared: Any = node.builds._shared
        return list(shared.write_all(works))

    with ThreadPoolExecutor() as threads:
        futures = [
            threads.submit(write, ledger, *names),
            threads.submit(write, other, *reversed(names)),
        ]
        assert [future.result(60) for future in futures] == [[1, 1], [1, 1]]
    assert [token.name for token in ledger.tokens.list()] == ["txx", "txx"]
    other.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_node_that_is_stopped_keeps_no_row(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signal, or with its host: its connection stays, and says nothing."""
    monkeypatch.setattr(connections, "SERVER", connections.SERVER.replace("'30s'", "'1s'"))
    ledger.builds.submit(spec(), id="b-1", now=1.0)
    stopped, goes_on = threading.Event(), threading.Event()

    def stop(connection: Connection) -> None:
        add_event(connection, "b-1", EventKind.TRACE, 1.0)
        stopped.set()
        goes_on.wait(30)

    with ThreadPoolExecutor() as threads:
        future = threads.submit(ledger._database.write, stop)
        assert stopped.wait(20)
        assert ledger.builds.request_cancel("b-1", Reason.USER, 2.0).cancel
        goes_on.set()
        assert isinstance(future.exception(), LedgerError)
    assert [event.kind for event in ledger.events.list("b-1")] == [EventKind.CANCEL]


def test_who_is_written_waits_for_nobody_after_it(
    together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_writes, "SHARED", 2)
    begun, goes_on = threading.Event(), threading.Event()

    def slow(_: Connection) -> None:
        begun.set()
        goes_on.wait(60)

    shared = together.together
    with ThreadPoolExecutor() as threads:
        with held_back(shared):
            first = []
            for n in range(2):
                first.append(threads.submit(shared.write, lambda _: None))
                wait_until(lambda n=n: len(shared._waiting) == n + 1)  # type: ignore[misc]
            last = threads.submit(shared.write, slow)
            wait_until(lambda: len(shared._waiting) == 3)
        try:
            assert begun.wait(60)
            assert [future.result(60) for future in first] == [None, None]
            assert not last.done()
        finally:
            goes_on.set()


def test_the_turn_of_one_that_is_interrupted_goes_on(
    together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C came just when it was to write for all."""

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            super().wait(timeout)
            raise KeyboardInterrupt

    shared = together.together
    with ThreadPoolExecutor() as threads:
        with held_back(shared):
            with monkeypatch.context() as patched:
                ours = SimpleNamespace(Event=Interrupted)
                patched.setattr(shared_writes, "threading", ours)
                first = threads.submit(shared.write, lambda _: 1)
                wait_until(lambda: len(shared._waiting) == 1)
            second = threads.submit(shared.write, lambda _: 2)
            wait_until(lambda: len(shared._waiting) == 2)
        assert isinstance(first.exception(60), KeyboardInterrupt)
        assert second.result(60) == 2
    assert not shared._led


def test_a_write_that_an_interrupt_lost_is_told(together: Together) -> None:
    """Ctrl-C came to whoever took it, before it was begun."""

    class Interrupted(deque[Any]):
        taken = 0

        def popleft(self) -> Any:
            write = super().popleft()
            self.taken += 1
            if self.taken == 2:
                raise KeyboardInterrupt
            return write

    together.together._waiting = Interrupted()
    errors = [type(future.exception()) for future in together.submit({}, {})]
    assert sorted(errors, key=str) == [KeyboardInterrupt, LedgerError]
    assert together.ledger.builds.list() == []


@pytest.mark.parametrize("error", [LedgerError("the disk is full"), KeyboardInterrupt()])
def test_a_commit_that_fails_is_told_to_all(together: Together, error: BaseException) -> None:
    together.fails = error
    futures = together.submit(*({} for _ in range(MANY)))
    errors = [future.exception() for future in futures]
    assert all(isinstance(lost, LedgerError) or lost is error for lost in errors)
    assert together.ledger.builds.list() == []
    assert [future.exception() for future in together.submit({}, {})] == [None, None]


def end(epoch: int) -> BuildEnd:
    return BuildEnd(
        epoch=epoch, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=120.0, death=Death.DONE
    )


def test_of_ends_together_each_has_its_own_fate(ledger: Ledger) -> None:
    names = [f"b-{n}" for n in range(4)]
    for name in names:
        ledger.builds.submit(spec(), id=name, now=90.0)
    launches = [launch(ledger, name, f"i-{name}") for name in names]
    assert len(ledger.instances.start(launches, until=200.0)) == 4
    ended = ledger.builds.finish_all(
        {"b-0": end(1), "b-1": end(9), "b-none": end(1), "b-2": end(1)}
    )
    first, fenced, missing, last = ended
    assert isinstance(fenced, Fenced)
    assert isinstance(missing, NotFound)
    assert not isinstance(first, Exception)
    assert not isinstance(last, Exception)
    assert [ledger.builds.get(name).state for name in names] == [
        BuildState.FINISHED, BuildState.PROVISIONING, BuildState.FINISHED, BuildState.PROVISIONING
    ]  # fmt: skip
    assert [first[0].id, last[0].id] == ["b-0", "b-2"]
    for build, row in (first, last):
        assert row == ledger.instances.get(f"i-{build.id}")
        assert (row.state, row.death) == (InstanceState.DELETING, Death.DONE)
    assert [event.kind for event in ledger.events.list("b-1")].count("phase") == 1


def test_ends_together_are_one_commit(together: Together) -> None:
    ledger, names = together.ledger, [f"b-{n}" for n in range(MANY)]
    for name in names:
        ledger.builds.submit(spec(), id=name, now=90.0)
    launches = [launch(ledger, name, f"i-{name}") for name in names]
    assert len(ledger.instances.start(launches, until=200.0)) == MANY
    before = together.commits
    ledger.builds.finish_all({name: end(1) for name in names})
    assert together.commits == before + 1
    together.fails = LedgerError("the disk is full")
    assert [str(error) for error in ledger.builds.finish_all({"b-0": end(1), "b-1": end(1)})] == [
        "the disk is full"
    ] * 2
