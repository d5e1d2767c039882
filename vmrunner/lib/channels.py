"""Channels: who gives a stream of bytes to a guest's sshd, by the address that its provider shows.

SSH alone is spoken over one. What SSH calls a channel is a command's (`session/ssh/channel_io.py`),
and a VM is told who it is over a port of its own (`providers/qemu/identity_port.py`).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from vmrunner.lib import unix_sockets
from vmrunner.model import Address


class Channel(Protocol):
    """The way to the sshds of one provider's instances."""

    @property
    def half_closes(self) -> bool:
        """True if one way of a stream can end and the other go on. Nothing that is sent over one
        may need that: who is done hangs up."""

    def open(self, address: Address) -> socket.socket:
        """Begin a stream to the instance of this address; waits for nothing.

        It is a stream socket of the system's, TCP or Unix, that does not block: one thread polls
        many, and its descriptor is all there is to keep. It can be read once the other side has
        spoken or ended, or when none is there: then `recv` raises the OSError that says why.
        Raises OSError itself where that is known at once."""

    def is_local(self, address: Address) -> bool:
        """True if what is sent there stays on this host: then packing costs more than the way."""


class StreamBroken(ConnectionResetError):
    """The words with which a stream ended. Its arguments are those of a system's error: an SSH
    library reads them, and the thread that fails at that tells nobody of the end."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.ECONNRESET, why)

    def __str__(self) -> str:
        return str(self.args[1])

    def __reduce__(self) -> tuple[type[StreamBroken], tuple[str]]:
        return type(self), (str(self),)


@dataclass(slots=True)
class StreamEnd:
    """Reason why a stream ended, where that was not as it should be."""

    why: str = ""

    def check(self) -> None:
        """Raises StreamBroken with the words, if there are any."""
        if self.why:
            raise StreamBroken(self.why)


class CarriedStream(socket.socket):
    """The near end of a stream that something else than the system carries. Its reader hears why
    it ended; who makes another socket of its descriptor takes `ending` along."""

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self.ending = StreamEnd()

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        data = super().recv(size, flags)
        if not data:
            self.ending.check()
        return data


class TcpChannel:
    """TCP to a host and its port."""

    half_closes = True

    def open(self, address: Address) -> socket.socket:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        stream = socket.socket(family, socket.SOCK_STREAM)
        try:
            stream.setblocking(False)
            stream.connect(address)
        except BlockingIOError:
            pass  # it will be told when it is there
        except BaseException:
            stream.close()
            raise
        return stream

    def is_local(self, address: Address) -> bool:
        try:
            return ipaddress.ip_address(address.host).is_loopback
        except ValueError:
            return False  # a host name


class UnixSocketChannel:
    """A Unix socket of this host, whose path is the address' host."""

    half_closes = True

    def open(self, address: Address) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            stream.setblocking(False)
            unix_sockets.connect(stream, Path(address.host))
        except BaseException:
            stream.close()
            raise
        return stream

    def is_local(self, address: Address) -> bool:  # noqa: ARG002 - as `Channel` has it
        return True


TCP: Final = TcpChannel()
UNIX_SOCKET: Final = UnixSocketChannel()
