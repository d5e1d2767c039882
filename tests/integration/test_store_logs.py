"""Logs on their way to the store: by whoever, any time after the end, and never lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.ledger_builds import running
from tests.support.object_stores import store as store  # the fixture
from tests.support.stored import Breaking, Killed, plain_ledger
from vmrunner.errors import StoreError
from vmrunner.ledger import Ledger
from vmrunner.model import BuildState, Chunk, ObjectState, Reason, Result
from vmrunner.services.logs import LogReader
from vmrunner.store import ObjectStore, log_object, open_store, uploader
from vmrunner.store.build_log import BuildLog
from vmrunner.store.uploader import Uploader

HOUR = 3600.0


class World:
    def __init__(self, ledger: Ledger, root: Path, store: ObjectStore | None = None) -> None:
        self.ledger, self.root, self.now = ledger, root, 1000.0
        self.store = Breaking(store or open_store(f"file://{root}/store"))
        self.uploader = self.another()

    def another(self) -> Uploader:
        return Uploader(
            self.ledger,
            lambda: self.store,
            sources=self.root / "s",
            artifacts=self.root / "a",
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )

    def build(self, build: str = "b-1", *, end: bool = True) -> list[Chunk]:
        running(self.ledger, build, f"vm-{build}")
        offset = 0
        for n in range(5):
            data = b"line %d\npart" % n
            offset += len(data)
            self.ledger.logs.append(build, 1, 1, offset=offset, data=data, now=105.0 + n)
        if end:
            self.end(build)
        return self.ledger.logs.read(build)

    def end(self, build: str = "b-1") -> None:
        self.ledger.builds.finish(
            build, epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=110.0
        )

    def log(self, build: str = "b-1") -> BuildLog:
        return BuildLog(self.ledger, lambda: self.store, build)

    def states(self) -> list[ObjectState]:
        return sorted(row.state for row, _ in self.ledger.objects.page(""))


@pytest.fixture
def world(ledger: Ledger, tmp_path: Path) -> World:
    return World(ledger, tmp_path)


def test_a_log_goes_to_the_store_when_its_build_ended(tmp_path: Path, store: ObjectStore) -> None:
    ledger = plain_ledger(tmp_path / "data")
    world = World(ledger, tmp_path, store)
    chunks = world.build(end=False)
    world.uploader.run()
    assert (world.store.names(), ledger.logs.read("b-1")) == ([], chunks)
    before = world.log()
    assert before.read() == chunks
    world.end()
    size, live = before.sized()
    world.uploader.run()
    assert ledger.logs.read("b-1") == []
    (name,) = world.store.names()
    assert name.startswith(f"{ledger.installation}/{ledger.generation}/log/b-1/1-1-")
    for log in (world.log(), before):
        assert list(log.read()) == chunks
        stored_size, stored = log.sized()
        assert stored_size == size
        for read in (live, stored):
            whole = b"".join(chunk.data for chunk in chunks)
            assert b"".join(read(5, size - 5)) == whole[5:-5]
    assert ledger.builds.get("b-1").log_object == name
    world.uploader.run()
    assert world.store.puts == 1
    ledger.close()


def test_a_reader_goes_on_where_the_ledger_ended(world: World) -> None:
    chunks = world.build()
    for after_line in (0, 2):
        reader = LogReader(world.log(), after=after_line)
        expected = list(LogReader(world.log(), after=after_line).new_chunks())
        assert expected[-1] == chunks[-1]
        first = world.log().read(after_line, limit=2)
        reader._seq, reader._after = first[-1].seq, 0
        world.uploader.run()
        assert [*first, *reader.new_chunks()] == expected


def test_a_held_build_keeps_its_log_until_its_end(world: World) -> None:
    chunks = world.build(end=False)
    world.ledger.builds.hold(
        "b-1", epoch=1, result=Result.FAILURE, reason=Reason.EXIT_CODE, now=110.0, hold_until=150.0
    )
    world.uploader.run()
    assert world.ledger.logs.read("b-1") == chunks
    assert world.ledger.builds.get("b-1").state is BuildState.HELD
    world.end()
    world.uploader.run()
    assert world.ledger.logs.read("b-1") == []


def test_logs_that_an_upload_takes_and_leaves_are_others(world: World) -> None:
    """It takes many at once; what it does not come to is another's, at once or after a while."""
    for n in range(4):
        world.build(f"b-{n}")
    world.uploader.run(until=lambda: world.store.puts == 1)
    assert world.store.puts == 1
    world.store.away = True
    world.another().run()
    world.store.away = False
    world.another().run()
    assert world.store.puts == 1, "the store was away a moment ago"
    world.now += uploader.STORE_RETRY
    world.another().run()
    assert world.store.puts == 4
    assert [world.ledger.logs.read(f"b-{n}") for n in range(4)] == [[]] * 4


def test_what_one_takes_no_other_uploads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(4):
        world.build(f"b-{n}")
    second, put = world.another(), world.store.put

    def put_beside_another(name: str, source: Path, *, digest: str) -> None:
        put(name, source, digest=digest)
        second.run()

    monkeypatch.setattr(world.store, "put", put_beside_another)
    world.uploader.run()
    assert world.store.puts == 4


def test_a_store_that_is_away_for_an_hour_loses_nothing(world: World) -> None:
    chunks = world.build()
    world.store.away = True
    while world.now < 1000.0 + HOUR:
        world.uploader.run()
        assert list(world.log().read()) == chunks
        world.now += 60
    world.store.away = False
    world.now += uploader.STORE_RETRY
    world.uploader.run()
    assert world.ledger.logs.read("b-1") == []
    assert list(world.log().read()) == chunks
    world.store.away = True
    with pytest.raises(StoreError, match="away"):
        world.log().read()


def crash_at(world: World, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """Die at one of the effects: `… done` after it, else before."""
    if point in ("put", "put done"):
        world.store.dies = point
        return
    objects: Any = world.ledger.objects
    effect, _, after = point.partition(" ")
    original: Callable[..., Any] = getattr(objects, effect)

    def dying(*args: Any, **options: Any) -> Any:
        if after:
            original(*args, **options)
        raise Killed

    monkeypatch.setattr(objects, effect, dying)


@pytest.mark.parametrize(
    "point",
    [
        "put_off_logs", "put_off_logs done", "begin", "begin done", "put", "put done", "conclude",
        "conclude done",
    ],
)  # fmt: skip
def test_a_crash_at_any_effect_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    ledger = plain_ledger(tmp_path / "data")
    world = World(ledger, tmp_path)
    chunks = world.build()
    with monkeypatch.context() as patched:
        crash_at(world, patched, point)
        with pytest.raises(Killed):
            world.uploader.run()
    assert list(world.log().read()) == chunks
    world.now += uploader.CLAIM + 1
    world.another().run()
    assert ledger.logs.read("b-1") == []
    assert list(world.log().read()) == chunks
    assert ledger.objects.logs_due(world.now + 1e9, 9) == []
    # Of the rows, all but one are to be collected; of the objects, all have a row.
    named = {row.name for row, _ in ledger.objects.page("")}
    assert set(world.store.names()) <= named
    assert sum(referenced for _, referenced in ledger.objects.page("")) == 1
    assert list((tmp_path / "s").iterdir()) == []
    ledger.close()


def test_a_stored_log_leaves_the_ledger_bit_by_bit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.ledger.removals._CHUNKS", 2)
    chunks, readers, remaining = world.build(), [world.log() for _ in range(3)], []
    whole = b"".join(chunk.data for chunk in chunks)
    size, live = readers[0].sized()
    removals: Any = world.ledger.removals
    drop_stored = removals.drop_stored

    def look(_: float) -> None:
        remaining.append(len(world.ledger.logs.read("b-1")))
        read = LogReader(readers.pop()).new_chunks() if readers else iter(chunks)
        assert list(read) == chunks, "one that began before"
        assert list(LogReader(world.log(), after=3).new_chunks())[-1] == chunks[-1]
        assert b"".join(live(0, size)) == whole
        assert world.log().sized()[0] == size
        if len(remaining) == 2:
            raise Killed

    monkeypatch.setattr(removals, "drop_stored", lambda build: drop_stored(build, sleep=look))
    with pytest.raises(Killed):
        world.uploader.run()
    assert remaining == [3, 1], "others could write in between"
    world.now += uploader.CLAIM + 1
    monkeypatch.setattr(removals, "drop_stored", drop_stored)
    world.another().run()
    assert (world.ledger.logs.read("b-1"), world.store.puts) == ([], 1)
    assert world.ledger.objects.logs_due(world.now + 1e9, 9) == []


def test_a_log_that_is_stored_meanwhile_keeps_its_size(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.ledger.removals._CHUNKS", 2)
    chunks, logs, removals = world.build(), world.ledger.logs, world.ledger.removals
    sizes, drop_stored = logs.sizes, removals.drop_stored

    def stop(_: float) -> None:
        raise Killed

    def sizes_late(build: str) -> list[tuple[int, int]]:
        with pytest.raises(Killed):
            world.uploader.run()
        return sizes(build)

    monkeypatch.setattr(removals, "drop_stored", lambda build: drop_stored(build, sleep=stop))
    monkeypatch.setattr(logs, "sizes", sizes_late)
    size, read = world.log().sized()
    assert len(logs.read("b-1")) == 3
    assert b"".join(read(0, size)) == b"".join(chunk.data for chunk in chunks)


def test_a_range_is_read_by_few_questions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks, logs, reads = world.build(end=False), world.ledger.logs, []
    read = logs.read

    def counted(build: str, **wanted: int) -> list[Chunk]:
        reads.append(wanted["limit"])
        return read(build, **wanted)

    monkeypatch.setattr(logs, "read", counted)
    whole = b"".join(chunk.data for chunk in chunks)
    for at_once, questions in (1 << 20, [3]), (25, [2, 1]), (1, [1, 1, 1]):
        monkeypatch.setattr(log_object, "RANGE_READ", at_once)
        reads.clear()
        size, live = world.log().sized()
        assert b"".join(live(15, size - 15)) == whole[15:-15]
        assert reads == questions


def test_a_log_that_is_removed_meanwhile_ends_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.ledger.removals._CHUNKS", 2)
    monkeypatch.setattr(log_object, "RANGE_READ", 1)
    chunks, found = world.build(), []
    size, live = world.log().sized()
    reading = live(0, size)

    def go_on(_: float) -> None:
        found.extend(reading)

    found.append(next(reading))
    world.ledger.removals.remove("b-1", 200.0, sleep=go_on)
    assert found == [chunks[0].data], "no byte of a later place"


def test_two_uploaders_at_once_leave_one_log(world: World) -> None:
    chunks = world.build()
    put = world.store.put
    first = iter([True])

    def put_slowly(name: str, source: Path, *, digest: str) -> None:
        put(name, source, digest=digest)
        if next(first, False):
            world.now += uploader.CLAIM + 1  # the other thinks that this one is gone
            world.another().run()

    world.store.put = put_slowly  # type: ignore[method-assign]
    world.uploader.run()
    assert world.states() == [ObjectState.STORED, ObjectState.UPLOADING]
    assert list(world.log().read()) == chunks
    assert world.ledger.builds.get("b-1").log_object is not None


def test_one_that_is_not_gone_is_left_to_its_work(world: World) -> None:
    world.build()
    put = world.store.put

    def put_beside_another(name: str, source: Path, *, digest: str) -> None:
        world.another().run()
        put(name, source, digest=digest)

    world.store.put = put_beside_another  # type: ignore[method-assign]
    world.uploader.run()
    assert world.store.puts == 1


def test_an_upload_that_gc_overtook_keeps_the_chunks(world: World) -> None:
    """It took more than a day: its object is being deleted, so nothing may point at it."""
    chunks = world.build()
    put = world.store.put
    slow = iter([True])

    def put_slowly(name: str, source: Path, *, digest: str) -> None:
        put(name, source, digest=digest)
        if next(slow, False):
            assert world.ledger.objects.mark_deleting(name, unreferenced_before=world.now + 1)

    world.store.put = put_slowly  # type: ignore[method-assign]
    world.uploader.run()
    assert world.ledger.builds.get("b-1").log_object is None
    assert world.ledger.logs.read("b-1") == chunks
    world.now += uploader.CLAIM + 1
    world.uploader.run()
    assert list(world.log().read()) == chunks
    assert world.ledger.logs.read("b-1") == []


def test_a_log_that_was_removed_meanwhile_stays_removed(world: World) -> None:
    world.build()
    put = world.store.put

    def put_beside_rm(name: str, source: Path, *, digest: str) -> None:
        put(name, source, digest=digest)
        world.ledger.removals.remove("b-1", world.now)

    world.store.put = put_beside_rm  # type: ignore[method-assign]
    world.uploader.run()
    assert list(world.log().read()) == []
    assert world.states() == [ObjectState.UPLOADING]


def test_what_is_wrong_with_one_log_keeps_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("b-1")
    chunks = world.build("b-2")
    real, broken = uploader.put, iter([True])

    def put(*args: Any, **options: Any) -> Any:
        if next(broken, False):
            raise OSError("no room for it")
        return real(*args, **options)

    monkeypatch.setattr(uploader, "put", put)
    world.uploader.run()
    assert world.ledger.builds.get("b-1").log_object is None
    assert list(world.log("b-2").read()) == chunks
    assert world.ledger.builds.get("b-2").log_object is not None
