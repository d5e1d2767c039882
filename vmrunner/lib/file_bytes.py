"""Bytes of a file, however many: never all at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pieces_of(path: Path, size: int) -> Iterator[bytes]:
    """Yield the file, at most `size` bytes at a time."""
    with path.open("rb") as file:
        while data := file.read(size):
            yield data
