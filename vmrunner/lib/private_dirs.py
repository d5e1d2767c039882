"""Directories of ours, made so that no other user may write in them, whatever the umask says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o700


def make(path: Path) -> Path:
    """`path`, made for its owner alone when it is missing, and so every directory above it."""
    for missing in reversed([path, *path.parents]):
        if not missing.is_dir():
            missing.mkdir(mode=PRIVATE, exist_ok=True)
    return path


@contextmanager
def guarded() -> Iterator[None]:
    """Set the umask so that what this process and its programs make inside is for its owner alone
    to write."""
    before = os.umask(0o022)
    os.umask(before | 0o022)
    try:
        yield
    finally:
        os.umask(before)
