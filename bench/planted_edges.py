"""Bugs to plant in the drivers, the guards and the rest of the shell (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

BUGS: Final[tuple[Bug, ...]] = ()
