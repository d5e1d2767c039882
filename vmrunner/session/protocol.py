r"""The output of the supervisor's `follow`, read as attacker input. Pure.

L <offset> <length>\n<bytes>
E <length>\n<json>
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from vmrunner.core.lifecycle import End
from vmrunner.errors import VmrunnerError
from vmrunner.model import NO_USAGE, BuildUsage, EventKind, Reason, Result

HEADER: Final = 64  # bytes
LOG_PIECE: Final = 256 * 1024
EVENT: Final = 16 * 1024
TEXT: Final = 1000  # characters of a message
SLACK: Final = 1 << 20  # bytes by which a log may pass its cap: marks, not output
FIGURE: Final = 1 << 50  # bytes, or seconds, that no build can have used

#: What the supervisor may say in the end, and nothing else.
REASONS: Final = frozenset(
    {
        Reason.EXIT_CODE,
        Reason.SIGNAL,
        Reason.OUT_OF_MEMORY,
        Reason.DISK_FULL,
        Reason.STEP_TIMEOUT,
        Reason.BUILD_TIMEOUT,
        Reason.USER,
        Reason.OWNER_GONE,
        Reason.BUDGET,
        Reason.IMAGE,
        Reason.INTERNAL,
    }
)


#: … but for this, of a container that ended without a word: its provider is asked how.
CONTAINER_GONE: Final = "container_gone"

#: What it may tell beside its end.
VM_EVENTS: Final = frozenset(
    {
        EventKind.PULLING,
        EventKind.CONTAINER,
        EventKind.STEP_STARTED,
        EventKind.STEP_ENDED,
        EventKind.LOG_FULL,
        EventKind.CACHE,
    }
)

_BYTES: Final = ("memory_peak", "disk_read", "disk_written", "network_received", "network_sent")


class ProtocolViolation(VmrunnerError):
    """The VM said what cannot be."""


@dataclass(frozen=True, slots=True)
class LogFrame:
    """Bytes that stand at `offset` in the VM's log."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class EventFrame:
    """`data` holds what this kind of event has, checked; all of the log before `offset` came."""

    kind: EventKind
    offset: int
    data: Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True, slots=True)
class EndFrame:
    """The last event."""

    reason: Reason
    exit_code: int | None
    message: str
    usage: BuildUsage = NO_USAGE
    container_gone: bool = False

    @property
    def end(self) -> End:
        """The end of the attempt by this frame, before artifacts are brought."""
        match self.reason:
            case Reason.EXIT_CODE:
                result = Result.FAILURE if self.exit_code else Result.SUCCESS
            case Reason.SIGNAL | Reason.OUT_OF_MEMORY | Reason.DISK_FULL:
                result = Result.FAILURE
            case Reason.STEP_TIMEOUT | Reason.BUILD_TIMEOUT:
                result = Result.TIMEOUT
            case Reason.USER | Reason.OWNER_GONE | Reason.BUDGET:
                result = Result.CANCELLED
            case _:
                result = Result.ERROR
        return End(
            result=result,
            reason=self.reason,
            exit_code=self.exit_code,
            message=self.message,
            usage=self.usage,
            container_gone=self.container_gone,
        )


class FrameDecoder:
    """A decoder of one build's frames, over as many connections as it takes."""

    def __init__(self, *, offset: int, steps: int, log_bytes: int, caches: int = 0) -> None:
        self.offset = offset  # of the log, up to which we have it
        self.seen = 0  # events
        self._steps = steps
        self._log_most = log_bytes + SLACK
        self._caches = caches
        self._events_most = 16 + 4 * steps + 2 * caches
        self._buffer = bytearray()

    def resume(self, offset: int) -> None:
        """Go on at `offset`: another connection follows from there."""
        self.offset = offset
        self._buffer.clear()

    def feed(self, data: bytes) -> Iterator[LogFrame | EventFrame | EndFrame]:
        """Raises ProtocolViolation."""
        self._buffer += data
        while True:
            end = self._buffer.find(b"\n", 0, HEADER)
            if end < 0:
                if len(self._buffer) >= HEADER:
                    raise ProtocolViolation("the VM sent a frame without a header")
                return
            words = bytes(self._buffer[:end]).split(b" ")
            is_log = words[0] == b"L" and len(words) == 3
            if not is_log and not (words[0] == b"E" and len(words) == 2):
                raise ProtocolViolation("the VM sent a frame of an unknown kind")
            size = number(words[-1], LOG_PIECE if is_log else EVENT)
            if not size:
                raise ProtocolViolation("the VM sent an empty frame")
            if len(self._buffer) < end + 1 + size:
                return
            with memoryview(self._buffer) as view:
                body = bytes(view[end + 1 : end + 1 + size])
            del self._buffer[: end + 1 + size]
            yield self._log(number(words[1], 1 << 60), body) if is_log else self._event(body)

    def _log(self, offset: int, body: bytes) -> LogFrame:
        if offset != self.offset:
            raise ProtocolViolation(
                f"the VM's log is at byte {self.offset}, and it sent byte {offset}"
            )
        self.offset += len(body)
        if self.offset > self._log_most:
            raise ProtocolViolation(
                f"the VM sent more log than the {self._log_most} bytes that it may have"
            )
        return LogFrame(offset, body)

    def _event(self, body: bytes) -> EventFrame | EndFrame:
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
            raise ProtocolViolation("the VM sent an event that is none")
        kind = event["kind"]
        if event.get("seq") != self.seen or self.seen >= self._events_most:
            raise ProtocolViolation(
                f"the VM sent event {str(event.get('seq'))[:20]!r} after {self.seen} events"
            )
        self.seen += 1
        offset = integer(event, "offset", self.offset)
        if kind == "ended":
            if offset != self.offset:
                raise ProtocolViolation("the VM's build ended before its log did")
            return self._ended(event)
        data: dict[str, str | int | float | bool | None] = {}
        if kind not in VM_EVENTS:
            raise ProtocolViolation(f"the VM sent an event of unknown kind {kind[:40]!r}")
        if kind in (EventKind.STEP_STARTED, EventKind.STEP_ENDED):
            data["step"] = integer(event, "step", self._steps - 1)
        if kind == EventKind.STEP_ENDED:
            data["exit_code"] = integer(event, "exit_code", 255)
            data["seconds"] = seconds(event.get("seconds"))
        if kind == EventKind.CACHE:
            data |= self._cache(event)
        return EventFrame(EventKind(kind), offset, data)

    def _cache(self, event: dict[str, Any]) -> dict[str, str | int | bool]:
        if type(event.get("packed")) is not bool:
            raise ProtocolViolation("the VM sent an event with packed out of range")
        return {
            "cache": integer(event, "cache", self._caches - 1),
            "packed": event["packed"],
            "bytes": integer(event, "bytes", FIGURE),
            "error": _text(event.get("error")),
        }

    def _ended(self, event: dict[str, Any]) -> EndFrame:
        reason = event.get("reason")
        if reason == CONTAINER_GONE:
            text = _text(event.get("message"))
            return EndFrame(Reason.VM_LOST, None, text, _usage(event), container_gone=True)
        if not isinstance(reason, str) or reason not in REASONS:
            raise ProtocolViolation(
                f"the VM ended the build for an unknown reason {str(reason)[:40]!r}"
            )
        code = event.get("exit_code")
        if code is not None:
            code = integer(event, "exit_code", 255)
        if reason == Reason.EXIT_CODE and code is None:
            raise ProtocolViolation("the VM ended the build without an exit code")
        return EndFrame(Reason(reason), code, _text(event.get("message")), _usage(event))


def _text(value: object) -> str:
    """A text of the VM as one line that can be printed."""
    text = value[:TEXT] if isinstance(value, str) else ""
    return "".join(c if c.isprintable() else " " for c in text)


def _usage(event: dict[str, Any]) -> BuildUsage:
    """The usage that the VM reports. What it leaves out is unknown."""
    seconds = event.get("cpu_seconds")
    if seconds is not None and not _within(seconds, FIGURE):
        raise ProtocolViolation("the VM sent an event with cpu_seconds out of range")
    return BuildUsage(
        cpu_seconds=None if seconds is None else float(seconds),
        **{
            name: None if event.get(name) is None else integer(event, name, FIGURE)
            for name in _BYTES
        },
    )


def number(word: bytes, most: int) -> int:
    if not word.isdigit() or len(word) > 20 or int(word) > most:
        raise ProtocolViolation("the VM sent a frame with a number out of range")
    return int(word)


def integer(event: dict[str, Any], key: str, most: int) -> int:
    value = event.get(key)
    if type(value) is not int or not 0 <= value <= most:
        raise ProtocolViolation(f"the VM sent an event with {key} out of range")
    return value


def seconds(value: object) -> float:
    if not _within(value, 1e9):
        raise ProtocolViolation("the VM sent an event with seconds out of range")
    return float(value)


def _within(value: object, most: float) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < most
