"""The cache's directories: ours alone, and what others may change is not used."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vmrunner.errors import BadOrder
from vmrunner.lib import private_dirs


def make(cache: Path, *parts: str) -> Path:
    """Make a directory of the cache, with all above it, for us alone under any umask. Raises
    BadOrder when others may change what is in it."""
    place = private_dirs.make(cache.joinpath(*parts))
    check(cache, *parts)
    return place


def check(cache: Path, *parts: str) -> None:
    """Raises BadOrder when others may change the directory or file `parts` below the cache, or this
    user may not read it, as in a cache that root copied here. What is below a directory that others
    may not enter is safe, and so is what is not there."""
    place = cache
    for part in (".", *parts):
        place /= part
        try:
            status = place.stat()
        except FileNotFoundError:
            return
        if status.st_uid not in (0, os.geteuid()):
            raise BadOrder(
                f"image: {place} belongs to the user {status.st_uid}",
                hint=f"chown -R {os.geteuid()} {place}, or set XDG_CACHE_HOME",
            )
        wanted = os.R_OK | (os.X_OK if stat.S_ISDIR(status.st_mode) else 0)
        if not os.access(place, wanted):
            raise BadOrder(
                f"image: this user may not read {place}, which belongs to the user {status.st_uid}",
                hint=f"chown -R {os.geteuid()} {place} as root, or set XDG_CACHE_HOME",
            )
        group = 0 if status.st_gid == os.getegid() else stat.S_IWGRP
        if status.st_mode & (stat.S_IWOTH | group):
            raise BadOrder(
                f"image: others may write {place} (mode {stat.S_IMODE(status.st_mode):04o})",
                hint=f"chmod go-w {place}, then `vmrunner image verify`",
            )
        if not status.st_mode & (stat.S_IXOTH | stat.S_IXGRP):
            return
