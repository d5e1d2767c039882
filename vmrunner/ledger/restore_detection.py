"""A host's memory of its ledger, kept beside it: so a database that was set back to an older state,
or copied, is noticed.

A restored backup does not know the VMs that were started after it was made, and a copy does not
know those that the original starts. Both carry the generation by which the reaper would take these
for forgotten ones. So when this host and the database do not agree, the database gets a new
generation: what it never heard of then lives until its own deadline. That costs so little that
every doubt will do: a boot, or a file that was moved, is taken for a copy. What it removed itself a
database remembers (`removed_vms`).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

from vmrunner.errors import LedgerError
from vmrunner.lib import local_files, process


class RememberedState(NamedTuple):
    """The database as it was used last, and an instance that was started from it, or claimed at
    that epoch from a pool."""

    place: str
    instance: str
    epoch: int = 0


def place_of(database: Path | None) -> str:
    """An identity that a copy of a database does not share: the file on its disk, in this boot of
    this machine. None: one on a server, which is the same from everywhere."""
    if database is None:
        return "server"
    found = database.stat()
    return f"{process.current().boot} {found.st_dev}:{found.st_ino}"


class RestoreDetector:
    """The file, of one ledger on one host. All processes of the host write it."""

    def __init__(self, path: Path, place: str) -> None:
        self._path = path
        self.place = place

    def read(self) -> RememberedState | None:
        """The remembered state; None when there is none. Raises LedgerError."""
        try:
            text = local_files.read(self._path) or ""
        except OSError as error:
            raise LedgerError(
                f"{self._path} cannot be read: {error.strerror}", hint="check who owns it"
            ) from error
        place, _, rest = text.partition("\n")
        instance, _, epoch = rest.partition(" ")
        if not place:
            return None
        return RememberedState(place, instance, int(epoch) if epoch.isdigit() else 0)

    def note(self, instance: str, epoch: int = 0) -> None:
        """Remember the instance that was started last, or claimed at that epoch, before it is used.
        It need not outlive a power cut, after which a database counts as copied, or is elsewhere.
        Raises LedgerError: without this, nothing may be started."""
        text = f"{self.place}\n{instance} {epoch}\n".encode()
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                os.pwrite(descriptor, text, 0)
                os.ftruncate(descriptor, len(text))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise LedgerError(
                f"{self._path} cannot be written: {error.strerror}", hint="check who owns it"
            ) from error
