"""The bytes of an object as a file of this host."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from vmrunner.errors import StoreError
from vmrunner.lib import private_dirs, units
from vmrunner.store import ObjectStore, digest_of, verified

#: Bytes of this host's disk that stay free, whatever builds bring.
ROOM: Final = 1 << 30


def check_room(place: Path, size: int) -> None:
    """Raises StoreError where so many bytes more would fill the disk."""
    free = shutil.disk_usage(private_dirs.make(place)).free
    if free - size < ROOM:
        raise StoreError(
            f"{units.amount(free)} are free in {place}, and {units.amount(ROOM)} must stay so",
            hint="make room",
        )


def fetched(
    store: ObjectStore,
    place: Path,
    name: str,
    digest: str,
    *,
    size: int | None = None,
    suffix: str = ".tar",
    until: float | None = None,
) -> Path:
    """Return an object's file, whose hash was checked: the store's own, or a copy in `place`,
    `suffix` in its name, for which there must be room where its `size` is said. `until`: on the
    monotonic clock, when it takes too long. Raises StoreError, NotFound."""
    here = store.path(name)
    if here is not None:
        for _ in _timely(verified(store.read(name), digest, name), until):
            pass
        return here
    cached = private_dirs.make(place) / f"{digest}{suffix}"
    with suppress(FileNotFoundError):
        if digest_of(cached) == digest:
            os.utime(cached)  # what is in use stays
            return cached
    if size is not None:
        check_room(place, size)
    partial = cached.with_name(f"{digest}.{secrets.token_hex(4)}.part")
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as writing:
            for piece in _timely(verified(store.read(name), digest, name), until):
                writing.write(piece)
        partial.replace(cached)
    except OSError as error:
        raise StoreError(
            f"{name} cannot be kept in {place}: {error.strerror}", hint="make room"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return cached


def _timely(pieces: Iterator[bytes], until: float | None) -> Iterator[bytes]:
    for piece in pieces:
        if until is not None and time.monotonic() > until:
            raise StoreError("the store takes too long")
        yield piece
