"""Types of the documents of commands and files of sandboxes."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from vmrunner.services.document_types.values import Base64, Moment, Seconds, Size


class CommandDocument(TypedDict):
    """A command of a sandbox."""

    id: str
    title: str
    state: Literal["running", "ended"]
    exit_code: int | None
    timed_out: bool


class CommandNameDocument(TypedDict):
    """The name of a command. `taken`: the bytes of its stdin that were taken."""

    id: str
    taken: NotRequired[int]


class OffsetsDocument(TypedDict):
    """Offsets to read on from."""

    stdout: int
    stderr: int


class CommandEndDocument(TypedDict):
    """The end of a command; `truncated`: it wrote more than was kept."""

    exit_code: int
    timed_out: bool
    truncated: bool
    seconds: Seconds


class CommandOutputDocument(TypedDict):
    """Output of a command."""

    id: str
    stdout: Base64
    stderr: Base64
    next: OffsetsDocument
    end: CommandEndDocument | None


class FileDocument(TypedDict):
    """A file of a sandbox. `mode`: in octal digits."""

    name: str
    path: str
    kind: str
    size: Size
    mode: str
    modified_at: Moment


class PathDocument(TypedDict):
    """The path of a file that was written or removed."""

    path: str
