"""Use of a sandbox by a process with its ledger: commands and files, over connections to its VM.

A caller speaks at the epoch of the build's owner. After a take-over that is another, and a
connection may be lost at any time: then it asks again, with the same id and from the offsets that
it has. What a command prints comes masked (command_output.py)."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar
from weakref import WeakSet

from vmrunner.config.field_checks import COMMAND_ID
from vmrunner.core.boxes import DOCKER
from vmrunner.errors import Conflict, NotFinished, NotFound, SandboxOver
from vmrunner.lib import cancellation
from vmrunner.lib.masking import Masker
from vmrunner.lib.secret_patterns import SecretPatterns
from vmrunner.model import (
    DYING,
    BuildState,
    CommandEnd,
    CommandOrder,
    CommandOutput,
    CommandSummary,
    FileEntry,
    Instance,
    StreamName,
)
from vmrunner.services.command_output import MaskedCommandOutput, OnOutput
from vmrunner.services.sandbox_terminal import SandboxTerminal
from vmrunner.session.protocol import ProtocolViolation
from vmrunner.session.sandbox_calls import SandboxCalls, StaleEpoch
from vmrunner.session.ssh import client

if TYPE_CHECKING:
    from vmrunner.core.boxes import Box
    from vmrunner.ledger import Ledger
    from vmrunner.lib.channels import Channel
    from vmrunner.model import BuildRecord

T = TypeVar("T")

CONNECT: Final = 15.0  # seconds for one connection
LASTED: Final = 15.0  # seconds that a connection lasted which was worth it
ASK_RETRY: Final = 0.2  # seconds before it is asked again
VM_PATIENCE: Final = 60.0  # seconds without an answer of the VM, after which it is given up
_MOUNTS: Final = {"": "the root", "/work": "the working directory"}
KILLED: Final = 128 + signal.SIGKILL  # exit code of a command that was killed
LOOK_INTERVAL: Final = 1.0  # seconds between looks whether the call is still waited for
KEPT_CONNECTIONS: Final = 4  # connections that are kept open for later
QUIET: Final = 0.05  # seconds without more output after which what there is is handed on
READ: Final = 1 << 20  # bytes of output that are handed on at once


class _Enough(Exception):
    """Enough was read to be handed on."""


class SandboxClient:
    """`SandboxAccess` of one sandbox. Safe in threads: what runs at once has a connection each.
    Each call raises SandboxOver once it has ended, NotFound, Conflict."""

    def __init__(
        self,
        ledger: Ledger,
        build: str,
        channel: Callable[[Instance], Channel],
        *,
        box: Callable[[Instance], Box] = lambda _: DOCKER,
        connect: Callable[[Instance], client.Connection] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """`channel`: the way to the sshd of its VM. `box`: who has its container. `connect`: to its
        VM; None: by SSH."""
        self._ledger = ledger
        self.id = build
        self._channel = channel
        self._box = box
        self._connect = connect or self._dial
        self._clock, self._sleep = clock, sleep
        self._warm = WarmConnections()
        self._current: tuple[BuildRecord, Instance] | None = None  # while it may be so
        self._patterns: SecretPatterns | None = None
        self._terminals: WeakSet[SandboxTerminal] = WeakSet()

    # --- commands ---

    def run(
        self, order: CommandOrder, on_output: OnOutput, pulse: Callable[[], float] | None = None
    ) -> CommandEnd:
        """Start a command unless its id was started, and follow it to its end. `pulse` is called
        between pieces of output, and after so many seconds as it last returned; what it raises
        ends the following, not the command."""
        output = MaskedCommandOutput(self._secrets, on_output, self._clock)

        def work(calls: SandboxCalls) -> CommandEnd:
            return calls.run(order, *output.offsets, output.feed, pulse or look)

        end = self._patiently(work, output.resume)
        output.finish()
        self._check_killed(end)
        return end

    def start(self, order: CommandOrder) -> None:
        self._patiently(lambda calls: calls.start(order))

    def read(self, command: str, stdout: int, stderr: int, wait: float) -> CommandOutput:
        """Output from these offsets on, as soon as there is some, or after `wait`
        seconds."""
        _check_id(command)
        parts: dict[StreamName, list[bytes]] = {name: [] for name in StreamName}
        size = 0

        def keep(stream: StreamName, data: bytes) -> None:
            nonlocal size
            size += len(data)
            parts[stream].append(data)

        output = MaskedCommandOutput(self._secrets, keep, self._clock, stdout, stderr)
        until = self._clock() + wait

        def pulse() -> float:
            remaining = until - self._clock()
            if remaining <= 0 or size >= READ or (size and output.quiet >= QUIET):
                raise _Enough
            return min(remaining, QUIET if size else remaining)

        end = None
        try:
            end = self._patiently(
                lambda calls: calls.attach(command, *output.offsets, output.feed, pulse),
                output.resume,
            )
            output.finish()
            self._check_killed(end)
        except _Enough:
            output.decide()
        out, err = output.handed_on
        return CommandOutput(
            stdout=b"".join(parts[StreamName.STDOUT]),
            stderr=b"".join(parts[StreamName.STDERR]),
            next_stdout=out,
            next_stderr=err,
            end=end,
        )

    def _check_killed(self, end: CommandEnd) -> None:
        """Raise SandboxOver where the end of the sandbox killed the command, not its own doing. The
        VM tells of that before the ledger has the end, so the wish for it, or its time, counts."""
        if end.exit_code != KILLED or end.timed_out:
            return
        row, _ = self.current()
        if row.cancel is not None:
            raise SandboxOver(f"sandbox {self.id} is over: {row.cancel.value}")
        if row.hold_until is not None and time.time() >= row.hold_until:
            raise SandboxOver(f"sandbox {self.id} is over: its time is up")

    def signal(self, command: str, number: int) -> None:
        _check_id(command)
        self._patiently(lambda calls: calls.signal(command, number))

    def send_input(
        self,
        command: str,
        offset: int,
        data: bytes,
        *,
        last: bool = False,
        wait: float | None = None,
    ) -> None:
        """Send what stands at that offset of its stdin. `last`: nothing follows. Blocks until all
        was taken, or raises NotFinished after `wait` seconds."""
        until = None if wait is None else self._clock() + wait

        def pulse() -> float:
            if until is not None and self._clock() >= until:
                raise NotFinished(
                    f"command {command} did not read all of it yet",
                    hint="send it again, from the same offset",
                )
            return look()

        _check_id(command)
        self._patiently(
            lambda calls: calls.send_input(
                command, offset, [data] if data else [], last=last, pulse=pulse
            )
        )

    def commands(self) -> list[CommandSummary]:
        found = self._patiently(lambda calls: calls.commands())
        return [replace(command, title=self._masked(command.title)) for command in found]

    def _masked(self, title: str) -> str:
        masker = Masker(self._secrets)
        shown = masker.feed(title.encode("utf-8", "replace")) + masker.finish()
        return shown.decode("utf-8", "replace")

    # --- files ---

    def read_file(self, path: str, on_bytes: Callable[[bytes], object]) -> None:
        moving = MovingBytes()
        self._moved(
            lambda calls: calls.read_file(path, moving.receiver(on_bytes), moving.pulse), moving
        )

    def write_file(self, path: str, data: Iterable[bytes]) -> None:
        """Write a file, whole or not at all, and the directories above it. `data` is iterated anew
        where it has to be sent again, unless it is an iterator."""
        moving = MovingBytes(data)
        self._moved(lambda calls: calls.write_file(path, moving.taken(), moving.pulse), moving)

    def list_files(self, path: str) -> list[FileEntry]:
        return self._patiently(lambda calls: calls.list_files(path))

    def stat_file(self, path: str) -> FileEntry:
        return self._patiently(lambda calls: calls.stat_file(path))

    def remove_file(self, path: str) -> None:
        """Remove a file, or a directory with all in it: not a mount that each sandbox has, of which
        all would go before it is found busy."""
        if what := _MOUNTS.get(path.rstrip("/")):
            raise Conflict(f"{path}: it is {what} of the sandbox", hint="remove what is in it")
        self._once(lambda calls: calls.change_files("remove", path))

    def make_dir(self, path: str) -> None:
        self._patiently(lambda calls: calls.change_files("make_dir", path))

    def pack_files(self, path: str, on_bytes: Callable[[bytes], object]) -> None:
        moving = MovingBytes()
        self._moved(
            lambda calls: calls.pack_files(path, moving.receiver(on_bytes), moving.pulse), moving
        )

    def unpack_files(self, path: str, tar: Iterable[bytes]) -> None:
        moving = MovingBytes(tar)
        self._moved(lambda calls: calls.unpack_files(path, moving.taken(), moving.pulse), moving)

    def forward(self, port: int, local: socket.socket) -> None:
        self.current()  # at the epoch of now: what was taken from `local` is not sent twice
        self._once(lambda calls: calls.forward(port, local))

    def terminal(self, order: CommandOrder, columns: int, rows: int) -> SandboxTerminal:
        _, instance = self.current()

        def lost(error: Exception) -> NoReturn:
            self.current()
            self._broke_off(instance, error)

        try:
            connection, box = self._connect(instance), self._box(instance)
            opened = SandboxTerminal(connection, box, order, columns, rows, lost)
        except (client.ConnectionLost, client.Unreachable) as error:
            lost(error)
        self._terminals.add(opened)
        return opened

    def close(self) -> None:
        self._warm.close()
        for terminal in list(self._terminals):
            terminal.close()

    # --- connections ---

    def current(self) -> tuple[BuildRecord, Instance]:
        """The sandbox and its VM as they are now. Raises SandboxOver."""
        self._current = None
        row = self._ledger.builds.get(self.id)
        if row.finished or row.instance is None or row.state is not BuildState.RUNNING:
            raise SandboxOver(over(row))
        instance = self._ledger.instances.get(row.instance)
        if instance.state in DYING:
            raise SandboxOver(f"sandbox {self.id} is over: its VM is {instance.state.value}")
        self._current = row, instance
        return row, instance

    @property
    def _secrets(self) -> SecretPatterns:
        if self._patterns is None:
            self._patterns = SecretPatterns(tuple(self._ledger.builds.secrets(self.id).values()))
        return self._patterns

    def _once(self, work: Callable[[SandboxCalls], T]) -> T:
        """Do what cannot be begun again half-way."""
        return self._patiently(work, again=lambda: False)

    def _moved(self, work: Callable[[SandboxCalls], T], moving: MovingBytes) -> T:
        """Move bytes: begun again while all of them can be."""
        if moving.comes_once:
            self.current()  # at the epoch of now: another would be refused, and bytes be lost
        return self._patiently(work, again=lambda: moving.again)

    def _patiently(
        self,
        work: Callable[[SandboxCalls], T],
        resume: Callable[[], object] = lambda: None,
        *,
        again: Callable[[], bool] = lambda: True,
    ) -> T:
        """Do it; after a take-over at the new epoch, after a lost connection on another, until the
        VM has not answered for a while. `resume`: what was not handed on comes again."""
        since, stale = self._clock(), 0
        while True:
            row, instance = self._current or self.current()
            began = self._clock()
            try:
                with self._connected(instance) as connection:
                    return work(SandboxCalls(connection, row.epoch))
            except StaleEpoch as error:
                if not again():
                    raise Conflict(
                        f"sandbox {self.id} was taken over by another engine meanwhile",
                        hint="the same again",
                    ) from None
                resume()
                since, stale = self._clock(), stale + 1  # it answered
                if self.current()[0].epoch == row.epoch and stale > 1:
                    raise SandboxOver(f"sandbox {self.id}: {error}") from None
            except ProtocolViolation as error:
                raise Conflict(f"sandbox {self.id}: {error}") from None
            except (client.ConnectionLost, client.Unreachable) as error:
                resume()
                self.current()
                if not again():
                    self._broke_off(instance, error)
                now = self._clock()
                since = now if now - began >= LASTED else since
                if now - since >= VM_PATIENCE:
                    text = f"the VM of sandbox {self.id} does not answer: {error}"
                    raise SandboxOver(text) from None
                cancellation.check()
                self._sleep(ASK_RETRY)

    def _broke_off(self, instance: Instance, why: Exception) -> NoReturn:
        """Raise Conflict where its VM lives, SandboxOver where it does not answer any more."""
        try:
            self._warm.give_back(instance.id, self._connect(instance))
        except (client.ConnectionLost, client.Unreachable) as error:
            text = f"the VM of sandbox {self.id} does not answer: {error}"
            raise SandboxOver(text) from None
        raise Conflict(
            f"the connection to sandbox {self.id} broke off half-way: {why}", hint="the same again"
        ) from None

    @contextmanager
    def _connected(self, instance: Instance) -> Iterator[client.Connection]:
        connection = self._warm.take(instance.id) or self._connect(instance)
        try:
            yield connection
        except BaseException as error:
            if isinstance(error, _Enough | StaleEpoch | NotFound):
                self._warm.give_back(instance.id, connection)
            else:
                connection.close()
            raise
        self._warm.give_back(instance.id, connection)

    def _dial(self, instance: Instance) -> client.Connection:
        if instance.address is None:
            raise SandboxOver(f"the VM of sandbox {self.id} has no address")
        try:
            access = self._ledger.instances.access(instance.id)
        except NotFound:
            raise SandboxOver(f"sandbox {self.id} is over: its VM is being deleted") from None
        dialer = client.Dialer(access, channel=self._channel(instance))
        return dialer.connect(instance.address, timeout=CONNECT)


def _check_id(command: str) -> None:
    if not COMMAND_ID.fullmatch(command):
        raise NotFound(f"no command {command[:64]!r} was started in this sandbox")


def over(row: BuildRecord) -> str:
    """Say why nothing can be run in it."""
    if not row.finished:
        return f"sandbox {row.id} is not ready: it is {row.state.value}"
    result, reason = row.result, row.reason
    ended = f"{result.value if result else ''}, {reason.value if reason else ''}"
    return f"sandbox {row.id} is over: {ended}" + (f": {row.message}" if row.message else "")


class WarmConnections:
    """Safe in threads. Each is given to one caller at a time. A process that was forked begins
    anew: whatever it said or closed would be its parent's."""

    def __init__(self) -> None:
        self._closed = False
        self._begin([])

    def _begin(self, inherited: list[tuple[str, client.Connection]]) -> None:
        self._process = os.getpid()
        self._inherited = inherited  # never used, nor let go of
        self._lock = threading.Lock()
        self._kept: list[tuple[str, client.Connection]] = []

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._process != os.getpid():
            self._begin(self._kept)
        with self._lock:
            yield

    def take(self, instance: str) -> client.Connection | None:
        """Return one to this VM that is open. Those that ended meanwhile are let go."""
        with self._alone():
            dead = [kept for kept in self._kept if not kept[1].is_open]
            self._kept = [kept for kept in self._kept if kept not in dead]
            found = next((kept for kept in self._kept if kept[0] == instance), None)
            if found is not None:
                self._kept.remove(found)
        for _, connection in dead:
            connection.close()
        return None if found is None else found[1]

    def give_back(self, instance: str, connection: client.Connection) -> None:
        """Keep it for later; close it where there are enough."""
        with self._alone():
            if not self._closed and len(self._kept) < KEPT_CONNECTIONS:
                self._kept.append((instance, connection))
                return
        connection.close()

    def close(self) -> None:
        """Close them, and each that comes back from now on."""
        with self._alone():
            self._closed = True
            kept, self._kept = self._kept, []
        for _, connection in kept:
            connection.close()


class MovingBytes:
    """Bytes that go to a VM or come from it, and the pulse that ends a call amid which none have
    for long: root in there may stall it. `data`: what goes there."""

    def __init__(self, data: Iterable[bytes] = ()) -> None:
        self._data = data
        self.comes_once = isinstance(data, Iterator)
        self.again = True  # while no byte has moved that cannot move again
        self._last = time.monotonic()

    def receiver(self, on_bytes: Callable[[bytes], object]) -> Callable[[bytes], object]:
        """Return a receiver that notes that bytes came."""

        def take(data: bytes) -> None:
            self.again = False
            on_bytes(data)
            self._last = time.monotonic()

        return take

    def taken(self) -> Iterator[bytes]:
        """Yield pieces, noting that each came and was taken."""
        for piece in self._data:
            self.again = not self.comes_once
            self._last = time.monotonic()
            yield piece
            self._last = time.monotonic()

    def pulse(self) -> float:
        """Raise ConnectionLost after so long without a byte."""
        cancellation.check()
        silent = time.monotonic() - self._last
        if silent >= VM_PATIENCE:
            raise client.ConnectionLost(f"no byte for {silent:.0f} s")
        return min(VM_PATIENCE - silent, LOOK_INTERVAL)


def look() -> float:
    """The pulse of a call that takes as long as it takes."""
    cancellation.check()
    return LOOK_INTERVAL
