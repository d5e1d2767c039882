"""A store in a directory of this host.

By the standard library, not by obstore: its threads do not survive a fork, and a program that
embeds vmrunner may fork; nor does it flush a file to the disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from vmrunner.errors import NotFound, StoreError
from vmrunner.lib import private_dirs
from vmrunner.store.base import PIECE, ListedObject, damaged

_PART: Final = ".part"
_TRIES: Final = 8  # of a put whose directory goes meanwhile


class FileStore:
    """Objects as files below `root`, each by its name."""

    local = True

    def __init__(self, root: Path) -> None:
        self.url = f"file://{quote(str(root))}"
        self._root = root

    def put(self, name: str, source: Path, *, digest: str) -> None:
        with _translated(f"{name} cannot be written below {self._root}"):
            for again in range(_TRIES):
                try:
                    self._write(self._root / name, source, digest)
                except FileNotFoundError:
                    # A delete took the empty directory away between two of our steps.
                    if again == _TRIES - 1 or not source.exists():
                        raise
                else:
                    break

    def _write(self, path: Path, source: Path, digest: str) -> None:
        partial = path.with_name(path.name + _PART)
        found = hashlib.sha256()
        made = _made(path.parent)
        try:
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with source.open("rb") as reading, os.fdopen(fd, "wb") as writing:
                while data := reading.read(PIECE):
                    found.update(data)
                    writing.write(data)
                writing.flush()
                os.fsync(writing.fileno())
            if found.hexdigest() != digest:
                raise damaged(str(path.relative_to(self._root)))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        for directory in (path.parent, *made):
            _flush(directory)

    def read(self, name: str, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        with _translated(f"{name} cannot be read"):
            try:
                file = (self._root / name).open("rb")
            except FileNotFoundError:
                raise NotFound(f"the store has no {name}") from None
            with file:
                file.seek(start)
                remaining = size
                while data := file.read(PIECE if remaining is None else min(PIECE, remaining)):
                    remaining = None if remaining is None else remaining - len(data)
                    yield data

    def delete(self, name: str) -> None:
        path = self._root / name
        with _translated(f"{name} cannot be deleted"):
            path.unlink(missing_ok=True)
            # What it lay in alone goes too; a put that makes it anew at this moment tries again.
            for directory in path.relative_to(self._root).parents[:-1]:
                with suppress(OSError):
                    (self._root / directory).rmdir()

    def list(self, prefix: str) -> Iterator[ListedObject]:
        with _translated(f"{self._root} cannot be listed"):
            for place, _, files in os.walk(self._root / prefix):
                for file in sorted(files):
                    path = Path(place, file)
                    with suppress(FileNotFoundError):  # another process deleted it
                        info = path.stat()
                        name = str(path.relative_to(self._root))
                        yield ListedObject(name, info.st_size, info.st_mtime)

    def path(self, name: str) -> Path | None:
        return self._root / name


def _made(directory: Path) -> list[Path]:
    """Make a directory; return those whose entries changed by that."""
    missing = []
    above = directory
    while not above.is_dir():
        missing.append(above.parent)
        above = above.parent
    private_dirs.make(directory)
    return missing


def _flush(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"store: {what}: {error.strerror}", hint="see who owns it, and its room"
        ) from error
