"""What sessions brought of caches, on its way into the store: bounds, and what goes wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.ledger_builds import spec
from vmrunner.errors import StoreError
from vmrunner.ledger import Ledger
from vmrunner.model import CacheRule, FoundCache, Reason, Result
from vmrunner.store import fetch, open_store
from vmrunner.store.build_artifacts import directory_of
from vmrunner.store.cache_transfer import CachePolicy, CacheTransfer
from vmrunner.store.files import FileStore
from vmrunner.store.uploader import Uploader

KIB = 1 << 10


class Host:
    """A host where builds ended, and what they left lies."""

    def __init__(self, ledger: Ledger, root: Path) -> None:
        self.ledger = ledger
        self.place, self.artifacts = root / "sources", root / "artifacts"
        self.policy = CachePolicy(most=100 * KIB, tenant_most=100 * KIB)
        url = f"file://{root / 'store'}"
        self.transfer = CacheTransfer(
            ledger, lambda: open_store(url), self.place, lambda: self.policy
        )
        self.now = time.time()
        self.uploader = Uploader(
            ledger, lambda: open_store(url), sources=self.place, artifacts=self.artifacts,
            caches=self.transfer, clock=lambda: self.now, monotonic=lambda: self.now,
        )  # fmt: skip

    def brought(self, build: str, size: int, key: str = "k", tenant: str = "local") -> None:
        """A build that succeeded, and its packed cache."""
        rule = CacheRule(key=key, path="/cache")
        request = spec(caches=(rule,))
        row, _ = self.ledger.builds.submit(request, id=build, now=time.time(), tenant=tenant)
        file = self.transfer.file(row, 0, size)
        file.write_bytes(build.encode().ljust(size))
        self.ledger.builds.finish(
            build, epoch=0, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=time.time(),
            exit_code=0, collected=0,
        )  # fmt: skip

    def restored(self, build: str) -> FoundCache:
        """What such a build would get now."""
        row = self.ledger.builds.get(build)
        found = self.transfer.find(row, row.spec.caches[0], time.monotonic() + 60)
        assert found is not None
        return found

    def saved(self) -> set[str]:
        return {cache.build for cache in self.ledger.caches.list()}

    def cache_outcomes(self, build: str) -> list[str]:
        events = [e.data for e in self.ledger.events.list(build) if e.kind == "cache"]
        return [f"{data['outcome']}: {data.get('message', '')}" for data in events]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", data_dir=tmp_path)
    yield Host(ledger, tmp_path)
    ledger.close()


def test_what_the_store_refuses_keeps_no_other_cache(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an object that is too large for one request: of a cache, or of artifacts."""
    host.brought("b-1", 50 * KIB, key="large")
    host.brought("b-2", 1 * KIB, key="small")
    directory = directory_of(host.artifacts, "b-1", 0)
    directory.mkdir(parents=True)
    (directory / "large").write_bytes(bytes(50 * KIB))
    put = FileStore.put

    def put_small(self: FileStore, name: str, source: Path, *, digest: str) -> None:
        if source.stat().st_size > 10 * KIB:
            raise StoreError("too large")
        put(self, name, source, digest=digest)

    monkeypatch.setattr(FileStore, "put", put_small)
    host.uploader.run()
    assert host.saved() == {"b-2"}
    assert [path.name for path in host.place.glob("b-*")] == ["b-1.0.0.cache"]


def test_what_the_store_refuses_is_tried_less_and_less(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try reads all of it, and leaves a row until gc comes by."""

    def refuse(self: FileStore, name: str, source: Path, *, digest: str) -> None:
        raise StoreError("too large")

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "put", refuse)
        host.brought("b-1", 1 * KIB)
        for _ in range(120):
            host.uploader.run()
            host.now += 5.0
        assert len(host.ledger.objects.page("")) < 10
    host.now += 600.0
    host.uploader.run()
    assert host.saved() == {"b-1"}


def test_what_a_tenant_let_go_is_bounded_too(host: Host) -> None:
    """Its bytes are in the store for another day."""
    for build in ("b-1", "b-2", "b-3", "b-4"):
        host.brought(build, 40 * KIB)
        host.uploader.run()
    assert host.saved() == {"b-3"}
    assert "not_saved: 80.0 KiB" in host.cache_outcomes("b-4")[0]
    assert sum(stored.size for stored, _ in host.ledger.objects.page("")) == 120 * KIB
    host.brought("b-5", 40 * KIB, tenant="another")
    host.uploader.run()
    assert host.saved() == {"b-3", "b-5"}


def test_a_full_disk_costs_the_cache_alone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    free = fetch.ROOM + 10 * KIB
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    row, _ = host.ledger.builds.submit(spec(), id="b-1", now=1.0)
    assert host.transfer.file(row, 0, 10 * KIB).name == "b-1.0.0.cache"
    with pytest.raises(StoreError, match="must stay so"):
        host.transfer.file(row, 0, 11 * KIB)


def test_copies_of_a_bucket_take_so_much_of_this_disk(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was used a moment ago may be on its way into a VM."""
    monkeypatch.setattr(FileStore, "path", lambda *_: None)
    for number, build in enumerate(("b-1", "b-2", "b-3", "b-4")):
        host.brought(build, 30 * KIB, key=build)
        host.uploader.run()
        found = host.restored(build)
        assert found.path.read_bytes().startswith(build.encode())
        used = time.time() if number == 1 else time.time() - 4000 + number
        os.utime(found.path, (used, used))
    kept = [file.read_bytes()[:3] for file in host.place.iterdir()]
    assert sorted(kept) == [b"b-2", b"b-3", b"b-4"]
