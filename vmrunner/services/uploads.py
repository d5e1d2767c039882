"""Uploaded sources: packed by a client, named by their digest, each its tenant's alone."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.errors import NoRoom, NotFound
from vmrunner.lib import private_dirs

if TYPE_CHECKING:
    from vmrunner.config.settings import Paths

#: Bytes that stay free on the disk, whatever is uploaded.
ROOM: Final = 1 << 30
_ALGORITHM: Final = "sha256:"


class Uploads:
    """The sources of one tenant, until a day has passed."""

    def __init__(self, paths: Paths, tenant: str) -> None:
        name = hashlib.sha256(tenant.encode()).hexdigest()[:32]
        self._directory = paths.uploads / name

    def find(self, digest: str) -> Path:
        """Return the file. Raises NotFound for what this tenant did not upload."""
        path = self._path(digest)
        if not path.exists():
            raise NotFound(
                f"source: nothing with the digest {digest} was uploaded",
                hint="PUT /api/v1/sources first",
            )
        os.utime(path)  # it is wanted: its day begins anew
        return path

    def _path(self, digest: str) -> Path:
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise NotFound(f"source: {digest[:80]!r} is no digest")
        return self._directory / f"{digest.removeprefix(_ALGORITHM)}.tar"

    def begin(self, expected: int) -> Upload:
        """Begin one of so many bytes, as far as is known. Raises NoRoom."""
        private_dirs.make(self._directory)
        free = shutil.disk_usage(self._directory).free
        if free - expected < ROOM:
            raise NoRoom(f"{free} bytes are free, and {ROOM} of them must stay so")
        return Upload(self._directory)


class Upload:
    """A file that grows; nothing is left of it unless `finish` was called."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._hash = hashlib.sha256()
        fd, name = tempfile.mkstemp(dir=directory, prefix=".part-")
        self._file = os.fdopen(fd, "wb")
        self._partial = Path(name)

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)

    def finish(self) -> str:
        """Keep it, durably. Return its digest."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        digest = self._hash.hexdigest()
        self._partial.replace(self._directory / f"{digest}.tar")
        return f"{_ALGORITHM}{digest}"

    def abandon(self) -> None:
        """Leave nothing. After `finish` there is nothing to leave."""
        self._file.close()
        self._partial.unlink(missing_ok=True)
