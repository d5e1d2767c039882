"""Commands and files of a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class StreamName(StrEnum):
    """A stream of a command's output."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandOrder:
    """A command to be run once; the caller chooses its `id`. `timeout`: seconds; `user`: by its
    name in the container, None: root; `stdin`: some will be sent."""

    id: str
    argv: tuple[str, ...]
    title: str
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/work"
    user: str | None = None
    timeout: float | None = None
    stdin: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandEnd:
    """The end of a command. `timed_out`: it was ended at its timeout; `truncated`: it wrote more
    than is kept of a stream."""

    exit_code: int
    timed_out: bool = False
    truncated: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandOutput:
    """A part of a command's output, masked. `next_stdout` and `next_stderr` are the offsets to go
    on from: of the bytes as they were written. `end` is None while more may come."""

    stdout: bytes
    stderr: bytes
    next_stdout: int
    next_stderr: int
    end: CommandEnd | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandSummary:
    """A command that was started, and how it ended."""

    id: str
    title: str
    end: CommandEnd | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """A file of a sandbox. `kind`: file, dir, link or other; `modified`: epoch seconds."""

    name: str
    path: str
    kind: str
    size: int
    mode: int
    modified: float
