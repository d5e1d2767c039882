"""Uploaded sources: packed by a client, named by their digest, each its tenant's alone."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.errors import NoRoom, NotFound, QuotaUsedUp
from vmrunner.lib import private_dirs, units
from vmrunner.store.fetch import ROOM

if TYPE_CHECKING:
    from vmrunner.config.paths import Paths
    from vmrunner.store.source_transfer import SourceTransfer

_ALGORITHM: Final = "sha256:"


def plain(digest: str) -> str:
    """Return the hash in a digest as callers write it. Raises NotFound for what is none."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise NotFound(f"source: {digest[:80]!r} is no digest")
    return digest.removeprefix(_ALGORITHM)


class ComingBytes:
    """Bytes of uploads that are under way in this process, by tenant: no row counts them yet. Safe
    in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes: Counter[str] = Counter()
        self._all = 0

    def add(self, tenant: str, size: int) -> tuple[int, int]:
        """Add so many, fewer than none when an upload is over. Return how many the tenant has, and
        all together."""
        with self._lock:
            self._bytes[tenant] += size
            self._all += size
            own = self._bytes[tenant]
            if not own:
                del self._bytes[tenant]
            return own, self._all


class Uploads:
    """The sources of one tenant. Each stays for a day, or for as long as a build is to have it.
    `unused`: tells how many bytes of them no build waits for, and how many of all tenants', which
    are `most` and `total` at most with those that are coming."""

    def __init__(
        self,
        paths: Paths,
        transfer: Callable[[], SourceTransfer],
        tenant: str,
        *,
        unused: Callable[[], tuple[int, int]],
        coming: ComingBytes,
        most: int,
        total: int,
    ) -> None:
        self._directory = paths.sources
        self._transfer = transfer
        self._tenant = tenant
        self._unused = unused
        self._coming = coming
        self._most = most, total

    def begin(self, expected: int) -> Upload:
        """Begin one of so many bytes, as far as is known. Raises NoRoom, QuotaUsedUp."""
        private_dirs.make(self._directory)
        self._check_room(expected)
        unused = self._unused()
        self._admit(unused, expected)
        self._coming.add(self._tenant, -expected)  # they are counted as they come

        def admit(size: int) -> None:
            if size > 0:  # it may be unknown how many come, and others upload too
                self._check_room(size)
            self._admit(unused, size)

        return Upload(self._directory, admit, self._store)

    def _check_room(self, more: int) -> None:
        """Raises NoRoom where so many bytes more would fill the disk."""
        free = shutil.disk_usage(self._directory).free
        if free - more < ROOM:
            raise NoRoom(f"{free} bytes are free, and {ROOM} of them must stay so")

    def _admit(self, unused: tuple[int, int], more: int) -> None:
        """Count so many more that come. Raises QuotaUsedUp, but not where bytes are given back."""
        coming = self._coming.add(self._tenant, more)
        whose = ("its tenant's", "unused_source_bytes"), ("all", "total_unused_source_bytes")
        for (owner, key), stored, comes, most in zip(
            whose, unused, coming, self._most, strict=True
        ):
            if more < 0 or stored + comes <= most:
                continue
            self._coming.add(self._tenant, -more)
            raise QuotaUsedUp(
                f"source: with this one more than {units.amount(most)} of {owner} would lie there "
                "unused",
                hint="submit builds with them, or try again when they are gone, a day after their "
                f"upload; on the server: server.{key}",
            )

    def _store(self, path: Path) -> str:
        self._admit(self._unused(), 0)
        return self._transfer().store(path, tenant=self._tenant)


class Upload:
    """A file that grows; nothing is left of it on this host. `admit`: is asked for more bytes, and
    given them back as fewer than none."""

    def __init__(
        self, directory: Path, admit: Callable[[int], None], store: Callable[[Path], str]
    ) -> None:
        fd, name = tempfile.mkstemp(dir=directory, prefix="upload-")
        self._file = os.fdopen(fd, "wb")
        self._path = Path(name)
        self._admit = admit
        self._store = store
        self._size = 0

    def write(self, data: bytes) -> None:
        """Raises QuotaUsedUp, NoRoom."""
        self._admit(len(data))
        self._size += len(data)
        self._file.write(data)

    def finish(self) -> str:
        """Put it into the store. Return its digest. Raises StoreError, QuotaUsedUp."""
        self._file.close()
        return f"{_ALGORITHM}{self._store(self._path)}"

    def abandon(self) -> None:
        """Leave nothing here, after `finish` too."""
        with suppress(OSError):  # the disk is full: what it still holds is not wanted any more
            self._file.close()
        self._path.unlink(missing_ok=True)
        size, self._size = self._size, 0
        self._admit(-size)
