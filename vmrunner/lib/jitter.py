"""Random numbers for pauses, of a generator of our own: a program that embeds us and seeds `random`
draws what it would draw without us."""

from __future__ import annotations

import random
from typing import Final

_GENERATOR: Final = random.Random()  # noqa: S311 - no secret


def between(low: float, high: float) -> float:
    """A number from `low` to `high`."""
    return _GENERATOR.uniform(low, high)
