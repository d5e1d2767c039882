"""Threads that wait for VMs which callers went into: each VM has its own, so that one that falls
silent holds up nobody else."""

from __future__ import annotations

from typing import Final
from weakref import WeakValueDictionary

from anyio import CapacityLimiter

EACH: Final = 16  # threads of one VM: as many VMs as there may be bound them all


class EntryThreads:
    """Limits of threads, by build."""

    def __init__(self) -> None:
        self._by_build: WeakValueDictionary[str, CapacityLimiter] = WeakValueDictionary()

    def of(self, build: str) -> CapacityLimiter:
        """The limit of one build's VM; it stays the same as long as anybody has it."""
        found = self._by_build.get(build)
        if found is None:
            found = self._by_build[build] = CapacityLimiter(EACH)
        return found
