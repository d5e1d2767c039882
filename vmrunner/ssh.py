"""SSH to one instance: the only import of fabric and paramiko, with what they need repaired.

- The host key is the one that we planted; no agent, keys or config of the user's.
- Output is handed on as raw bytes as it comes, in bounded memory, by the calling thread: no thread
  and no polling of our own beside the one that paramiko has for each connection.
- A peer that fell silent is noticed: by questions that SSH must answer while we wait, by TCP's own
  time-out while we send (exchange.py).
- Readiness is a real handshake. An open port proves nothing, and sshd bans who only knocks."""

from __future__ import annotations

import base64
import io
import logging
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import fabric
import paramiko
from invoke.runners import Runner
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA
from paramiko.packet import Packetizer

from vmrunner.exchange import ASK_AFTER, CAPTURE, DEAD_AFTER, Alarm, Exchange
from vmrunner.exchange import Lost as Lost
from vmrunner.inbox import Inbox
from vmrunner.knock import Aborted as Aborted
from vmrunner.knock import Knocker
from vmrunner.knock import Unreachable as Unreachable
from vmrunner.model import Access, Address
from vmrunner.terminal import clean

SEND_TIMEOUT: Final = 12_000  # milliseconds in which sent bytes must be acknowledged
WINDOW: Final = 8 * 1024 * 1024  # bytes a channel may have on its way to us
PACKET: Final = 128 * 1024
REKEY: Final = 1 << 35  # bytes
PATIENCE: Final = ASK_AFTER + DEAD_AFTER  # seconds until a command must have begun
AHEAD: Final = 256 * 1024  # bytes
MOST: Final = PACKET + 16 * 1024  # bytes of a packet with all that is around its data
GREETING: Final = 16 * 1024  # bytes before the first packet; OpenSSH sends 40

#: Our own sshd has it. Groups of a peer's choice may cost whole seconds of our CPU.
EXCHANGES: Final = ("curve25519-sha256@libssh.org",)

_HANDSHAKE: Final = (5.0, 8.0, 15.0)  # patience of the first handshakes, and then of all
_PAUSE: Final = (0.1, 0.2, 0.4, 0.7, 1.0)  # after a handshake that failed

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
        """The last line of stderr, for a person to read; whoever wrote it moves no cursor."""
        lines = self.stderr.decode("utf-8", "replace").strip().splitlines()
        line = lines[-1][:500] if lines else f"exit code {self.exit_code}"
        return "".join(c if c.isprintable() else " " for c in line)


class Dialer:
    """Connects, trying again until it works. One object for one instance."""

    def __init__(self, access: Access, *, user: str = "root") -> None:
        self._user = user
        self._key = paramiko.Ed25519Key.from_private_key(io.StringIO(access.user_private))
        kind, text = access.host_public.split()[:2]
        self._host_key_name = kind
        self._host_key = paramiko.PKey.from_type_string(kind, base64.b64decode(text))
        self._aborted = threading.Event()
        self._knocker: Knocker | None = None
        self._wire: _Wire | None = None

    def connect(
        self, address: Address, *, timeout: float, on_greeting: Callable[[], object] = lambda: None
    ) -> Connection:
        """Raises Unreachable after `timeout` seconds, Aborted at once after `abort`. `on_greeting`
        is called, here, whenever the peer says its first word; what it raises is raised."""
        until = time.monotonic() + timeout
        tries, why = 0, ""
        while True:
            try:
                wire = self._knock(address, max(until, time.monotonic() + 0.5))
            except Unreachable as error:
                before = f" (a handshake before: {why})" if why else ""
                raise Unreachable(_nowhere(address, f"{error}{before}")) from None
            try:
                on_greeting()
            except BaseException:
                wire.close()
                raise
            left = until - time.monotonic()
            patience = _HANDSHAKE[min(tries, len(_HANDSHAKE) - 1)]
            try:
                return self._shake_hands(address, wire, max(min(patience, left), 0.5))
            except (OSError, EOFError, paramiko.SSHException) as error:
                why = _explain(error)
            pause = _PAUSE[min(tries, len(_PAUSE) - 1)] * random.uniform(0.8, 1.2)  # noqa: S311
            if time.monotonic() + pause >= until:
                raise Unreachable(_nowhere(address, why))
            if self._aborted.wait(pause):
                raise Aborted("told to stop")
            tries += 1

    def abort(self) -> None:
        """From any thread, for good."""
        self._aborted.set()
        knocker, wire = self._knocker, self._wire
        if knocker is not None:
            knocker.abort()
        if wire is not None:
            wire.hang_up()

    def _knock(self, address: Address, until: float) -> _Wire:
        self._knocker = Knocker(address)
        if self._aborted.is_set():
            self._knocker.abort()
        try:
            wire = self._wire = _Wire.over(self._knocker.first_word(until=until))
        finally:
            self._knocker = None
        if self._aborted.is_set():
            wire.close()
            raise Aborted("told to stop")
        return wire

    def _shake_hands(self, address: Address, wire: _Wire, patience: float) -> Connection:
        wire.settimeout(patience)
        host, port = ("vm", 22) if address.is_socket else address
        connection = fabric.Connection(
            host,
            user=self._user,
            port=port,
            config=_config(),
            connect_kwargs={
                "sock": wire,
                "pkey": self._key,
                "allow_agent": False,
                "look_for_keys": False,
                "timeout": patience,
                "banner_timeout": patience,
                "auth_timeout": patience,
                "transport_factory": _transport,
            },
        )
        client = connection.client
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        name = host if port == 22 else f"[{host}]:{port}"
        client.get_host_keys().add(name, self._host_key_name, self._host_key)
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

    def __init__(self, connection: Any, wire: _Wire) -> None:
        self._connection = connection
        self._wire = wire
        self._alarm = Alarm()

    def run(self, command: str, *, stdin: Iterable[bytes] = (), timeout: float = 60.0) -> Completed:
        """A short command. Raises Lost when the connection breaks or it takes too long."""
        until = time.monotonic() + timeout
        stdout = bytearray()

        def pulse() -> float:
            left = until - time.monotonic()
            if left <= 0:
                raise Lost(f"no end of {command.split()[0]!r} within {timeout:.0f} s")
            return left

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
        exchange = Exchange(self._wire, self._alarm, on_bytes, stdin, pulse)
        try:
            self._connection.run(
                command, hide=True, warn=True, in_stream=False, out_stream=exchange
            )
        except (OSError, EOFError, paramiko.SSHException) as error:
            if error is exchange.foreign:
                raise
            raise Lost(f"connection lost: {_explain(error)}") from error
        if exchange.exit_code == -1:
            raise Lost("connection lost")
        return Completed(exchange.exit_code, b"", bytes(exchange.stderr))

    def wake(self) -> None:
        """Have `pulse` called now."""
        self._alarm.wakes += 1
        self._alarm.bell.set()

    def close(self) -> None:
        """At once; what waits on it raises Lost."""
        self._wire.hang_up()
        self._connection.close()


# --- repairs ------------------------------------------------------------------------------------


class _Wire(socket.socket):
    """Our own socket under paramiko. Knows when the peer was last heard.

    Reads ahead: paramiko asks for sixteen bytes and then for the rest of each packet, and at every
    call to the system another thread may take the interpreter."""

    heard = 0.0
    _ahead = b""
    _at = 0  # so much of it was handed on

    @classmethod
    def over(cls, plain: socket.socket) -> _Wire:
        """In place of this one."""
        wire = cls(fileno=plain.detach())
        if wire.family == socket.AF_UNIX:
            seconds, rest = divmod(SEND_TIMEOUT, 1000)
            patience = struct.pack("ll", seconds, rest * 1000)
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        else:
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SEND_TIMEOUT)
        wire.heard = time.monotonic()
        return wire

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        if self._at == len(self._ahead):
            self._ahead, self._at = super().recv(max(size, AHEAD), flags), 0
            self.heard = time.monotonic()
        data = self._ahead[self._at : self._at + size]
        self._at += len(data)
        return data

    def send(self, data: Any, flags: int = 0, /) -> int:
        try:
            return super().send(data, flags)
        except BlockingIOError:  # SO_SNDTIMEO: paramiko would try again, for ever
            raise ConnectionAbortedError("what was sent was not taken") from None

    def hang_up(self) -> None:
        """Both ways, also under a thread that waits for it."""
        try:
            self.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.close()


class _Packetizer(Packetizer):
    _greeting = 0  # bytes

    def _read_timeout(self, timeout: float) -> bytes:
        """What the greeting's lines are read with. A line may have no end."""
        data: bytes = super()._read_timeout(timeout)  # type: ignore[misc]  # not in its stubs
        self._greeting += len(data)
        if self._greeting > GREETING:
            raise paramiko.SSHException(f": the greeting is over {GREETING} bytes")
        return data

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """A peer may announce 4 GiB, and paramiko would gather them in memory."""
        if n > MOST:
            raise paramiko.SSHException(f"the peer announced a packet of {n} bytes")
        return super().read_all(n, check_rekey)


def _bounded(feed: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """paramiko keeps what comes, also from a peer that heeds no window while we are busy."""

    def fed(channel: Any, message: Any) -> None:
        feed(channel, message)
        if len(channel.in_buffer) + len(channel.in_stderr_buffer) > WINDOW:
            raise paramiko.SSHException(f"the peer sent more than its window of {WINDOW} bytes")

    return fed


class _Transport(paramiko.Transport):
    _channel_handler_table: ClassVar[dict[int, Callable[[Any, Any], None]]] = {
        number: _bounded(call) if number in (MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA) else call
        for number, call in paramiko.Transport._channel_handler_table.items()  # type: ignore[attr-defined]
    }

    def ask(self) -> None:
        """A question that every SSH server answers, if only by "no". Does not wait for it:
        `global_request` would, for ever."""
        message = paramiko.Message()
        message.add_byte(paramiko.common.cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._send_user_message(message)  # type: ignore[attr-defined]  # not in its stubs

    def begin(self, channel: Any, command: str) -> None:
        """Have a command run. `channel.exec_command` would wait for the answer for ever: from a
        frozen VM none comes, while a proxy on its host answers for it in TCP."""
        message = paramiko.Message()
        message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("exec")
        message.add_boolean(True)
        message.add_string(command)
        channel.in_buffer, channel.in_stderr_buffer = Inbox(), Inbox()
        channel._event_pending()
        self._send_user_message(message)  # type: ignore[attr-defined]
        if not channel.event.wait(PATIENCE):
            raise paramiko.SSHException(f"no command began within {PATIENCE:.0f} s")
        channel._wait_for_event()  # over: raises what it was if not a "yes"


def _transport(sock: Any, disabled_algorithms: Any = None) -> _Transport:
    """Large windows and packets, and the ciphers that cost one pass, first."""
    transport = _Transport(
        sock,
        default_window_size=WINDOW,
        default_max_packet_size=PACKET,
        disabled_algorithms=disabled_algorithms,
        packetizer_class=_Packetizer,
    )
    # paramiko waits for itself, for ever, when a channel closes while it negotiates new keys, which
    # it does every 512 MiB. OpenSSH's own limit for AES is 64 GiB.
    transport.packetizer.REKEY_BYTES = REKEY
    transport.channel_timeout = PATIENCE  # to open one; it would wait for an hour
    options = transport.get_security_options()
    options.kex = EXCHANGES
    options.ciphers = sorted(options.ciphers, key=lambda cipher: "gcm" not in cipher)
    return transport


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
    """Nothing of the user's is read."""
    return fabric.Config(
        overrides={"runners": {"remote": _Remote}, "load_ssh_configs": False},
        ssh_config=paramiko.SSHConfig(),
        lazy=True,
    )


def _nowhere(address: Address, why: str) -> str:
    where = address.host if address.is_socket else f"{address.host} port {address.port}"
    return f"no SSH to {where}: {why}"


def _explain(error: BaseException) -> str:
    if isinstance(error, paramiko.BadHostKeyException):
        return "the host key is not the one that was planted"
    if isinstance(error, paramiko.AuthenticationException):
        return "the instance's key was refused"
    return clean(str(error)[:300]) or type(error).__name__
