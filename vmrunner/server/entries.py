"""Entries of principals into VMs, as actions that ops see and events of the build. Connections to
one port count as one entry while they follow each other."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from anyio import to_thread

from vmrunner.errors import VmrunnerError
from vmrunner.lib import units
from vmrunner.services import entering

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

APART: Final = 60.0  # seconds without a connection that end an entry to a port


class Entry:
    """One entry. `shown` and `typed`: bytes that went to and came from the caller."""

    def __init__(self, ledger: Ledger, actor: str, build: str, verb: str) -> None:
        self._ledger, self._actor, self._build, self._verb = ledger, actor, build, verb
        self._began = time.monotonic()
        self.shown = self.typed = 0

    async def begin(self, detail: str) -> None:
        """Note it. Raises LedgerError: who cannot be noted does not enter."""
        await to_thread.run_sync(
            entering.note, self._ledger, self._actor, self._verb, self._build, detail
        )

    async def end(self, detail: str = "") -> None:
        """Note its end, with what went either way."""
        seconds = units.span(time.monotonic() - self._began)
        moved = f"{units.amount(self.shown)} out, {units.amount(self.typed)} in"
        text = ", ".join(filter(None, (detail, seconds, moved)))
        with suppress(VmrunnerError):  # it is over all the same
            await to_thread.run_sync(
                entering.note_end, self._ledger, self._actor, self._verb, self._build, text
            )


class _Visit:
    """The connections of one caller to one port."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.users = 0
        self.noted = asyncio.Lock()
        self.is_noted = False
        self.closing: asyncio.TimerHandle | None = None


class PortVisits:
    """Entries to ports, of one event loop."""

    def __init__(self) -> None:
        self._visits: dict[tuple[str, str, int], _Visit] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def enter(self, ledger: Ledger, actor: str, build: str, port: int, origin: str) -> Entry:
        """Note that a caller enters a port, unless he is there. Each call has its `leave`. Raises
        LedgerError."""
        key = (actor, build, port)
        visit = self._visits.get(key)
        if visit is None:
            visit = self._visits[key] = _Visit(Entry(ledger, actor, build, entering.PORT))
        visit.users += 1
        if visit.closing is not None:
            visit.closing.cancel()
            visit.closing = None
        try:
            async with visit.noted:
                if not visit.is_noted:
                    await visit.entry.begin(f"port {port}, from {origin}")
                    visit.is_noted = True
        except BaseException:
            self.leave(actor, build, port)
            raise
        return visit.entry

    def leave(self, actor: str, build: str, port: int) -> None:
        """Count one connection less."""
        key = (actor, build, port)
        visit = self._visits[key]
        visit.users -= 1
        if not visit.users:
            loop = asyncio.get_running_loop()
            visit.closing = loop.call_later(APART, self._end, key)

    def _end(self, key: tuple[str, str, int]) -> None:
        visit = self._visits.pop(key)
        if visit.is_noted:
            task = asyncio.get_running_loop().create_task(visit.entry.end(f"port {key[2]}"))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
