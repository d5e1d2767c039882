"""Artifacts on their way to the store and back: one object, named by its manifest alone."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.ledger_builds import running
from tests.support.object_stores import store as store  # the fixture
from tests.support.stored import Breaking, Killed, plain_ledger
from vmrunner.errors import NotFound, NotUploaded, StoreError
from vmrunner.ledger import Ledger
from vmrunner.model import BuildRecord, ObjectState, Reason, Result
from vmrunner.services.artifacts import Artifacts
from vmrunner.store import ObjectStore, open_store, uploader
from vmrunner.store.build_artifacts import directory_of, files_of
from vmrunner.store.uploader import Uploader

BIG = os.urandom(2_500_000)
#: A name that is no UTF-8.
ODD = os.fsdecode(b"odd-\xff")


class World:
    """`here` is the host that brought the artifacts."""

    def __init__(self, ledger: Ledger, root: Path, store: ObjectStore | None = None) -> None:
        self.ledger, self.root = ledger, root
        self.now = root.stat().st_mtime
        self.store = Breaking(store or open_store(f"file://{root}/store"))
        self.here, self.elsewhere = root / "here", root / "there"
        self.uploader = self.another()

    def another(self, place: str = "here") -> Uploader:
        return Uploader(
            self.ledger, lambda: self.store, sources=self.root / "s", artifacts=self.root / place,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )  # fmt: skip

    def build(self, *, epoch: int = 1, end: bool = True) -> BuildRecord:
        running(self.ledger, "b-1", "vm-1")
        self.bring(self.here, epoch)
        if end:
            self.end(epoch)
        return self.ledger.builds.get("b-1")

    def bring(self, place: Path, epoch: int) -> None:
        directory = directory_of(place, "b-1", epoch)
        (directory / "out" / "deep").mkdir(parents=True)
        (directory / "out" / "big").write_bytes(BIG)
        (directory / "out" / "deep" / ("long" * 50)).write_text("x")
        (directory / "out" / "empty").touch(mode=0o755)
        (directory / ODD).write_text("odd")
        (directory / "latest").symlink_to("out/big")
        (directory / "out" / "directory").symlink_to("deep")
        os.mkfifo(directory / "pipe")

    def end(self, epoch: int = 1) -> None:
        self.ledger.builds.finish(
            "b-1", epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=110.0,
            collected=epoch,
        )  # fmt: skip

    def artifacts(self, place: Path) -> Artifacts:
        build = self.ledger.builds.get("b-1")
        return Artifacts.of(
            build, lambda name: files_of(self.ledger, lambda: self.store, place, name)
        )


@pytest.fixture
def world(ledger: Ledger, tmp_path: Path) -> World:
    return World(ledger, tmp_path)


def test_another_node_reads_what_one_brought(tmp_path: Path, store: ObjectStore) -> None:
    ledger = plain_ledger(tmp_path / "data")
    world = World(ledger, tmp_path, store)
    world.build()
    with pytest.raises(NotUploaded, match="not in the store yet"):
        world.artifacts(world.elsewhere).ls()
    assert world.artifacts(world.elsewhere).known() == []
    world.uploader.run()
    (name,) = world.store.names()
    assert name.startswith(f"{ledger.installation}/{ledger.generation}/artifacts/b-1/1-1-")
    local = [artifact for artifact in world.artifacts(world.here).ls() if artifact.path != "pipe"]
    assert world.artifacts(world.elsewhere).ls() == local
    (tmp_path / "to").mkdir()
    copied = world.artifacts(world.elsewhere).download(tmp_path / "to")
    assert len(copied) == len(local) == 6
    assert (tmp_path / "to/out/big").read_bytes() == BIG
    assert (tmp_path / "to/out/empty").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "to/latest").readlink() == Path("out/big")
    assert (tmp_path / "to" / ODD).read_text() == "odd"
    was = directory_of(world.here, "b-1", 1) / "out/big"
    assert (tmp_path / "to/out/big").stat().st_mtime_ns == was.stat().st_mtime_ns
    pieces, size = world.artifacts(world.elsewhere).read("out/big")
    assert (b"".join(pieces), size) == (BIG, len(BIG))
    ledger.close()


def test_only_what_the_manifest_names_is_read(world: World) -> None:
    world.build()
    world.uploader.run()
    for path in ("nothing", "../here", "out/../out/big", "out", "/etc/passwd", "latest", "pipe"):
        with pytest.raises(NotFound):
            world.artifacts(world.elsewhere).read(path)


def test_a_damaged_file_is_never_given_whole(world: World) -> None:
    world.build()
    world.uploader.run()
    (name,) = world.store.names()
    path = world.store.path(name)
    assert path is not None
    data = bytearray(path.read_bytes())
    data[data.index(BIG[:64])] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="other bytes"):
        world.artifacts(world.elsewhere).download(world.root / "to", "out/big")
    assert not (world.root / "to/out/big").exists()


def test_the_object_is_a_tar_for_others_too(world: World) -> None:
    world.build()
    world.uploader.run()
    (name,) = world.store.names()
    path = world.store.path(name)
    assert path is not None
    with tarfile.open(path) as tar:
        assert sorted(tar.getnames())[:2] == ["latest", "odd-\udcff"]
        big = tar.extractfile("out/big")
        assert big is not None
        assert big.read() == BIG


def test_what_a_former_owner_began_to_bring_is_nobodys(world: World) -> None:
    running(world.ledger, "b-1", "vm-1")
    world.bring(world.here, 1)
    assert world.ledger.builds.take_over("b-1", seen_epoch=1, owner="e-2", until=300.0, now=200.0)
    world.bring(world.elsewhere, 2)
    (directory_of(world.elsewhere, "b-1", 2) / "whole").touch()
    world.ledger.builds.finish(
        "b-1", epoch=2, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=210.0, collected=2
    )
    world.uploader.run()
    assert world.store.names() == []
    world.another("there").run()
    assert "whole" in [artifact.path for artifact in world.artifacts(world.here).ls()]
    world.now += uploader.LOCAL_COPY + 60
    world.uploader.run()
    assert list(world.here.glob("b-*")) == []


def test_another_attempt_has_artifacts_of_its_own(world: World) -> None:
    running(world.ledger, "b-1", "vm-1")
    world.ledger.builds.hold(
        "b-1", epoch=1, result=Result.FAILURE, reason=Reason.EXIT_CODE, now=110.0,
        hold_until=150.0, collected=1,
    )  # fmt: skip
    assert world.ledger.builds.take_over("b-1", seen_epoch=1, owner="e-2", until=300.0, now=200.0)
    ended, _ = world.ledger.builds.finish(
        "b-1", epoch=2, result=Result.ERROR, reason=Reason.INTERNAL, now=120.0
    )
    assert ended.collected == 1, "the verdict of a held build stands, and so does what it brought"


def test_a_local_copy_goes_an_hour_after_it_is_stored(world: World) -> None:
    world.build()
    world.store.away = True
    world.now += 2 * uploader.LOCAL_COPY
    world.uploader.run()
    assert list(world.here.glob("b-*")), "it is stored nowhere"
    world.store.away = False
    world.now += uploader.FIRST_PAUSE
    world.uploader.run()
    world.uploader.run()
    assert list(world.here.glob("b-*")) == []
    assert world.artifacts(world.here).ls()


def test_what_lay_in_the_directories_of_before_is_uploaded(world: World) -> None:
    """Of a vmrunner that had no store, which named them by the build alone."""
    running(world.ledger, "b-1", "vm-1")
    (world.here / "b-1").mkdir(parents=True)
    (world.here / "b-1" / "a").write_text("x")
    assert [artifact.path for artifact in world.artifacts(world.here).ls()] == ["a"]
    world.uploader.run()
    assert world.store.names() == []
    world.ledger.builds.finish(
        "b-1", epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=110.0
    )
    world.uploader.run()
    pieces, _ = world.artifacts(world.elsewhere).read("a")
    assert b"".join(pieces) == b"x"


@pytest.mark.parametrize("point", ["put", "put done", "conclude", "conclude done", "begin done"])
def test_a_crash_at_any_effect_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    ledger = plain_ledger(tmp_path / "data")
    world = World(ledger, tmp_path)
    world.build()
    effect, _, after = point.partition(" ")
    with monkeypatch.context() as patched:
        if effect == "put":
            world.store.dies = point
        else:
            objects: Any = ledger.objects
            original = getattr(objects, effect)

            def dying(*args: Any, **options: Any) -> Any:
                if after:
                    original(*args, **options)
                raise Killed

            patched.setattr(objects, effect, dying)
        with pytest.raises(Killed):
            world.uploader.run()
    world.another().run()
    assert world.artifacts(world.elsewhere).ls()
    named = {row.name for row, _ in ledger.objects.page("")}
    assert set(world.store.names()) <= named
    assert sum(referenced for _, referenced in ledger.objects.page("")) == 1
    assert list((tmp_path / "s").iterdir()) == []
    ledger.close()


def test_two_hosts_that_upload_at_once_leave_one_object(world: World) -> None:
    world.build()
    put = world.store.put
    first = iter([True])

    def put_beside_another(name: str, source: Path, *, digest: str) -> None:
        put(name, source, digest=digest)
        if next(first, False):
            directory_of(world.here, "b-1", 1).rename(directory_of(world.root, "b-1", 1))
            world.another(".").run()
            directory_of(world.root, "b-1", 1).rename(directory_of(world.here, "b-1", 1))

    world.store.put = put_beside_another  # type: ignore[method-assign]
    world.uploader.run()
    states = sorted(row.state for row, _ in world.ledger.objects.page(""))
    assert states == [ObjectState.STORED, ObjectState.UPLOADING]
    assert world.artifacts(world.elsewhere).ls()


def test_what_the_store_refuses_keeps_nothing_else(world: World) -> None:
    """As an object that is too large for one request."""
    world.build()
    running(world.ledger, "b-2", "vm-2")
    (directory_of(world.here, "b-2", 1)).mkdir()
    world.ledger.builds.finish(
        "b-2", epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=110.0, collected=1
    )
    put = world.store.put

    def put_small(name: str, source: Path, *, digest: str) -> None:
        if source.stat().st_size > 1_000_000:
            raise StoreError("too large")
        put(name, source, digest=digest)

    world.store.put = put_small  # type: ignore[method-assign]
    world.uploader.run()
    assert world.ledger.builds.get("b-1").artifacts_object is None
    assert world.ledger.builds.get("b-2").artifacts_object is not None


def test_removed_artifacts_are_not_uploaded_again(world: World) -> None:
    world.build()
    world.ledger.removals.remove("b-1", world.now)
    world.uploader.run()
    assert world.store.names() == []
    assert world.artifacts(world.elsewhere).ls() == []
