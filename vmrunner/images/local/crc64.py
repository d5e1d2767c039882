"""CRC-64 of ISO 3309, with which Docker's record of a layer tells whether a file is still what it
was.

Its polynomial has so few terms that long integers fold half of the data at once: Python's own
bytewise loop would take minutes for an image.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_ONES: Final = (1 << 64) - 1
_BLOCK: Final = 1 << 16  # bytes that are folded at once; larger ones leave the processor's cache


def crc64(blocks: Iterable[bytes]) -> bytes:
    """The checksum of all blocks, as eight bytes, the highest first."""
    state = _ONES
    for block in blocks:
        for start in range(0, len(block), _BLOCK):
            state = _folded(block[start : start + _BLOCK], state)
    return (state ^ _ONES).to_bytes(8, "big")


def _folded(block: bytes, state: int) -> int:
    """The state after one block: the rest of its polynomial by x⁶⁴ + x⁴ + x³ + x + 1.

    Bit 0 is the highest power, as the checksum is defined. As squaring is linear over two elements,
    x^64s = x^4s + x^3s + x^s + 1 for each power of two s: what is above goes down by shifts."""
    value, bits = int.from_bytes(block, "little") ^ state, 8 * len(block) + 64
    while bits > 64:
        s = 1 << ((bits - 1) // 64).bit_length() - 1
        high = min(60 * s, bits - 64 * s)
        moved = (value & ((1 << high) - 1)) << (64 * s - high)
        value >>= high
        bits -= high
        value ^= moved ^ (moved >> s) ^ (moved >> 3 * s) ^ (moved >> 4 * s)
    return value
