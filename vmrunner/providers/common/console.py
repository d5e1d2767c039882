"""The part of a boot log that a driver returns."""

from __future__ import annotations

from typing import Final

CONSOLE_BYTES: Final = 64 * 1024
