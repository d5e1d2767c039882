"""What the wall round a local VM lets through, in a network namespace that ends with this process.
Print, as JSON, which of these addresses could be reached.

    unshare --user --map-root-user --net python -m tests.support.wall_probe ADDRESS …
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading

from vmrunner.providers.qemu import network, syscalls

PORT = 80


def main(addresses: list[str]) -> None:
    syscalls.loopback_up()
    for address in addresses:
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
        server = socket.create_server((address, PORT))
        threading.Thread(target=_greet, args=(server,), daemon=True).start()
    before = [address for address in addresses if _reached(address)]
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    assert nft
    network.load(nft, network.rules(resolver="9.9.9.9", host=[]))
    after = [address for address in addresses if _reached(address)]
    print(json.dumps({"before": before, "after": after}))


def _greet(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"here")


def _reached(address: str) -> bool:
    try:
        with socket.create_connection((address, PORT), 10) as connection:
            return connection.recv(4) == b"here"
    except OSError:
        return False


if __name__ == "__main__":
    main(sys.argv[1:])
