"""Repairs of paramiko: bounds on what a hostile peer may send, patience that ends, one thread less.

Each is here because the library waits, keeps or computes without end where we cannot afford it.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA
from paramiko.packet import Packetizer

from vmrunner.lib.channels import CarriedStream, StreamEnd
from vmrunner.session.ssh.channel_io import ASK_AFTER, DEAD_AFTER

SEND_TIMEOUT: Final = 12_000  # milliseconds in which sent bytes must be acknowledged
WINDOW: Final = 8 * 1024 * 1024  # bytes a channel may have on its way to us
PACKET: Final = 128 * 1024
REKEY: Final = 1 << 35  # bytes
COMMAND_START_TIMEOUT: Final = ASK_AFTER + DEAD_AFTER  # seconds until a command must have begun
AHEAD: Final = 256 * 1024  # bytes
AT_REST: Final = 8 * 1024  # bytes: who waits for the first of them holds memory for so many
PACKET_LIMIT: Final = PACKET + 16 * 1024  # bytes of a packet with all that is around its data
GREETING: Final = 16 * 1024  # bytes before the first packet; OpenSSH sends 40

#: Our own sshd has it. Groups of a peer's choice may cost whole seconds of our CPU.
EXCHANGES: Final = ("curve25519-sha256@libssh.org",)


class ReceiveBuffer:
    """Bytes received on a channel and not taken yet, in pieces as they came. BufferedPipe, which it
    replaces, moves all that lies behind a piece when that is taken from the front: up to a whole
    window. Fed by paramiko's thread, read by ours. One bell may serve several."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._bell = threading.Event()

    def set_event(self, bell: threading.Event) -> None:
        """Ring this bell now, and for what comes. A waiter clears it before it looks."""
        self._bell = bell
        bell.set()

    def feed(self, data: bytes) -> None:
        with self._lock:
            self._pieces.append(data)
            self._size += len(data)
        self._bell.set()

    def close(self) -> None:
        """Note that nothing will come any more; what came stays."""
        self._bell.set()

    def __len__(self) -> int:
        return self._size

    def read_ready(self) -> bool:
        return self._size > 0

    def read(self, most: int, _timeout: float | None = None) -> bytes:
        """Up to `most` bytes, none where none are there: it never waits."""
        taken = []
        with self._lock:
            while most and self._pieces:
                piece = self._pieces.popleft()
                if len(piece) > most:
                    self._pieces.appendleft(piece[most:])
                    piece = piece[:most]
                taken.append(piece)
                most -= len(piece)
                self._size -= len(piece)
        return b"".join(taken)


class PatchedSocket(socket.socket):
    """Our own socket under paramiko. Knows when the peer was last heard.

    Reads ahead: paramiko asks for sixteen bytes and then for the rest of each packet, and at every
    call to the system another thread may take the interpreter. Python sets aside what a call may
    bring while it waits: little, until much comes."""

    heard = 0.0
    _ending = StreamEnd()
    _ahead = b""
    _at = 0  # so much of it was handed on
    _room = AT_REST

    @classmethod
    def over(cls, plain: socket.socket) -> PatchedSocket:
        """A patched socket in place of this one."""
        ending = plain.ending if isinstance(plain, CarriedStream) else StreamEnd()
        wire = cls(fileno=plain.detach())
        wire._ending = ending
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
            self._ahead, self._at = b"", 0
            self._ahead = super().recv(max(size, self._room), flags)
            self._room = AHEAD if len(self._ahead) >= AT_REST else AT_REST
            if not self._ahead:
                self._ending.check()
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
        """Hang up both ways, also under a thread that waits for it."""
        try:
            self.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.close()


class _Packetizer(Packetizer):
    _greeting = 0  # bytes

    def _read_timeout(self, timeout: float) -> bytes:
        """Read the lines of the greeting with a time limit. A line may have no end."""
        data: bytes = super()._read_timeout(timeout)  # type: ignore[misc]  # not in its stubs
        self._greeting += len(data)
        if self._greeting > GREETING:
            raise paramiko.SSHException(f": the greeting is over {GREETING} bytes")
        return data

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """A peer may announce 4 GiB, and paramiko would gather them in memory."""
        if n > PACKET_LIMIT:
            raise paramiko.SSHException(f"the peer announced a packet of {n} bytes")
        return super().read_all(n, check_rekey)


def _bounded(feed: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """paramiko keeps what comes, also from a peer that heeds no window while we are busy."""

    def fed(channel: Any, message: Any) -> None:
        feed(channel, message)
        window = channel.in_window_size
        if len(channel.in_buffer) + len(channel.in_stderr_buffer) > window:
            raise paramiko.SSHException(f"the peer sent more than its window of {window} bytes")

    return fed


class Transport(paramiko.Transport):
    """paramiko's, that never waits without end and keeps no more than a window."""

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

    def open_socket(self, path: str, window: int = WINDOW) -> Any:
        """A channel to a Unix socket in the VM, which sshd itself connects to: no process starts
        there. paramiko has no words for it (PROTOCOL of OpenSSH, section 2.4)."""
        message = paramiko.Message()
        with self.lock:
            number = self._next_channel()  # type: ignore[attr-defined]
            message.add_byte(paramiko.common.cMSG_CHANNEL_OPEN)
            message.add_string("direct-streamlocal@openssh.com")
            message.add_int(number)
            message.add_int(window)
            message.add_int(PACKET)
            message.add_string(path)
            message.add_string("")
            message.add_int(0)
            channel: Any = paramiko.Channel(number)
            self._channels.put(number, channel)  # type: ignore[attr-defined]
            self.channel_events[number] = event = threading.Event()
            self.channels_seen[number] = True
            channel._set_transport(self)
            channel._set_window(window, PACKET)
        channel.in_buffer, channel.in_stderr_buffer = ReceiveBuffer(), ReceiveBuffer()
        self._send_user_message(message)  # type: ignore[attr-defined]
        if not event.wait(COMMAND_START_TIMEOUT):
            raise paramiko.SSHException(f"no socket within {COMMAND_START_TIMEOUT:.0f} s")
        if self._channels.get(number) is None:  # type: ignore[attr-defined]
            raise self.get_exception() or paramiko.SSHException("no channel")
        return channel

    def ask_terminal(self, channel: Any, columns: int, rows: int) -> None:
        """Have the next command of a channel run at a terminal. `channel.get_pty` would wait for
        the answer for ever."""
        message = paramiko.Message()
        message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("pty-req")
        message.add_boolean(False)
        message.add_string("xterm")
        for number in (columns, rows, 0, 0):
            message.add_int(number)
        message.add_string("")
        self._send_user_message(message)  # type: ignore[attr-defined]

    def begin(self, channel: Any, command: str) -> None:
        """Have a command run. `channel.exec_command` would wait for the answer for ever: from a
        frozen VM none comes, while a proxy on its host answers for it in TCP."""
        message = paramiko.Message()
        message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("exec")
        message.add_boolean(True)
        message.add_string(command)
        channel.in_buffer, channel.in_stderr_buffer = ReceiveBuffer(), ReceiveBuffer()
        channel._event_pending()
        self._send_user_message(message)  # type: ignore[attr-defined]
        if not channel.event.wait(COMMAND_START_TIMEOUT):
            raise paramiko.SSHException(f"no command began within {COMMAND_START_TIMEOUT:.0f} s")
        channel._wait_for_event()  # over: raises what it was if not a "yes"


def transport(sock: Any, disabled_algorithms: Any = None) -> Transport:
    """Large windows and packets, and the ciphers that cost one pass, first."""
    transport = Transport(
        sock,
        default_window_size=WINDOW,
        default_max_packet_size=PACKET,
        disabled_algorithms=disabled_algorithms,
        packetizer_class=_Packetizer,
    )
    # paramiko waits for itself, for ever, when a channel closes while it negotiates new keys, which
    # it does every 512 MiB. OpenSSH's own limit for AES is 64 GiB.
    transport.packetizer.REKEY_BYTES = REKEY
    transport.channel_timeout = COMMAND_START_TIMEOUT  # to open one; it would wait for an hour
    options = transport.get_security_options()
    options.kex = EXCHANGES
    options.ciphers = sorted(options.ciphers, key=lambda cipher: "gcm" not in cipher)
    return transport
