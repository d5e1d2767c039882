"""Commands and files of a sandbox, asked of the supervisor in its VM."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict
from typing import Any, Final, NoReturn

from vmrunner.errors import Conflict, NotFound, VmrunnerError
from vmrunner.guest import sandbox_commands as guest
from vmrunner.guest.follow import SHRUNK
from vmrunner.guest.port_forward import REFUSED
from vmrunner.guest.sandbox_files import FAILED
from vmrunner.guest.supervisor import STALE
from vmrunner.model import CommandEnd, CommandOrder, CommandSummary, FileEntry
from vmrunner.session.command_protocol import CommandDecoder, OutputFrame
from vmrunner.session.protocol import ProtocolViolation
from vmrunner.session.ssh import client
from vmrunner.session.supervisor_calls import SupervisorCalls

#: Seconds in which the supervisor must answer what takes no time.
ANSWER: Final = 60.0
LISTING: Final = 16 << 20  # bytes of one list
NOT_STARTED: Final = 255  # exit code that a list tells of a command that could not be started


class StaleEpoch(VmrunnerError):
    """Another owner of the build spoke to its VM: who asks reads the epoch again."""


class SandboxCalls:
    """Calls over one connection at one epoch. Each raises ConnectionLost, StaleEpoch and
    ProtocolViolation."""

    def __init__(self, connection: client.Connection, epoch: int) -> None:
        self._supervisor = SupervisorCalls(connection, epoch)

    # --- commands ---

    def start(self, order: CommandOrder) -> None:
        """Start a command unless it was. Raises Conflict when its id is another command's, or too
        many run."""
        done = self._supervisor.ask_next("exec", stdin=_text(order), pulse=client.within(ANSWER))
        self._check(done, order.id)

    def run(
        self,
        order: CommandOrder,
        stdout: int,
        stderr: int,
        on_output: Callable[[OutputFrame], object],
        pulse: Callable[[], float],
    ) -> CommandEnd:
        """Start it unless it was; follow it from these offsets to its end."""
        words = ("exec", str(stdout), str(stderr))
        return self._follow(order.id, words, _text(order), on_output, pulse)

    def attach(
        self,
        command: str,
        stdout: int,
        stderr: int,
        on_output: Callable[[OutputFrame], object],
        pulse: Callable[[], float],
    ) -> CommandEnd:
        """Follow a command that was started, from these offsets to its end. Raises NotFound."""
        words = ("attach", command, str(stdout), str(stderr))
        return self._follow(command, words, b"", on_output, pulse)

    def _follow(
        self,
        command: str,
        words: tuple[str, ...],
        stdin: bytes,
        on_output: Callable[[OutputFrame], object],
        pulse: Callable[[], float],
    ) -> CommandEnd:
        offsets = (int(words[-2]), int(words[-1]))
        frames = CommandDecoder(*offsets)
        ended: list[CommandEnd] = []

        def receive(data: bytes) -> None:
            for frame in frames.feed(data):
                if isinstance(frame, OutputFrame):
                    on_output(frame)
                else:
                    ended.append(frame)

        done = self._supervisor.ask_next(*words, stdin=stdin, on_bytes=receive, pulse=pulse)
        self._check(done, command)
        if not ended:
            raise client.ConnectionLost(f"the supervisor stopped following {command}")
        return ended[0]

    def signal(self, command: str, number: int) -> None:
        """Send a signal to all processes of a command. One that ended is left alone."""
        words = ("signal", command, str(number))
        done = self._supervisor.ask_next(*words, stdin=b"", pulse=client.within(ANSWER))
        self._check(done, command)

    def send_input(
        self,
        command: str,
        offset: int,
        data: Iterable[bytes],
        *,
        last: bool,
        pulse: Callable[[], float],
    ) -> None:
        """Send what stands at that offset of its stdin. `last`: nothing follows."""
        words = ("input", command, str(offset), *(["end"] if last else []))
        self._check(self._supervisor.ask(*words, stdin=data, pulse=pulse), command)

    def commands(self) -> list[CommandSummary]:
        """Return the commands that were started, the oldest first."""
        return [_summary(line) for line in _lines(self._collect("commands"))]

    # --- files ---

    def read_file(
        self, path: str, on_bytes: Callable[[bytes], object], pulse: Callable[[], float]
    ) -> None:
        """Hand on the bytes of a file. Raises NotFound and Conflict, as all that concern files."""
        self._file("read", path, on_bytes=on_bytes, pulse=pulse)

    def write_file(self, path: str, data: Iterable[bytes], pulse: Callable[[], float]) -> None:
        """Write a file, whole or not at all, and the directories above it."""
        self._file("write", path, data=data, pulse=pulse)

    def list_files(self, path: str) -> list[FileEntry]:
        """The entries of a directory, by name."""
        return [_entry(line) for line in _lines(self._collect("file", request=("list", path)))]

    def stat_file(self, path: str) -> FileEntry:
        """The entry at a path. A link is not followed. Below a file there is none."""
        missing = (errno.ENOENT, errno.ENOTDIR)
        found = _lines(self._collect("file", request=("stat", path), missing=missing))
        if len(found) != 1:
            raise ProtocolViolation("the VM described a file in no line, or several")
        return _entry(found[0])

    def change_files(self, do: str, path: str) -> None:
        """`remove` or `make_dir`."""
        self._file(do, path, pulse=client.within(ANSWER))

    def pack_files(
        self, path: str, on_bytes: Callable[[bytes], object], pulse: Callable[[], float]
    ) -> None:
        """Hand on a tar of a file, or of what is in a directory."""
        self._file("pack", path, on_bytes=on_bytes, pulse=pulse)

    def unpack_files(self, path: str, tar: Iterable[bytes], pulse: Callable[[], float]) -> None:
        """Unpack a tar below a directory, which is made where it is missing."""
        self._file("unpack", path, data=tar, pulse=pulse)

    def _file(
        self,
        do: str,
        path: str,
        *,
        data: Iterable[bytes] = (),
        on_bytes: Callable[[bytes], object] = lambda _: None,
        pulse: Callable[[], float],
    ) -> None:
        def parts() -> Iterable[bytes]:
            yield _request(do, path)
            for piece in data:
                if piece:
                    yield b"%d\n" % len(piece)
                    yield piece
            yield b"0\n"  # without it the VM takes nothing for whole

        done = self._supervisor.ask("file", stdin=parts(), on_bytes=on_bytes, pulse=pulse)
        self._check(done, path)

    # --- ports ---

    def forward(self, port: int, local: socket.socket) -> None:
        """Let a port of the sandbox speak with `local`, until either has ended. Raises NotFound
        where nothing listens there."""
        done = self._supervisor.relay(local, "forward", str(port))
        if done.exit_code == REFUSED:
            raise NotFound(done.complaint)
        self._check(done, f"port {port}")

    # --- within ---

    def _collect(
        self,
        word: str,
        *,
        request: tuple[str, str] | None = None,
        missing: Collection[int] = (errno.ENOENT,),
    ) -> bytes:
        """The output of a supervisor's command, whole. Errors `missing` raise NotFound."""
        found = bytearray()

        def keep(data: bytes) -> None:
            found.extend(data)
            if len(found) > LISTING:
                raise ProtocolViolation(f"the VM sent more than {LISTING} bytes of a list")

        stdin = [] if request is None else [_request(*request)]
        pulse = client.within(ANSWER)
        done = self._supervisor.ask(word, stdin=stdin, on_bytes=keep, pulse=pulse)
        self._check(done, request[1] if request else word, missing)
        return bytes(found)

    def _check(
        self, done: client.Completed, what: str, missing: Collection[int] = (errno.ENOENT,)
    ) -> None:
        """Raise what an exit code of the supervisor means."""
        if done.exit_code == STALE:
            raise StaleEpoch(done.complaint)
        if done.exit_code == guest.UNKNOWN:
            raise NotFound(f"no command {what!r} was started in this sandbox")
        if done.exit_code in (guest.OTHER_ORDER, guest.TOO_MANY):
            raise Conflict(done.complaint, hint="wait for one to end, or end it")
        if done.exit_code == guest.AHEAD:
            raise Conflict(f"offset: {done.complaint}", hint="send what is missing first")
        if done.exit_code == guest.NO_INPUT:
            raise Conflict(done.complaint, hint="start it with stdin=True")
        if done.exit_code == SHRUNK:
            raise Conflict(
                f"stdout, stderr: {what} wrote less than that, or it was forgotten: later ones "
                "wrote",
                hint="read it from 0",
            )
        if done.exit_code == FAILED:
            _refused(done.complaint, what, missing)
        if done.exit_code:
            raise ProtocolViolation(f"the supervisor refused: {done.complaint}")


def _refused(complaint: str, path: str, missing: Collection[int]) -> NoReturn:
    try:
        details = json.loads(complaint)
        name, message = str(details["errno"])[:20], str(details["message"])[:500]
    except (ValueError, KeyError, TypeError):
        raise ProtocolViolation(f"the VM refused {path!r} without saying why") from None
    text = "".join(c if c.isprintable() else " " for c in message)
    if name in map(errno.errorcode.get, missing):
        raise NotFound(text)
    raise Conflict(text)


def _text(order: CommandOrder) -> bytes:
    return json.dumps({**asdict(order), "env": dict(order.env)}, sort_keys=True).encode()


def _request(do: str, path: str) -> bytes:
    return json.dumps({"do": do, "path": os.fsdecode(path)}).encode() + b"\n"


def _lines(text: bytes) -> list[dict[str, Any]]:
    try:
        found = [json.loads(line) for line in text.splitlines()]
    except (ValueError, RecursionError):
        found = [None]
    if not all(isinstance(entry, dict) for entry in found):
        raise ProtocolViolation("the VM sent a list that is none")
    return found


def _entry(values: dict[str, Any]) -> FileEntry:
    try:
        return FileEntry(
            name=str(values["name"]),
            path=str(values["path"]),
            kind=str(values["kind"])[:10],
            size=int(values["size"]),
            mode=int(values["mode"]),
            modified=_moment(values["modified"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ProtocolViolation("the VM described a file in no way that we know") from None


def _moment(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _summary(values: dict[str, Any]) -> CommandSummary:
    try:
        state = values["state"]
        end = None
        if state is not None:
            code = NOT_STARTED if "error" in state else int(state["exit_code"])
            end = CommandEnd(
                exit_code=code & 255,
                timed_out=state.get("timed_out") is True,
                truncated=state.get("truncated") is True,
            )
        return CommandSummary(id=str(values["id"])[:64], title=str(values["title"])[:200], end=end)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise ProtocolViolation("the VM described a command in no way that we know") from None
