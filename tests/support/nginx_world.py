"""nginx with the file of `deploy/`, and whoever calls it, in a network of their own: this one leads
to the server by a Unix socket alone. Runs a command there and ends with it.

    unshare --user --map-root-user --net --mount python -m tests.support.nginx_world DIR COMMAND…
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

NAME = "builds.example.org"
UPSTREAM = ("127.0.0.1", 8470)
MAIN = """
daemon off;
user root;
pid {root}/nginx.pid;
error_log {root}/nginx.log;
events {{}}
http {{
    access_log {root}/access.log;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    include {root}/vmrunner.conf;
}}
"""


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Carry bytes to their end."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def carried(near: socket.socket, far: socket.socket) -> None:
    """Carry bytes both ways, in threads, and close both ends then."""

    def carry() -> None:
        with near, far:
            back = threading.Thread(target=pump, args=(far, near), daemon=True)
            back.start()
            pump(near, far)
            back.join()

    threading.Thread(target=carry, daemon=True).start()


class UnixDoor:
    """A Unix socket that leads to an address of this network."""

    def __init__(self, path: Path, address: tuple[str, int]) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(128)
        self._address = address
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._address)
                except OSError:
                    near.close()
                    continue
                carried(near, far)

    def close(self) -> None:
        self._listener.close()


def serve_upstream(door: Path) -> None:
    """Be the server, to nginx: lead each connection through the Unix socket."""
    listener = socket.create_server(UPSTREAM)

    def accept() -> None:
        while True:
            near, _ = listener.accept()
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(door))
            carried(near, far)

    threading.Thread(target=accept, daemon=True).start()


def main(root: Path, *command: str) -> int:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (root / "hosts").write_text(f"127.0.0.1 localhost {NAME} {(root / 'names').read_text()}\n")
    subprocess.run(["mount", "--bind", root / "hosts", "/etc/hosts"], check=True)
    (root / "nginx.conf").write_text(MAIN.format(root=root))
    serve_upstream(root / "door")
    nginx = subprocess.Popen(["/usr/sbin/nginx", "-c", root / "nginx.conf"])
    try:
        until = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection((NAME, 443), 1):
                break
            assert nginx.poll() is None, "nginx has ended"
            assert time.monotonic() < until, "nginx does not answer"
            time.sleep(0.05)
        return subprocess.run(command, check=False).returncode
    finally:
        nginx.terminate()
        nginx.wait()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
