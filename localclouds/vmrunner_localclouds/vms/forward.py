"""Carries one connection of a guest's to its metadata server: `forward.py PORT`, stdin and stdout
being the guest's end. It is started for each, so it imports next to nothing. No module of ours."""

from __future__ import annotations

import os
import select
import socket
import sys


def main(port: int) -> None:
    """Carry bytes until the server has said all, or the guest is gone."""
    server = socket.create_connection(("127.0.0.1", port))
    ends = [0, server.fileno()]
    while server.fileno() in ends:
        for end in select.select(ends, [], [])[0]:
            data = os.read(end, 65536)
            if not data:
                ends.remove(end)
                if end == 0:
                    server.shutdown(socket.SHUT_WR)
            elif end == 0:
                server.sendall(data)
            else:
                _write(data)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main(int(sys.argv[1]))
