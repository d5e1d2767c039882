"""The guest's serial output on disk, bounded: the beginning is dropped, the end is kept."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

CONSOLE_FILE_BYTES: Final = 256 * 1024  # bytes on disk


class Console:
    """A file of the last bytes that were written: `limit`, or as few as half of that."""

    def __init__(self, path: Path, limit: int = CONSOLE_FILE_BYTES) -> None:
        self._limit = limit
        self._kept = b""
        self._file = path.open("wb", buffering=0)

    def write(self, data: bytes) -> None:
        """Write to the console's file. Never raises: a full disk or a lost directory must not end
        the VM."""
        self._kept += data
        with contextlib.suppress(OSError):
            if len(self._kept) <= self._limit:
                self._file.write(data)
                return
            self._kept = self._kept[-self._limit // 2 :]
            self._file.seek(0)
            self._file.write(self._kept)
            self._file.truncate()

    def says(self, text: bytes) -> bool:
        """True if these words are in what is kept."""
        return text in self._kept

    def close(self) -> None:
        self._file.close()
