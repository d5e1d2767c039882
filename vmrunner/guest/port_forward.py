"""A connection to a port of a sandbox: bytes go both ways until one side has ended."""

from __future__ import annotations

import os
import select
import socket

from .command_io import Output, Request

PIECE = 256 << 10
CONNECT = 10.0  # seconds
REFUSED = 11  # exit code: no process listens there
INPUT = 0  # the descriptor on which the caller's bytes come


def forward(request: Request) -> int:
    """Connect to a port as a process in the container would, on its own loopback."""
    request.place.runtime.enter_network(request.place)
    port = int(request.arguments[0])
    try:
        service = socket.create_connection(("127.0.0.1", port), CONNECT)
    except OSError as error:
        request.out.complain(f"port {port}: {error.strerror or error}")
        return REFUSED
    with service:
        _relay(service, request.out)
    return 0


def _relay(service: socket.socket, out: Output) -> None:
    """Carry bytes both ways until the port has ended, or the caller has. What it does not take yet
    waits here: it may have to be read first."""
    service.setblocking(False)
    pending, over = b"", False
    while True:
        poll = select.poll()
        poll.register(out.fd, 0)  # only errors
        poll.register(service, select.POLLIN | (select.POLLOUT if pending else 0))
        if not pending and not over:
            poll.register(INPUT, select.POLLIN)
        ready = dict(poll.poll())
        if out.fd in ready:
            return
        try:
            if INPUT in ready:
                pending = os.read(INPUT, PIECE)
                if not pending:
                    over = True
                    service.shutdown(socket.SHUT_WR)
            if pending:
                pending = pending[service.send(pending) :]
        except BlockingIOError:
            pass
        except OSError:  # it reads no more; it may have more to say
            pending, over = b"", True
        if ready.get(service.fileno(), 0) & ~select.POLLOUT and not _hand_on(service, out):
            return


def _hand_on(service: socket.socket, out: Output) -> bool:
    """Hand on what the port says; False: nothing will follow."""
    try:
        data = service.recv(PIECE)
    except BlockingIOError:
        return True
    except OSError:
        return False
    if data:
        out.write(data)
    return bool(data)
