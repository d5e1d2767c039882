"""Text of a log as it is read: without colours and what else is for a terminal."""

from __future__ import annotations

import re
from typing import Final

#: Colours, other sequences and control characters: what is shown has none.
_SEQUENCE: Final = re.compile(
    rb"\x1b\[[0-9;:?<=>]*[@-~]|\x1b[\]P^_X][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b[^\[\n]?"
    rb"|[\x00-\x08\x0b-\x1f\x7f]"
)
_HAS_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


def plain(data: bytes) -> bytes:
    """Return lines as they are read; no newline goes."""
    return _SEQUENCE.sub(b"", data) if _HAS_CONTROL.search(data) else data
