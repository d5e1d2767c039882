r"""The output of a sandbox's command, as the supervisor frames it, read as attacker input. Pure.

O <offset> <length>\n<bytes>      of stdout
R <offset> <length>\n<bytes>      of stderr
E <length>\n<json>                the end
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from vmrunner.errors import Conflict
from vmrunner.guest.command import STREAM
from vmrunner.model import CommandEnd, StreamName
from vmrunner.session.protocol import HEADER, LOG_PIECE, ProtocolViolation, integer, number, seconds

END: Final = 4096  # bytes of the last frame
MARK_ROOM: Final = 4096  # bytes by which a stream may pass its cap: what was cut is told there

_STREAMS: Final = {b"O": StreamName.STDOUT, b"R": StreamName.STDERR}


@dataclass(frozen=True, slots=True)
class OutputFrame:
    """Bytes that stand at `offset` of one stream."""

    stream: StreamName
    offset: int
    data: bytes


class CommandDecoder:
    """A decoder of one command's frames on one connection, from these offsets on."""

    def __init__(self, stdout: int, stderr: int) -> None:
        self._offsets = {StreamName.STDOUT: stdout, StreamName.STDERR: stderr}
        self._buffer = bytearray()
        self._ended = False

    def feed(self, data: bytes) -> Iterator[OutputFrame | CommandEnd]:
        """Raises ProtocolViolation, Conflict."""
        self._buffer += data
        while True:
            head = self._buffer.find(b"\n", 0, HEADER)
            if head < 0:
                if len(self._buffer) >= HEADER:
                    raise ProtocolViolation("the VM sent a frame without a header")
                return
            words = bytes(self._buffer[:head]).split(b" ")
            stream = _STREAMS.get(words[0])
            if self._ended or len(words) != (2 if stream is None else 3):
                raise ProtocolViolation("the VM sent a frame of an unknown kind")
            if stream is None and words[0] != b"E":
                raise ProtocolViolation("the VM sent a frame of an unknown kind")
            size = number(words[-1], END if stream is None else LOG_PIECE)
            if len(self._buffer) < head + 1 + size:
                return
            body = bytes(self._buffer[head + 1 : head + 1 + size])
            del self._buffer[: head + 1 + size]
            yield self._end(body) if stream is None else self._output(stream, words[1], body)

    def _output(self, stream: StreamName, word: bytes, body: bytes) -> OutputFrame:
        offset, expected = number(word, 1 << 60), self._offsets[stream]
        if offset != expected or not body:
            raise ProtocolViolation(
                f"{stream} is at byte {expected}, and the VM sent byte {offset}"
            )
        self._offsets[stream] += len(body)
        if self._offsets[stream] > STREAM + MARK_ROOM:
            raise ProtocolViolation(
                f"the VM sent more {stream} than the {STREAM} bytes that it may"
            )
        return OutputFrame(stream, offset, body)

    def _end(self, body: bytes) -> CommandEnd:
        self._ended = True
        try:
            end: Any = json.loads(body)
        except (ValueError, RecursionError):
            end = None
        if not isinstance(end, dict):
            raise ProtocolViolation("the VM ended a command without saying how")
        if error := end.get("error"):
            text = "".join(c if c.isprintable() else " " for c in str(error)[:500])
            raise ProtocolViolation(f"the command was not started: {text}")
        for stream, key in ((StreamName.STDOUT, "out"), (StreamName.STDERR, "err")):
            size = integer(end, key, STREAM + MARK_ROOM)
            if self._offsets[stream] < size:
                raise Conflict(f"{stream} of this command was forgotten: later ones wrote")
        return CommandEnd(
            exit_code=integer(end, "exit_code", 255),
            timed_out=end.get("timed_out") is True,
            truncated=end.get("truncated") is True,
            seconds=seconds(end.get("seconds")),
        )
