"""Stand-ins for what a pod of a real cluster may reach beside other pods: they take connections on
a few ports and end them. A probe that reaches nothing else can tell a wall from an empty world."""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
#: The cluster's API server and DNS service, the metadata service, the internet.
ADDRESSES: Final = ("10.96.0.1", "10.96.0.10", "169.254.169.254", "1.1.1.1", "9.9.9.9")
PORTS: Final = (53, 80, 443)


class Neighbours:
    """The stand-ins of one network namespace, until `close`."""

    def __init__(self, network: str) -> None:
        """`network`: the namespace's file."""
        with ThreadPoolExecutor(1) as thread:  # which alone is in that network
            self._sockets = thread.submit(_listening, network).result()
        self._end, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="neighbours", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.close()
        self._thread.join()
        for each in (*self._sockets, self._end):
            each.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as ready:
            for each in (*self._sockets, self._end):
                ready.register(each, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is self._end:
                        return
                    assert isinstance(key.fileobj, socket.socket)
                    key.fileobj.accept()[0].close()


def _listening(network: str) -> list[socket.socket]:
    """Sockets of that network, made by a thread of its own."""
    file = os.open(network, os.O_RDONLY)
    try:
        if _LIBC.setns(file, 0):
            raise OSError(ctypes.get_errno(), "no such network")
    finally:
        os.close(file)
    return [socket.create_server((address, port)) for address in ADDRESSES for port in PORTS]
