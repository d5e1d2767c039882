"""The store as everybody else sees it, wherever its objects lie."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from vmrunner.errors import DamagedObject
from vmrunner.lib import private_dirs
from vmrunner.lib.file_bytes import digest_of

PIECE: Final = 1 << 20  # bytes that are read at once


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object as a listing shows it. `modified` is the store's clock."""

    name: str
    size: int
    modified: float


class ObjectStore(Protocol):
    """Objects by name. A name is written once and never again, so an object is whole or not there.

    Each method raises StoreError when the store is out of reach or refuses; what was asked for may
    have happened then. NotFound: nothing has this name."""

    url: str
    local: bool  # its objects are files of this host

    def put(self, name: str, source: Path, *, digest: str) -> None:
        """Store a file's bytes in one write, durable when it returns. Raises StoreError when they
        have not this SHA-256."""

    def read(self, name: str, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        """Yield an object's bytes, `size` of them from `start` on, or all to its end."""

    def delete(self, name: str) -> None:
        """Remove it; one that is not there is removed already."""

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects below this prefix, which ends with a slash."""

    def path(self, name: str) -> Path | None:
        """Return the object's file, if this store has it on this host."""


@runtime_checkable
class DeletesMany(Protocol):
    """A store that removes many objects in few requests."""

    def delete_all(self, names: Sequence[str]) -> None:
        """Remove them; those that are not there are removed already. Raises StoreError when some
        may not have been."""


def verified(pieces: Iterator[bytes], digest: str, name: str) -> Iterator[bytes]:
    """Yield the pieces. Raises DamagedObject after the last unless all together have this
    SHA-256."""
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
        yield piece
    if found.hexdigest() != digest:
        raise damaged(name)


def damaged(name: str) -> DamagedObject:
    return DamagedObject(
        f"the store has other bytes than were put into {name}",
        hint="its disk or bucket was changed by others, or is damaged",
    )


def probe(store: ObjectStore, name: str, directory: Path) -> None:
    """Put, read and delete an object of this name; `directory` is for its bytes until then.
    Raises StoreError."""
    with tempfile.NamedTemporaryFile(dir=private_dirs.make(directory)) as file:
        file.write(name.encode())
        file.flush()
        digest = digest_of(Path(file.name))
        store.put(name, Path(file.name), digest=digest)
    for _ in verified(store.read(name), digest, name):
        pass
    store.delete(name)
