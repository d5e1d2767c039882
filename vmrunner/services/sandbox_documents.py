"""Documents of what is in a sandbox."""

from __future__ import annotations

from typing import Any, Final

from vmrunner.model import CommandSummary, FileEntry
from vmrunner.services.documents import iso, shown

_FIRST: Final = -62_135_596_800.0  # the year 1
_LAST: Final = 253_402_300_799.0  # the year 9999


def command_document(command: CommandSummary) -> dict[str, Any]:
    """A command of a sandbox."""
    end = command.end
    return {
        "id": shown(command.id),
        "title": shown(command.title),
        "state": "running" if end is None else "ended",
        "exit_code": None if end is None else end.exit_code,
        "timed_out": end is not None and end.timed_out,
    }


def file_document(entry: FileEntry) -> dict[str, Any]:
    """A file of a sandbox."""
    return {
        "name": shown(entry.name),
        "path": shown(entry.path),
        "kind": shown(entry.kind),
        "size": entry.size,
        "mode": f"{entry.mode:04o}",
        "modified_at": iso(min(max(entry.modified, _FIRST), _LAST)),
    }
