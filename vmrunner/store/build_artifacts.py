"""The artifacts of a build, wherever they lie: in a directory of the host that brought them, or in
the store, as one object.

The object is a tar, of use without us too, with a manifest as its index: path, kind, size, mode,
time, and of a file where its bytes are and their hash. What is read of it is named by the manifest.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from vmrunner.errors import NotUploaded
from vmrunner.model import StoredObject
from vmrunner.store import PIECE, ObjectStore, verified
from vmrunner.store.trailer import read_index, write_index

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
BLOCK: Final = 512  # of a tar


@dataclass(frozen=True, slots=True)
class ArtifactEntry:
    """A file or link that a build brought. `mode` has its kind too."""

    path: str
    size: int
    mode: int
    mtime_ns: int
    target: str | None = None  # of a link
    at: int = 0  # in the object
    digest: str = ""


class ArtifactFiles(Protocol):
    """Files and links of one build."""

    def ls(self) -> list[ArtifactEntry]:
        """Return all, by path."""

    def read(self, entry: ArtifactEntry) -> Iterator[bytes]:
        """Return the bytes of a file. Raises OSError, StoreError, NotFound."""


def directory_of(place: Path, build: str, epoch: int) -> Path:
    """The directory of the artifacts that the owner of this epoch brought. What an owner that was
    taken over had begun to bring is another directory, and never read."""
    return place / f"{build}.{epoch}"


def files_of(
    ledger: Ledger, store: Callable[[], ObjectStore], place: Path, build: str
) -> ArtifactFiles:
    """The artifacts of a build; complete once it has ended. Raises NotUploaded."""
    row = ledger.builds.get(build)
    epoch = row.collected
    here = place / build if epoch is None else directory_of(place, build, epoch)
    if row.removed_at is None and row.artifacts_object is not None and not here.is_dir():
        return StoredArtifacts(store(), ledger.objects.get(row.artifacts_object))
    if epoch is not None and not here.is_dir():
        raise NotUploaded(
            f"the artifacts of {build} are not in the store yet",
            hint="the engine that brought them uploads them: try again soon",
        )
    return LocalArtifacts(here)


class LocalArtifacts:
    """Artifacts in a directory, which may not be there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def ls(self) -> list[ArtifactEntry]:
        found = []
        for place, below, names in os.walk(self._directory):
            links = [name for name in below if Path(place, name).is_symlink()]
            for name in names + links:
                path = Path(place, name)
                info = path.lstat()
                target = os.readlink(path) if stat.S_ISLNK(info.st_mode) else None  # noqa: PTH115
                relative = str(path.relative_to(self._directory))
                found.append(
                    ArtifactEntry(relative, info.st_size, info.st_mode, info.st_mtime_ns, target)
                )
        return sorted(found, key=lambda entry: entry.path)

    def read(self, entry: ArtifactEntry) -> Iterator[bytes]:
        file = self.open(entry)  # now, not when the first byte is wanted
        return _pieces(file)

    def open(self, entry: ArtifactEntry) -> BinaryIO:
        """Open a file. Nothing of a link is followed in its last step."""
        return os.fdopen(os.open(self._directory / entry.path, _READ), "rb")


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while data := file.read(PIECE):
            yield data


class StoredArtifacts:
    """Artifacts in the store."""

    def __init__(self, store: ObjectStore, item: StoredObject) -> None:
        self._store = store
        self._object = item
        self._entries: list[ArtifactEntry] | None = None

    def ls(self) -> list[ArtifactEntry]:
        if self._entries is None:
            index = read_index(self._store, self._object.name, self._object.size)
            self._entries = [ArtifactEntry(*row) for row in index]
        return self._entries

    def read(self, entry: ArtifactEntry) -> Iterator[bytes]:
        pieces = self._store.read(self._object.name, entry.at, entry.size)
        return verified(pieces, entry.digest, f"{self._object.name}: {entry.path!r}")


def write_artifacts(file: BinaryIO, local: LocalArtifacts) -> None:
    """Write the object of a directory's files and links; what is neither is left out."""
    index = []
    for entry in local.ls():
        if stat.S_ISLNK(entry.mode):
            file.write(tar_header(entry))
            at, digest = file.tell(), ""
        elif stat.S_ISREG(entry.mode):
            file.write(tar_header(entry))
            at, digest = file.tell(), _copy(file, local, entry)
        else:
            continue
        row = [entry.path, entry.size, entry.mode, entry.mtime_ns, entry.target, at, digest]
        index.append(row)
    file.write(bytes(2 * BLOCK))
    write_index(file, index)


def tar_header(entry: ArtifactEntry) -> bytes:
    """The header of a file in a tar."""
    import tarfile  # late: who only looks writes none

    member = tarfile.TarInfo(entry.path)
    member.mode = stat.S_IMODE(entry.mode)
    member.mtime = entry.mtime_ns // 1_000_000_000
    if entry.target is not None:
        member.type, member.linkname = tarfile.SYMTYPE, entry.target
    else:
        member.size = entry.size
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _copy(file: BinaryIO, local: LocalArtifacts, entry: ArtifactEntry) -> str:
    found, size = hashlib.sha256(), 0
    for data in local.read(entry):
        found.update(data)
        size += len(data)
        file.write(data)
    if size != entry.size:
        raise OSError(f"{entry.path!r} changed while it was read")
    file.write(bytes(-size % BLOCK))
    return found.hexdigest()
