"""A connection of this machine's that speaks with a port of a VM, over a server."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Final

from vmrunner.services.client.http_client import HttpClient
from vmrunner.services.client.websocket import PORT, ServerSocket

PIECE: Final = 64 << 10


def relay(client: HttpClient, path: str, local: socket.socket) -> None:
    """Let the port at `path` speak with `local`, until either has ended. Raises what the server
    raised, ServerUnreachable."""
    remote = ServerSocket(client, path, PORT)
    sender = threading.Thread(target=_send, args=(local, remote), daemon=True)
    try:
        sender.start()
        while True:
            frame = remote.receive(None)
            if isinstance(frame, bytes):
                local.sendall(frame)
            elif frame is not None and frame.get("type") == "eof":
                return
    except OSError:
        return  # nobody has the other end
    finally:
        with contextlib.suppress(OSError):
            local.shutdown(socket.SHUT_RDWR)  # wakes the sender
        remote.close()
        if sender.ident is not None:
            sender.join()


def _send(local: socket.socket, remote: ServerSocket) -> None:
    """Send what comes from a socket, to its end."""
    with contextlib.suppress(OSError):
        while data := local.recv(PIECE):
            if not remote.send(data):
                return
        remote.tell("eof")
