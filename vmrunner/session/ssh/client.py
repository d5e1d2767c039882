"""SSH to one instance: the only import of fabric and paramiko, with what they need repaired.

- The host key is the one that we planted; no agent, keys or config of the user's.
- Output is handed on as raw bytes as it comes, in bounded memory, by the calling thread: no thread
  and no polling of our own beside the one that paramiko has for each connection.
- A peer that fell silent is noticed: by questions that SSH must answer while we wait, by TCP's own
  time-out while we send (session/ssh/channel_io.py).
- Readiness is a real handshake. An open port proves nothing, and sshd bans mere knocking."""

from __future__ import annotations

import base64
import io
import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import fabric
import paramiko
from invoke.runners import Runner

from vmrunner.lib import jitter
from vmrunner.lib.channels import TCP, Channel
from vmrunner.model import Access, Address
from vmrunner.session.ssh.banner_probe import Aborted as Aborted
from vmrunner.session.ssh.banner_probe import BannerProbe
from vmrunner.session.ssh.banner_probe import Unreachable as Unreachable
from vmrunner.session.ssh.channel_io import CAPTURE, PIECE, CommandIO, SilenceWatch, WakeupPipe
from vmrunner.session.ssh.channel_io import ConnectionLost as ConnectionLost
from vmrunner.session.ssh.command_channel import CommandChannel
from vmrunner.session.ssh.explanations import explain
from vmrunner.session.ssh.paramiko_patches import PatchedSocket, transport
from vmrunner.session.ssh.port_channel import PortChannel
from vmrunner.session.ssh.socket_answer import SocketAnswer
from vmrunner.session.ssh.terminal import TerminalChannel

_HANDSHAKE: Final = (5.0, 8.0, 15.0)  # patience of the first handshakes, and then of all
_HANDSHAKE_RETRIES: Final = (0.1, 0.2, 0.4, 0.7, 1.0)  # after a handshake that failed
_HOST: Final = "vm"  # what SSH calls whom it speaks to; where that is its stream knows
RELAY_LOOK: Final = 5.0  # seconds between looks whether a channel that is silent was closed

logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False  # its tracebacks are our retries


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended. Both streams are cut at `CAPTURE`."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def complaint(self) -> str:
        """The last line of stderr, for a person to read; it moves no cursor."""
        lines = self.stderr.decode("utf-8", "replace").strip().splitlines()
        line = lines[-1][:500] if lines else f"exit code {self.exit_code}"
        return "".join(c if c.isprintable() else " " for c in line)


class Dialer:
    """Connects, trying again until it works. One object for one instance."""

    def __init__(self, access: Access, *, channel: Channel = TCP, user: str = "root") -> None:
        self._channel = channel
        self._user = user
        self._key = paramiko.Ed25519Key.from_private_key(io.StringIO(access.user_private))
        kind, text = access.host_public.split()[:2]
        self._host_key_name = kind
        self._host_key = paramiko.PKey.from_type_string(kind, base64.b64decode(text))
        self._aborted = threading.Event()
        self._probe: BannerProbe | None = None
        self._wire: PatchedSocket | None = None

    def connect(
        self, address: Address, *, timeout: float, on_greeting: Callable[[], object] = lambda: None
    ) -> Connection:
        """Raises Unreachable after `timeout` seconds, Aborted at once after `abort`. `on_greeting`
        is called, here, whenever the peer says its first word; what it raises is raised."""
        until = time.monotonic() + timeout
        tries, why = 0, ""
        while True:
            try:
                wire = self._find_sshd(address, max(until, time.monotonic() + 0.5))
            except Unreachable as error:
                before = f" (a handshake before: {why})" if why else ""
                raise Unreachable(f"{error}{before}") from None
            try:
                on_greeting()
            except BaseException:
                wire.close()
                raise
            remaining = until - time.monotonic()
            patience = _HANDSHAKE[min(tries, len(_HANDSHAKE) - 1)]
            try:
                return self._shake_hands(wire, max(min(patience, remaining), 0.5))
            # RuntimeError: this host starts no more threads, and a connection needs one.
            except (OSError, EOFError, paramiko.SSHException, RuntimeError) as error:
                why = explain(error)
            pause = _HANDSHAKE_RETRIES[min(tries, len(_HANDSHAKE_RETRIES) - 1)]
            pause *= jitter.between(0.8, 1.2)
            if time.monotonic() + pause >= until:
                raise Unreachable(f"no SSH to {address}: {why}")
            if self._aborted.wait(pause):
                raise Aborted("told to stop")
            tries += 1

    def abort(self) -> None:
        """Abort, from any thread, for good."""
        self._aborted.set()
        probe, wire = self._probe, self._wire
        if probe is not None:
            probe.abort()
        if wire is not None:
            wire.hang_up()

    def _find_sshd(self, address: Address, until: float) -> PatchedSocket:
        self._probe = BannerProbe(address, self._channel)
        if self._aborted.is_set():
            self._probe.abort()
        try:
            wire = self._wire = PatchedSocket.over(self._probe.first_word(until=until))
        finally:
            self._probe = None
        if self._aborted.is_set():
            wire.close()
            raise Aborted("told to stop")
        return wire

    def _shake_hands(self, wire: PatchedSocket, patience: float) -> Connection:
        wire.settimeout(patience)
        connection = fabric.Connection(
            _HOST,
            user=self._user,
            config=_config(),
            connect_kwargs={
                "sock": wire,
                "pkey": self._key,
                "allow_agent": False,
                "look_for_keys": False,
                "timeout": patience,
                "banner_timeout": patience,
                "auth_timeout": patience,
                "transport_factory": transport,
            },
        )
        client = connection.client
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        client.get_host_keys().add(_HOST, self._host_key_name, self._host_key)
        try:
            connection.open()
        except BaseException:
            client.close()
            wire.close()
            raise
        # paramiko looks ten times a second whether it was closed. `hang_up` wakes it.
        wire.settimeout(None)
        return Connection(connection, wire)


class Connection:
    """An open connection. One thread runs commands on it, one at a time or, from within `pulse`,
    one inside the other; `wake` and `close` may be called from any."""

    def __init__(self, connection: Any, wire: PatchedSocket) -> None:
        self._connection = connection
        self._wire = wire
        self._alarm = WakeupPipe()
        self._waiting: Any = None  # a channel to a process that waits for another command
        self._waits = True  # as far as we know there are such

    def run(self, command: str, *, stdin: Iterable[bytes] = (), timeout: float = 60.0) -> Completed:
        """A short command. Raises Lost when the connection breaks or it takes too long."""
        pulse = within(timeout, f"end of {command.split()[0]!r}")
        stdout = bytearray()

        def keep(data: bytes) -> None:
            stdout.extend(data[: CAPTURE - len(stdout)])

        done = self.stream(command, keep, stdin=stdin, pulse=pulse)
        return Completed(done.exit_code, bytes(stdout), done.stderr)

    def stream(
        self,
        command: str,
        on_bytes: Callable[[bytes], object],
        *,
        stdin: Iterable[bytes] = (),
        pulse: Callable[[], float] = lambda: 3600.0,
    ) -> Completed:
        """Run a command, handing on its stdout as it comes. `pulse` is called between pieces, when
        `wake` was, and after as many seconds as it last returned; what it raises ends the command's
        channel, not what it started. Raises Lost."""
        exchange = CommandIO(self._wire, self._alarm, on_bytes, stdin, pulse)
        with _translated(exchange):
            self._connection.run(
                command, hide=True, warn=True, in_stream=False, out_stream=exchange
            )
        if exchange.exit_code == -1:
            raise self._lost("connection lost")
        return Completed(exchange.exit_code, b"", bytes(exchange.stderr))

    def call(
        self,
        path: str,
        words: Sequence[str],
        on_bytes: Callable[[bytes], object],
        *,
        stdin: Iterable[bytes] = (),
        pulse: Callable[[], float] = lambda: 3600.0,
    ) -> Completed | None:
        """Run a command as `stream` does, by the listener on a Unix socket in the VM: no process
        starts for it. None: nothing listens there."""
        answer = SocketAnswer(on_bytes)
        head = json.dumps(list(words)).encode() + b"\n"
        exchange = CommandIO(
            self._wire, self._alarm, answer.feed, itertools.chain([head], stdin), pulse
        )
        with _translated(exchange):
            channel = self._open_socket(path)
            if channel is None:
                return None
            try:
                exchange.run(channel)
            finally:
                channel.close()
        if answer.exit_code is None:
            raise self._lost("the answer was cut off")
        return Completed(answer.exit_code, b"", answer.stderr)

    def ask(
        self,
        path: str,
        words: Sequence[str],
        stdin: bytes,
        on_bytes: Callable[[bytes], object],
        *,
        pulse: Callable[[], float],
    ) -> Completed | None:
        """Run a command as `call` does; the process that did it then waits for the next one."""
        if not self._waits:
            return self.call(path, words, on_bytes, stdin=[stdin], pulse=pulse)
        answer = SocketAnswer(on_bytes)
        head = json.dumps({"words": list(words), "stdin": len(stdin)}).encode() + b"\n"
        exchange = CommandIO(
            self._wire, self._alarm, answer.feed, [head + stdin], pulse, lambda: answer.is_whole
        )
        channel, self._waiting = self._waiting, None
        is_new = channel is None or channel.closed or channel.eof_received
        with _translated(exchange):
            if is_new:
                channel = self._open_socket(path)
            if channel is None:
                return None
            try:
                exchange.run(channel)
            finally:
                if not answer.is_whole or self._waiting is not None:
                    channel.close()  # which fails where the connection is lost
        if not answer.is_whole:
            if answer.began or not self._connection.transport.is_active():
                raise self._lost("the answer was cut off")
            self._waits = not is_new  # a VM of a former version reads one command alone
            return self.call(path, words, on_bytes, stdin=[stdin], pulse=pulse)
        if not channel.closed:
            self._waiting = channel
        assert answer.exit_code is not None
        return Completed(answer.exit_code, b"", answer.stderr)

    def relay(self, path: str, words: Sequence[str], local: socket.socket) -> Completed:
        """Let the listener on a Unix socket in the VM speak with `local`, both at once, until
        either has ended. From any thread, several at once. Raises ConnectionLost."""
        answer, silence = SocketAnswer(local.sendall), SilenceWatch(self._wire)
        try:
            channel = self._connection.transport.open_socket(path)
            bell = threading.Event()
            channel.in_buffer.set_event(bell)
            try:
                channel.sendall(json.dumps(list(words)).encode() + b"\n")
                sender = threading.Thread(target=_send_all, args=(local, channel), daemon=True)
                sender.start()
                while answer.exit_code is None:
                    bell.clear()
                    ended = channel.closed or channel.eof_received  # first: then all has come
                    if channel.recv_ready():
                        answer.feed(channel.recv(PIECE))
                    elif ended:
                        break
                    else:
                        bell.wait(min(RELAY_LOOK, silence.check(channel)))
            finally:
                with suppress(OSError):  # `close` alone would wake neither our sender nor the peer
                    local.shutdown(socket.SHUT_RDWR)
                channel.close()  # which fails where the connection is lost
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise ConnectionLost(f"connection lost: {explain(error)}") from error
        if answer.exit_code is None:
            raise self._lost("the answer was cut off")
        return Completed(answer.exit_code, b"", answer.stderr)

    def terminal(self, command: str, columns: int, rows: int) -> TerminalChannel:
        """Start a command at a terminal. The connection is its alone from now on."""
        return TerminalChannel(self._connection.transport, self._wire, command, columns, rows)

    def command(self, command: str, size: tuple[int, int] | None) -> CommandChannel:
        """Start a command, at a terminal of `size` or without one. The connection is its alone."""
        return CommandChannel(self._connection.transport, self._wire, command, size)

    def port(self, path: str, words: Sequence[str]) -> PortChannel:
        """Let the listener on a Unix socket in the VM connect to a port. From any thread, several
        at once."""
        return PortChannel(self._connection.transport, self._wire, path, words)

    def _lost(self, text: str) -> ConnectionLost:
        """The error of a connection that ended, with what its transport heard of the cause."""
        cause = self._connection.transport.saved_exception
        return ConnectionLost(text if cause is None else f"{text}: {explain(cause)}")

    def _open_socket(self, path: str) -> Any:
        """A channel to the listener on a Unix socket in the VM; None: there is none."""
        try:
            return self._connection.transport.open_socket(path)
        except paramiko.ChannelException:
            return None

    @property
    def is_open(self) -> bool:
        """True if nothing was heard of its end."""
        return bool(self._connection.is_connected)

    def wake(self) -> None:
        """Let `pulse` be called now."""
        self._alarm.wakes += 1
        self._alarm.bell.set()

    def close(self) -> None:
        """Close at once; what waits on it raises Lost."""
        self._wire.hang_up()
        self._connection.close()


@contextmanager
def _translated(exchange: CommandIO) -> Iterator[None]:
    """Raise ConnectionLost for what the connection raises, and nothing else."""
    try:
        yield
    except (OSError, EOFError, paramiko.SSHException) as error:
        if error is exchange.foreign:
            raise
        raise ConnectionLost(f"connection lost: {explain(error)}") from error


def _send_all(local: socket.socket, channel: Any) -> None:
    """Send what comes on a socket into a channel, to its end."""
    with suppress(OSError, EOFError, paramiko.SSHException):
        while data := local.recv(PIECE):
            channel.sendall(data)
        channel.shutdown_write()


def within(seconds: float, what: str = "answer") -> Callable[[], float]:
    """A pulse for `stream` and `call` that lets them take `seconds`. Then it raises ConnectionLost,
    with `what` did not come."""
    until = time.monotonic() + seconds

    def pulse() -> float:
        remaining = until - time.monotonic()
        if remaining <= 0:
            raise ConnectionLost(f"no {what} within {seconds:.0f} s")
        return remaining

    return pulse


class _Remote(fabric.runners.Remote):  # type: ignore[misc]  # fabric has no types
    """Fabric's runner with our reading in the place of its threads."""

    def send_start_message(self, command: str) -> None:
        self.channel.get_transport().begin(self.channel, command)

    def create_io_threads(self) -> Any:
        return {}, [], []

    def wait(self) -> None:
        self.streams["out"].run(self.channel)

    def stop(self) -> None:
        Runner.stop(self)  # fabric's resets the process's SIGWINCH handler too
        if hasattr(self, "channel"):
            with suppress(OSError, EOFError, paramiko.SSHException):
                self.channel.close()


def _config() -> Any:
    """A configuration in which nothing of the user's is read."""
    return fabric.Config(
        overrides={"runners": {"remote": _Remote}, "load_ssh_configs": False},
        ssh_config=paramiko.SSHConfig(),
        lazy=True,
    )
