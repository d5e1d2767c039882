"""A ledger with its store and their ways, for the tests of what goes from one to the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vmrunner.errors import StoreError
from vmrunner.ledger import Ledger
from vmrunner.store import ListedObject, ObjectStore


class Killed(BaseException):
    """The process ended here."""


class Breaking:
    """A store that can be away, or be where the process dies.

    `dies`: before the effect ("put", "delete"), or after it ("put done", "delete done")."""

    def __init__(self, store: ObjectStore) -> None:
        self.inner = store
        self.url, self.local = store.url, store.local
        self.away = False
        self.dies = ""
        self.held: frozenset[str] = frozenset()  # objects that it does not let go of
        self.deletes = 0
        self.puts = 0

    def _reach(self, what: str) -> None:
        if self.away:
            raise StoreError("store: it is away", hint="wait")
        if self.dies == what:
            self.dies = ""
            raise Killed

    def put(self, name: str, source: Path, *, digest: str) -> None:
        self._reach("put")
        self.puts += 1
        self.inner.put(name, source, digest=digest)
        self._reach("put done")

    def read(self, name: str, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        self._reach("read")
        return self.inner.read(name, start, size)

    def delete(self, name: str) -> None:
        self._reach("delete")
        self.deletes += 1
        if name in self.held:
            raise StoreError(f"store: {name}: it is under legal hold")
        self.inner.delete(name)
        self._reach("delete done")

    def list(self, prefix: str) -> Iterator[ListedObject]:
        self._reach("list")
        return self.inner.list(prefix)

    def path(self, name: str) -> Path | None:
        return self.inner.path(name)

    def names(self) -> list[str]:
        """Return what lies in it."""
        return sorted(stored.name for stored in self.inner.list(""))


def plain_ledger(directory: Path) -> Ledger:
    """A new SQLite ledger."""
    return Ledger.open(f"sqlite:///{directory}/ledger.db", data_dir=directory)
