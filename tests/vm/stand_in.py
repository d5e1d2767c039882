"""A network with nothing real in it, for walls to be tested against.

    here (the stand-in host)          there (everything else)
      11.1.1.1/24, 11.9.9.9/32          11.1.1.2/24 gateway
      10.77.0.1/24, fd77::1/64          10.77.0.2/24 a neighbour, fd77::2/64
      127.0.0.1                         44.44.44.44 the internet
                                        100.64.0.5, 192.168.7.7, 169.254.169.254 and
                                        168.63.129.16 metadata
                                        44.44.53.53 its resolver
                                        the resolver of /etc/resolv.conf

`here` has no other way out: no packet leaves this machine. Every address serves a token on TCP
and UDP 8000 that ends in the address it was asked at, so that a reply says who gave it.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

PORT = 8000
INTERNET = "44.44.44.44"
RESOLVER = "44.44.53.53"
#: What a resolver of the host's own network answers with, which no build may hear.
INSIDE = "10.1.2.3"
HOST = ("11.1.1.1", "11.9.9.9", "10.77.0.1", "127.0.0.1")
OTHERS = (
    *("11.1.1.2", "10.77.0.2", "100.64.0.5", "192.168.7.7"),
    *("169.254.169.254", "168.63.129.16"),
)
TOKEN = secrets.token_hex(8)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def resolver() -> str:
    """The first nameserver of this machine, whom the stand-in plays too."""
    for line in Path("/etc/resolv.conf").read_text().splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            return words[1]
    return "127.0.0.53"


def build(also: Callable[[], object] = lambda: None) -> None:
    """Make both sides. This process must be in a network namespace of its own already; the other
    side lives in a child that ends with it. `also`: what that serves beside."""
    assert {name for _, name in socket.if_nameindex()} <= {"lo", "ifb0", "ifb1", "sit0", "tunl0"}
    ready, made = os.pipe()
    linked, link = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(link)
            _unshare_net()
            os.write(made, b"1")
            os.read(linked, 1)
            _there()
            _serve()
            also()
            os.write(made, b"2")
            os.read(linked, 1)  # until its other end is closed: the parent is gone
        finally:
            os._exit(0)
    os.close(linked)
    os.close(made)
    os.read(ready, 1)
    _ip("link", "set", "lo", "up")
    _ip("link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", str(child))
    for address in ("11.1.1.1/24", "11.9.9.9/32", "10.77.0.1/24", "fd77::1/64"):
        _ip("address", "add", address, "dev", "up0", *(["nodad"] if ":" in address else []))
    _ip("link", "set", "up0", "up")
    _ip("route", "add", "default", "via", "11.1.1.2")
    os.write(link, b"1")  # never closed: its end is the other side's end
    assert os.read(ready, 1) == b"2"
    _serve()


def _unshare_net() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        raise OSError(ctypes.get_errno(), "unshare")


def _there() -> None:
    _ip("link", "set", "lo", "up")
    for address in ("11.1.1.2/24", "10.77.0.2/24", "fd77::2/64"):
        _ip("address", "add", address, "dev", "down0", *(["nodad"] if ":" in address else []))
    for address in {INTERNET, RESOLVER, *OTHERS[2:], resolver()}:
        if not address.startswith("127."):
            _ip("address", "add", f"{address}/32", "dev", "lo")
    _ip("link", "set", "down0", "up")
    _ip("route", "add", "default", "via", "11.1.1.1")


def _serve() -> None:
    """Serve at every address of this namespace. UDP has a socket for each, so that replies come
    from the address that was asked."""
    tcp = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    threading.Thread(target=_tokens, args=(tcp,), daemon=True).start()
    shown = subprocess.run(
        ["ip", "-4", "-o", "address"], capture_output=True, text=True, check=True
    )
    for line in shown.stdout.splitlines():
        address = line.split()[3].partition("/")[0]
        for port, answer in ((PORT, _token), (53, _name)):
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind((address, port))
            threading.Thread(target=_answers, args=(udp, answer), daemon=True).start()


def _tokens(tcp: socket.socket) -> None:
    while True:
        connection, _ = tcp.accept()
        with connection:
            at = connection.getsockname()[0].removeprefix("::ffff:")
            connection.sendall(f"{TOKEN} {at}".encode())


def _answers(udp: socket.socket, answer: Callable[[str, bytes], bytes]) -> None:
    at = udp.getsockname()[0]
    while True:
        question, peer = udp.recvfrom(2048)
        udp.sendto(answer(at, question), peer)


def _token(at: str, _question: bytes) -> bytes:
    return f"{TOKEN} {at}".encode()


def _name(at: str, question: bytes) -> bytes:
    """DNS: every name has the address of the stand-in internet, as who is of it says, and no other
    kind of record; but `inside.…` has a neighbour's."""
    end = question.index(b"\0", 12) + 5
    name = question[12:end]
    if name[-4:-2] != b"\0\1":
        return question[:2] + b"\x81\x80\0\1\0\0\0\0\0\0" + name
    outside = OTHERS[1] if name.startswith(b"\6inside\7") else INTERNET
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(
        outside if at in (RESOLVER, INTERNET, OTHERS[0]) else INSIDE
    )
    return question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + name + answer
