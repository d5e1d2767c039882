"""Sources in the store: one object for identical bytes of a tenant, checked before they are used,
and never one that is being deleted."""

from __future__ import annotations

import hashlib
import itertools
import threading
from pathlib import Path

import pytest

from tests.support.ledger_builds import spec, submitted
from tests.support.object_stores import store as store  # the fixture
from tests.support.stored import Breaking, Killed, plain_ledger
from vmrunner.errors import NotFound, StoreError
from vmrunner.ledger import Ledger
from vmrunner.model import BuildRecord, ObjectState, Reason, Result
from vmrunner.store import ObjectStore, open_store
from vmrunner.store.source_transfer import SourceTransfer

DAY = 86_400.0


class World:
    def __init__(self, ledger: Ledger, root: Path, store: ObjectStore | None = None) -> None:
        self.ledger, self.root, self.now = ledger, root, 1000.0
        self.store = Breaking(store or open_store(f"file://{root}/store"))
        self.place = root / "sources"
        self.place.mkdir()
        self.transfer = self.node("sources")

    def node(self, name: str) -> SourceTransfer:
        return SourceTransfer(
            self.ledger, lambda: self.store, self.root / name, clock=lambda: self.now
        )

    def file(self, data: bytes) -> Path:
        file = self.root / "packed"
        file.write_bytes(data)
        return file

    def build(self, name: str, digest: str, tenant: str = "local") -> BuildRecord:
        return self.ledger.builds.submit(
            spec(), id=name, now=self.now, source=digest, tenant=tenant
        )[0]


@pytest.fixture
def world(ledger: Ledger, tmp_path: Path) -> World:
    return World(ledger, tmp_path)


def end(ledger: Ledger, build: str) -> None:
    ledger.builds.finish(build, epoch=0, result=Result.CANCELLED, reason=Reason.USER, now=1000.0)


def test_identical_bytes_of_a_tenant_are_one_object(world: World) -> None:
    stored = world.transfer.store(world.file(b"same"))
    assert stored == hashlib.sha256(b"same").hexdigest()
    assert world.transfer.store(world.file(b"same")) == stored
    assert len(world.store.names()) == world.store.puts == 1
    world.transfer.store(world.file(b"same"), tenant="other")
    world.transfer.store(world.file(b"another"))
    assert len(world.store.names()) == 3


def test_a_digest_that_another_tenant_stored_is_unknown(world: World) -> None:
    digest = world.transfer.store(world.file(b"x"), tenant="a")
    with pytest.raises(NotFound, match=digest):
        world.build("b-1", digest, tenant="b")
    with pytest.raises(NotFound):
        world.ledger.builds.get("b-1")
    assert world.build("b-2", digest, tenant="a").source_object in world.store.names()


def test_a_build_again_takes_its_own_tenants_source(world: World) -> None:
    """And gives it another day; whoever else knows the build gets nothing."""
    digest = world.transfer.store(world.file(b"x"), tenant="a")
    build = world.build("b-1", digest, tenant="a")
    world.transfer.store(world.file(b"y"), tenant="b")
    with pytest.raises(NotFound, match=digest):
        world.transfer.again(build, tenant="b")
    end(world.ledger, "b-1")
    world.now += DAY
    assert world.transfer.again(build, tenant="a") == digest
    assert build.source_object is not None
    objects = world.ledger.objects
    assert not objects.mark_deleting(build.source_object, unreferenced_before=world.now)


def test_any_node_fetches_it_once_and_checks_it(tmp_path: Path, store: ObjectStore) -> None:
    ledger = plain_ledger(tmp_path / "data")
    world = World(ledger, tmp_path, store)
    data = b"source" * 500_000
    build = world.build("b-1", world.transfer.store(world.file(data)))
    other_node = world.node("elsewhere")
    found = other_node.fetch(build)
    assert found is not None
    assert found.read_bytes() == data
    if not store.local:
        world.store.away = True  # what was fetched lies in the cache
        assert other_node.fetch(build) == found
        world.store.away = False
        found.write_bytes(b"damaged")
        assert other_node.fetch(build) == found
        assert found.read_bytes() == data
        assert [path.name for path in found.parent.iterdir()] == [found.name]
    ledger.close()


def test_a_damaged_source_never_comes_to_a_build(tmp_path: Path, store: ObjectStore) -> None:
    ledger = plain_ledger(tmp_path / "data")
    world = World(ledger, tmp_path, store)
    build = world.build("b-1", world.transfer.store(world.file(b"source")))
    assert build.source_object is not None
    store.delete(build.source_object)
    with pytest.raises(StoreError, match="is gone"):
        world.transfer.fetch(build)
    other = world.file(b"anothe")
    store.put(build.source_object, other, digest=hashlib.sha256(b"anothe").hexdigest())
    with pytest.raises(StoreError, match="other bytes"):
        world.transfer.fetch(build)
    assert list(world.place.iterdir()) == []
    ledger.close()


def test_a_submit_that_meets_a_deletion_stores_anew(world: World) -> None:
    digest = world.transfer.store(world.file(b"x"))
    (old,) = world.store.names()
    assert world.ledger.objects.mark_deleting(old, unreferenced_before=world.now + 1)
    with pytest.raises(NotFound, match="upload it"):
        world.build("b-1", digest)
    assert world.transfer.store(world.file(b"x")) == digest
    build = world.build("b-1", digest)
    assert build.source_object not in (None, old)
    assert world.ledger.objects.get(old).state is ObjectState.DELETING


def test_what_a_build_waits_for_is_not_collected(world: World) -> None:
    digest = world.transfer.store(world.file(b"x"))
    (name,) = world.store.names()
    world.build("b-1", digest)
    objects = world.ledger.objects
    objects.mark([name], [], world.now)
    assert not objects.mark_deleting(name, unreferenced_before=world.now + 9 * DAY)
    # Marked by a gc whose look was older than the submit, as PostgreSQL allows.
    world.ledger._database.write(
        lambda c: c.exec_driver_sql("UPDATE objects SET unreferenced_since = 1").rowcount
    )
    assert not objects.mark_deleting(name, unreferenced_before=world.now + 9 * DAY)
    objects.mark([], [name], world.now)
    end(world.ledger, "b-1")
    objects.mark([name], [], world.now)
    assert not objects.mark_deleting(name, unreferenced_before=world.now)
    assert objects.mark_deleting(name, unreferenced_before=world.now + 1)


def test_storing_it_again_gives_it_another_day(world: World) -> None:
    world.transfer.store(world.file(b"x"))
    (name,) = world.store.names()
    world.now += DAY
    world.transfer.store(world.file(b"x"))
    assert not world.ledger.objects.mark_deleting(name, unreferenced_before=world.now)


@pytest.mark.parametrize("point", ["put", "put done"])
def test_a_crash_while_it_is_stored_leaves_a_row(world: World, point: str) -> None:
    world.store.dies = point
    with pytest.raises(Killed):
        world.transfer.store(world.file(b"x"))
    ((row, referenced),) = world.ledger.objects.page("")
    assert (row.state, referenced) == (ObjectState.UPLOADING, False)
    assert world.store.names() == ([row.name] if point == "put done" else [])
    digest = world.transfer.store(world.file(b"x"))
    assert world.build("b-1", digest).source_object != row.name
    assert world.ledger.objects.mark_deleting(row.name, unreferenced_before=world.now + 1)


def test_an_upload_that_gc_overtook_is_nobodys(world: World) -> None:
    put = world.store.put
    slow = iter([True])

    def put_slowly(name: str, source: Path, *, digest: str) -> None:
        put(name, source, digest=digest)
        if next(slow, False):  # it takes more than a day
            assert world.ledger.objects.mark_deleting(name, unreferenced_before=world.now + 1)

    world.store.put = put_slowly  # type: ignore[method-assign]
    digest = world.transfer.store(world.file(b"x"))
    states = {row.state for row, _ in world.ledger.objects.page("")}
    assert states == {ObjectState.DELETING, ObjectState.STORED}
    assert world.build("b-1", digest).source_object is not None


def test_two_that_store_the_same_at_once_share_one(world: World) -> None:
    put = world.store.put
    first = iter([True])

    def put_beside_another(name: str, source: Path, *, digest: str) -> None:
        put(name, source, digest=digest)
        if next(first, False):
            world.node("other").store(source)

    world.store.put = put_beside_another  # type: ignore[method-assign]
    digest = world.transfer.store(world.file(b"x"))
    states = sorted(row.state for row, _ in world.ledger.objects.page(""))
    assert states == [ObjectState.STORED, ObjectState.UPLOADING]
    assert world.build("b-1", digest).source_object is not None


def test_no_submit_ever_gets_what_gc_deletes(world: World) -> None:
    """Both at once, as fast as they can."""
    over = threading.Event()
    deleted = []

    def collect() -> None:
        while not over.is_set():
            for row, _ in world.ledger.objects.page(""):
                if world.ledger.objects.mark_deleting(row.name, unreferenced_before=1e12):
                    deleted.append(row.name)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for n in itertools.count():
            if n >= 25 and (deleted or not thread.is_alive()):
                break
            while True:
                try:
                    digest = world.transfer.store(world.file(b"same"))
                    build = world.build(f"b-{n}", digest)
                except (NotFound, StoreError):  # without its day it can go at any moment
                    continue
                break
            assert build.source_object is not None
            state = world.ledger.objects.get(build.source_object).state
            assert state is ObjectState.STORED
            end(world.ledger, build.id)
    finally:
        over.set()
        thread.join()
    assert deleted


def test_a_source_from_before_there_was_a_store(world: World) -> None:
    build = submitted(world.ledger, "b-1")
    assert world.transfer.fetch(build) is None
    spool = world.place / "b-1.tar"
    spool.write_bytes(b"x")
    assert world.transfer.fetch(build) == spool
    world.transfer.adopt(build, spool)
    assert not spool.exists()
    build = world.ledger.builds.get("b-1")
    assert build.source_object is not None
    found = world.transfer.fetch(build)
    assert found is not None
    assert found.read_bytes() == b"x"
