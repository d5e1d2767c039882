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
    """A command to run once. The caller chooses its `id`. `timeout`: seconds. `user`: a name in the
    container; None: root. `stdin`: True if input will be sent."""

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
    """The end of a command. `timed_out`: it was ended at its timeout. `truncated`: it wrote more
    than the 8 MiB that are kept of a stream."""

    exit_code: int
    timed_out: bool = False
    truncated: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandOutput:
    """A part of a command's output, with secrets masked. `next_stdout` and `next_stderr`: the
    offsets to continue from, in bytes as written, before masking. `end`: None while more may
    come."""

    stdout: bytes
    stderr: bytes
    next_stdout: int
    next_stderr: int
    end: CommandEnd | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandSummary:
    """A command that was started, with its end if it has one."""

    id: str
    title: str
    end: CommandEnd | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """A file of a sandbox. `kind`: file, dir, link or other. `size`: bytes. `modified`: epoch
    seconds."""

    name: str
    path: str
    kind: str
    size: int
    mode: int
    modified: float
