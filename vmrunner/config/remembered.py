"""Findings that a later command need not come to again: one small file each in the user's cache,
named by a hash of all that it follows from. Nothing secret is put there, and only what nobody else
can have written is believed."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any, Final

from vmrunner.config.paths import cache_path
from vmrunner.lib import private_dirs

_MOST: Final = 100  # files


def _directory() -> Path:
    return cache_path() / "valid"


def read(name: str) -> Any:
    """Content of the file of this name; None: there is none that only this user can have made."""
    try:
        above = os.lstat(_directory())
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(_directory() / name, flags)) as file:
            found = os.fstat(file.fileno())
            private = not (found.st_mode & 0o077 or above.st_mode & 0o077)
            mine = found.st_uid == above.st_uid == os.geteuid()
            plain = stat.S_ISREG(found.st_mode) and stat.S_ISDIR(above.st_mode)
            return json.load(file) if private and mine and plain else None
    except (OSError, ValueError):
        return None


def write(name: str, content: Any) -> None:
    """Have such a file. Where it cannot be written nothing is remembered."""
    with contextlib.suppress(OSError):
        directory = private_dirs.make(_directory())
        old = sorted(directory.iterdir(), key=lambda file: file.lstat().st_mtime, reverse=True)
        for file in old[_MOST - 1 :]:
            file.unlink(missing_ok=True)
        flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW
        with os.fdopen(os.open(directory / name, flags, 0o600), "w") as written:
            json.dump(content, written)
