"""Uploaded sources: packed by a client, named by their digest, each its tenant's alone."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.errors import NoRoom, NotFound
from vmrunner.lib import private_dirs

if TYPE_CHECKING:
    from vmrunner.config.settings import Paths
    from vmrunner.transfers.source_transfer import SourceTransfer

#: Bytes that stay free on the disk, whatever is uploaded.
ROOM: Final = 1 << 30
_ALGORITHM: Final = "sha256:"


def plain(digest: str) -> str:
    """Return the hash in a digest as callers write it. Raises NotFound for what is none."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise NotFound(f"source: {digest[:80]!r} is no digest")
    return digest.removeprefix(_ALGORITHM)


class Uploads:
    """The sources of one tenant. Each stays for a day, or for as long as a build is to have it."""

    def __init__(self, paths: Paths, transfer: Callable[[], SourceTransfer], tenant: str) -> None:
        self._directory = paths.sources
        self._transfer = transfer
        self._tenant = tenant

    def begin(self, expected: int) -> Upload:
        """Begin one of so many bytes, as far as is known. Raises NoRoom."""
        private_dirs.make(self._directory)
        free = shutil.disk_usage(self._directory).free
        if free - expected < ROOM:
            raise NoRoom(f"{free} bytes are free, and {ROOM} of them must stay so")
        return Upload(
            self._directory, lambda file: self._transfer().store(file, tenant=self._tenant)
        )


class Upload:
    """A file that grows; nothing is left of it on this host."""

    def __init__(self, directory: Path, store: Callable[[Path], str]) -> None:
        fd, name = tempfile.mkstemp(dir=directory, prefix="upload-")
        self._file = os.fdopen(fd, "wb")
        self._path = Path(name)
        self._store = store

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def finish(self) -> str:
        """Put it into the store. Return its digest. Raises StoreError."""
        self._file.close()
        return f"{_ALGORITHM}{self._store(self._path)}"

    def abandon(self) -> None:
        """Leave nothing here, after `finish` too."""
        self._file.close()
        self._path.unlink(missing_ok=True)
