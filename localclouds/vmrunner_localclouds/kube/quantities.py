"""Amounts as the API writes them: `500m`, `4Gi`, `1e3` (apimachinery pkg/api/resource)."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_SUFFIXES: Final = {"": Fraction(1), "m": Fraction(1, 1000), "u": Fraction(1, 10**6)}
_SUFFIXES.update({"n": Fraction(1, 10**9), "k": Fraction(1000)})
_SUFFIXES.update({s: Fraction(1000) ** n for n, s in enumerate("MGTPE", 2)})
_SUFFIXES.update({f"{s}i": Fraction(1024) ** n for n, s in enumerate("KMGTPE", 1)})


def quantity(text: object) -> Fraction:
    """A number of a Quantity: `500m`, `4Gi`, `1e3`."""
    found = re.fullmatch(r"([+-]?[0-9.]+)(?:([eE][+-]?\d+)|([numkKMGTPE]i?)?)", str(text))
    assert found is not None, text
    number, exponent, suffix = found.groups()
    if exponent:
        return Fraction(number) * Fraction(10) ** int(exponent[1:])
    return Fraction(number) * _SUFFIXES[suffix or ""]
