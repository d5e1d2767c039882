"""USD an hour of Compute Engine's machine types: on demand, Linux, the cheapest large region, as of
2025-01-01. For "what does this roughly cost", never for an invoice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

USD_HOUR: Final[Mapping[str, float]] = {
    "e2-micro": 0.0084,
    "e2-small": 0.0168,
    "e2-medium": 0.0335,
    "e2-standard-2": 0.067,
    "e2-standard-4": 0.134,
    "e2-standard-8": 0.268,
    "n2-standard-2": 0.0971,
    "n2-standard-4": 0.1942,
    "c3-standard-4": 0.2009,
}
