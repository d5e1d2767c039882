"""Garbage in the store: what goes, when, and what stays although nobody here knows it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.command_line import Cli
from tests.support.ledger_builds import finished, running, spec
from tests.support.object_stores import store as store  # the fixture
from tests.support.stored import Breaking, Killed, plain_ledger
from vmrunner.errors import StoreError
from vmrunner.ledger import Ledger
from vmrunner.model import ObjectKind, ObjectState, Reason, Result
from vmrunner.store import DeletesMany, ListedObject, ObjectStore, digest_of, object_gc, open_store
from vmrunner.store.object_gc import ObjectGc
from vmrunner.store.put import put
from vmrunner.store.source_transfer import SourceTransfer

DAY = 86_400.0
KEEP = 30 * DAY


class World:
    def __init__(self, ledger: Ledger, root: Path, store: ObjectStore | None = None) -> None:
        self.ledger, self.root = ledger, root
        self.now = root.stat().st_mtime
        self.store = Breaking(store or open_store(f"file://{root}/store"))
        self.sources = SourceTransfer(ledger, lambda: self.store, root / "s", lambda: self.now)
        self.gc = self.collector()

    def collector(self, *, shared: bool = True) -> ObjectGc:
        return ObjectGc(
            self.ledger, lambda: self.store, keep=KEEP, shared=shared, clock=lambda: self.now
        )

    def file(self, data: bytes = b"x") -> Path:
        (self.root / "file").write_bytes(data)
        return self.root / "file"

    def source(self, data: bytes = b"x") -> str:
        return self.sources.store(self.file(data))

    def log(self, build: str, *, conclude: bool = True) -> str:
        """The stored log of a build that ended."""
        finished(self.ledger, build, at=self.now)
        file = self.file(build.encode())
        log = put(
            self.ledger, self.store, ObjectKind.LOG, file, digest=digest_of(file), now=self.now,
            build=build, attempt=1, epoch=1,
        )  # fmt: skip
        if conclude:
            assert self.ledger.objects.conclude(log, epoch=1)
        return log.name

    def strange(self, name: str, *, age: float) -> None:
        """An object that no row has."""
        name = f"{self.ledger.installation}/{name}"
        self.store.put(name, self.file(), digest=digest_of(self.file()))
        path = self.store.path(name)
        assert path is not None
        os.utime(path, (self.now - age, self.now - age))


@pytest.fixture
def world(ledger: Ledger, tmp_path: Path) -> World:
    return World(ledger, tmp_path)


def test_a_source_goes_a_day_after_its_last_build(tmp_path: Path, store: ObjectStore) -> None:
    ledger = plain_ledger(tmp_path / "data")
    world = World(ledger, tmp_path, store)
    ledger.builds.submit(spec(), id="b-1", now=1.0, source=world.source())
    for _ in range(3):
        world.now += 2 * DAY
        world.gc.run()
    assert len(world.store.names()) == 1, "a build waits for it"
    ledger.builds.finish("b-1", epoch=0, result=Result.CANCELLED, reason=Reason.USER, now=2.0)
    world.gc.run()
    world.now += DAY - 1
    world.gc.run()
    assert len(world.store.names()) == 1
    world.now += 2
    would = world.gc.run(dry_run=True)
    assert (world.gc.run(), world.store.names(), ledger.objects.page("")) == (would, [], [])
    assert (would.count, would.size) == (1, 1)
    ledger.close()


def test_a_log_stays_until_it_is_let_go_of(world: World) -> None:
    name = world.log("b-1")
    world.now += KEEP + DAY
    world.gc.run()
    world.now += 2 * DAY
    world.gc.run()
    assert world.store.names() == [name]
    world.ledger.removals.remove("b-1", world.now)
    world.now += DAY + 1
    assert world.gc.run().count == 1
    assert world.store.names() == []


def test_what_is_pointed_at_again_is_no_garbage(world: World) -> None:
    """It was seen without a reference long ago; that counts no more."""
    digest = world.source()
    ((row, _),) = world.ledger.objects.page("")
    world.ledger.builds.submit(spec(), id="b-1", now=1.0, source=digest)
    world.ledger.objects.mark([row.name], [], world.now)
    world.now += 2 * DAY
    world.gc.run()
    assert world.ledger.objects.get(row.name).unreferenced_since is None


def test_an_upload_that_never_ended_goes(world: World) -> None:
    name = world.log("b-1", conclude=False)
    world.now += DAY - 1
    assert world.gc.run().count == 0
    world.now += 2
    assert world.gc.run().count == 1
    assert name not in world.store.names()
    assert world.ledger.objects.page("") == []


@pytest.mark.parametrize("point", ["delete", "delete done"])
def test_a_crash_while_it_deletes_is_gone_on_with(world: World, point: str) -> None:
    world.source()
    world.now += DAY + 1
    world.store.dies = point
    with pytest.raises(Killed):
        world.gc.run()
    ((row, _),) = world.ledger.objects.page("")
    assert row.state is ObjectState.DELETING
    assert world.gc.run().count == 1
    assert world.store.names() == world.ledger.objects.page("") == []


def test_a_store_that_is_away_is_left_for_later(world: World) -> None:
    world.source()
    world.now += DAY + 1
    world.store.away = True
    world.gc.run()
    world.store.away = False
    world.gc.run()
    assert world.store.names() == world.ledger.objects.page("") == []


def outcome(world: World) -> tuple[int, int]:
    """Collect once. How many went, and how many could not."""
    night = world.gc.run()
    return night.count, night.failed


def test_what_the_store_keeps_keeps_nothing_else(world: World) -> None:
    """More of them in a row, by their names, than are taken for a store that is away."""
    for n in range(9):
        world.source(b"%d" % n)
        world.now += 0.001
    names = sorted(world.store.names())
    world.store.held = frozenset(names[1:6])
    world.now += DAY + 1
    went = [outcome(world)]
    assert sorted(world.store.names()) == names[1:6]
    went.append(outcome(world))
    world.source(b"fresh")
    world.now += DAY + 1
    went.append(outcome(world))
    world.store.held = frozenset()
    went.append(outcome(world))
    assert went == [(4, 5), (0, 5), (1, 5), (5, 0)]
    assert world.store.names() == []


def test_orphans_that_stay_keep_no_others(world: World) -> None:
    for n in range(6):
        world.strange(f"{n}", age=KEEP + 9)
    names = sorted(world.store.names())
    world.store.held = frozenset(names[:4])
    night = world.gc.run()
    assert (night.count, night.failed) == (2, 4)
    assert sorted(world.store.names()) == names[:4]


def test_a_store_that_goes_away_amid_gc_is_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(9):
        world.source(b"%d" % n)
        world.now += 0.001
    world.now += DAY + 1
    world.store.held = frozenset(world.store.names())

    def away(prefix: str) -> Iterator[ListedObject]:
        raise StoreError("store: it is away")

    monkeypatch.setattr(world.store, "list", away)
    world.store.deletes = 0
    world.gc.run()
    assert world.store.deletes == object_gc.FAILURES


def test_much_garbage_goes_in_few_requests(
    tmp_path: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request for each of a million logs a day would take longer than the day."""
    ledger = plain_ledger(tmp_path / "data")
    world = World(ledger, tmp_path, store)
    for n in range(5):
        world.source(b"%d" % n)
    world.now += 2 * DAY
    store.delete(world.store.names()[0])  # by somebody else
    deleted: list[str] = []
    if isinstance(store, DeletesMany):
        monkeypatch.setattr(store, "delete", deleted.append)
    world.gc = ObjectGc(ledger, lambda: store, keep=KEEP, shared=True, clock=lambda: world.now)
    assert world.gc.run().count == 5
    assert (world.store.names(), ledger.objects.page(""), deleted) == ([], [], [])
    ledger.close()


def test_a_store_that_refuses_many_is_asked_for_each(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        world.source(b"%d" % n)
    world.now += 2 * DAY
    calls: list[int] = []

    def refuse(names: Sequence[str]) -> None:
        calls.append(len(names))
        raise StoreError("store: not implemented")

    monkeypatch.setattr(world.store, "delete_all", refuse, raising=False)
    assert (world.gc.run().count, calls, world.store.names()) == (3, [3], [])


def test_what_is_pointed_at_is_never_marked(world: World) -> None:
    """It is seen twice: as pointed at when the page is read, and in the very write."""
    world.log("b-1")
    ((row, referenced),) = world.ledger.objects.page("")
    assert referenced
    world.ledger.objects.mark([row.name], [], world.now)
    ((row, _),) = world.ledger.objects.page("")
    assert row.unreferenced_since is None


def test_another_generations_objects_stay_as_long_as_anything(world: World) -> None:
    """The ledger that this one was copied from may point at them still."""
    world.source(b"old")
    world.ledger.generation = "another"
    world.gc, alone = world.collector(), world.collector(shared=False)
    world.source(b"new")
    world.now += 2 * DAY
    assert world.gc.run().count == 1
    (kept,) = world.store.names()
    assert "/another/" not in kept
    assert alone.run(dry_run=True).count == 1, "the store is this ledger's alone"
    world.now += KEEP
    assert world.gc.run().count == 1
    assert world.store.names() == []


def test_what_no_row_has_goes_past_retention_only(world: World) -> None:
    world.strange("lost/log/b-1/1-1-a", age=KEEP - 60)
    world.strange("lost/log/b-2/1-1-b", age=KEEP + 60)
    name = world.log("b-3")
    assert world.gc.run().count == 1
    assert [
        object_name.rpartition("/")[2] for object_name in world.store.names() if object_name != name
    ] == ["1-1-a"]


def test_many_that_no_row_has_are_held_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_gc, "ORPHAN_CAP", 3)
    for n in range(4):
        world.strange(f"lost/log/b-{n}/1-1-a", age=KEEP + 60)
    assert (world.gc.run().count, world.gc.run().held) == (0, 4)
    # Fewer by now: that explains nothing.
    world.store.delete(world.store.names()[0])
    assert (world.gc.run().count, world.gc.run().held) == (0, 3)
    assert world.gc.run(orphans=True).count == 3
    world.strange("lost/log/b-9/1-1-a", age=KEEP + 60)
    assert world.gc.run().count == 1


def test_only_what_is_below_this_installation_is_listed(world: World) -> None:
    digest = digest_of(world.file())
    world.store.put("another/g/log/b-1/1-1-a", world.file(), digest=digest)
    world.now += 9 * KEEP
    world.gc.run()
    assert world.store.names() == ["another/g/log/b-1/1-1-a"]


# --- rm ------------------------------------------------------------------------------------------


@pytest.fixture
def made(home: Path) -> Iterator[Ledger]:
    data = home / "data/vmrunner"
    ledger = Ledger.open(f"sqlite:///{data}/ledger.db", data_dir=data)
    finished(ledger, "b-done", chunks=2)
    running(ledger, "b-runs", "vm-2")
    (data / "artifacts/b-done.1").mkdir(parents=True)
    yield ledger
    ledger.close()


def test_rm_removes_the_log_and_the_artifacts(made: Ledger, home: Path, cli: Cli) -> None:
    done = cli("rm", "b-done")
    assert (done.code, done.out) == (0, b"b-done\n")
    assert made.logs.read("b-done") == []
    assert list((home / "data/vmrunner/artifacts").iterdir()) == []
    assert cli("logs", "b-done").out == b""
    assert made.builds.get("b-done").result is Result.SUCCESS
    assert cli("rm", "b-done").code == 0


def test_rm_refuses_what_runs(made: Ledger, cli: Cli) -> None:
    done = cli("rm", "b-runs")
    assert (done.code, done.out) == (5, b"")
    assert b"b-runs is running" in done.err
    assert cli("rm", "b-runs", "b-done").code == 7
    assert cli("rm", "b-none").code == 3


def test_a_build_is_shown_while_the_store_is_away(made: Ledger, home: Path, cli: Cli) -> None:
    store = open_store(f"file://{home}/data/vmrunner/store")
    file = home / "file"
    file.write_bytes(b"x")
    log = put(
        made, store, ObjectKind.ARTIFACTS, file, digest=digest_of(file), now=1.0, build="b-done",
        attempt=1, epoch=1,
    )  # fmt: skip
    assert made.objects.conclude(log, epoch=1)
    store.delete(log.name)
    done = cli("show", "b-done")
    assert (done.code, b"success" in done.out) == (0, True)
    assert cli("show", "b-done", "-o", "json").items[0]["artifacts_back"] == []
    assert cli("artifacts", "ls", "b-done").code == 3
