"""An allow-list's proxy between a network where QEMU would be and one with an internet in it, which
both end with this process. Print, as JSON, what the probe reached, and what the proxy is.

    unshare --user --map-root-user --net --mount python -m tests.support.allow_world PEM
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tests.support import allow_probe, named_servers
from tests.support.client_hellos import ECH, SNI, made, names, real, recorded
from vmrunner.model import AllowList
from vmrunner.providers.qemu import network, syscalls
from vmrunner.providers.qemu.allow import process
from vmrunner.providers.qemu.allow.proxy import CONNECTIONS

INTERNET, RESOLVER, HOST = "44.44.44.44", "44.44.53.53", "11.1.1.1"
PRIVATE, METADATA, TOKEN = "10.1.2.3", "169.254.169.254", "token"
WIRE_SERVER = "168.63.129.16"  # of a host in Azure
ALLOW = AllowList(
    (
        "good.example.org",
        "*.example.net:8443",
        "deb.example.org:80",
        "inside.example.org",
        "host.example.org",
        "meta.example.org",
        "wire.example.org",
        "rebound.example.org",
    )
)
#: Who has another address than `INTERNET`. The last one's first is no use.
PLACES = {
    "inside.example.org": [PRIVATE],
    "host.example.org": [HOST],
    "meta.example.org": [METADATA],
    "wire.example.org": [WIRE_SERVER],
    "rebound.example.org": [PRIVATE, INTERNET],
}


def targets_of(resolver: str, addresses: list[str], *, flood: int) -> dict[str, Any]:
    """What the probe is told."""
    good = "good.example.org"
    message = real(good)[5:]
    return {
        "resolver": resolver,
        "good": good,
        "below": "a.b.example.net",
        "beside": "evilexample.net",
        "web": "deb.example.org",
        "evil": "evil.example.com",
        "inside": "inside.example.org",
        "internet": INTERNET,
        "hello": real(good).hex(),
        "records": recorded(message, [1, 3, 60]).hex(),
        "encrypted": recorded(made((SNI, names(good)), (ECH, b"\0"))).hex(),
        "addresses": addresses,
        "flood": flood,
    }


def resolve(queried: list[str]) -> None:
    """Answer at `RESOLVER`, and note who was asked for."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((RESOLVER, 53))

    def answer() -> None:
        while True:
            question, peer = udp.recvfrom(2048)
            end = question.index(b"\0", 12)
            labels, at = [], 12
            while at < end:
                labels.append(question[at + 1 : at + 1 + question[at]].decode())
                at += 1 + question[at]
            queried.append(".".join(labels))
            found = PLACES.get(queried[-1], [INTERNET])
            reply = question[:2] + b"\x81\x80\0\1" + len(found).to_bytes(2) + bytes(4)
            reply += question[12 : end + 5]
            for place in found:
                reply += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(place)
            udp.sendto(reply, peer)

    threading.Thread(target=answer, daemon=True).start()


def internet(pem: Path) -> Callable[[], list[str]]:
    """Serve all addresses from a child. Returns what tells the names that were asked for."""
    ready, done = os.pipe()
    request_end, wanted = os.pipe()
    if os.fork() == 0:
        syscalls.die_with_parent()
        queried: list[str] = []
        named_servers.serve(pem, TOKEN)
        resolve(queried)
        os.write(done, b"1")
        os.read(request_end, 1)
        os.write(done, json.dumps(queried).encode())
        os.read(request_end, 1)
        os._exit(0)
    os.read(ready, 1)

    def queried_names() -> list[str]:
        os.write(wanted, b"1")
        found: list[str] = json.loads(os.read(ready, 1 << 16))
        return found

    return queried_names


def guarded(run: Callable[[], object]) -> NoReturn:
    syscalls.die_with_parent()
    try:
        run()
    except BaseException:  # noqa: BLE001 - shown
        traceback.print_exc()
    os._exit(1)


def status(pid: int) -> dict[str, str]:
    """What holds a process, and what it holds."""
    wanted = ("CapEff", "CapPrm", "NoNewPrivs", "Seccomp", "VmHWM")
    lines = (line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    found = {name: value.strip() for name, value in lines if name in wanted}
    found["root"] = ",".join(path.name for path in Path(f"/proc/{pid}/root").iterdir())
    return found


def held(pid: int) -> int:
    """Open connections until the proxy has as many as it ever takes, and some that it leaves
    waiting. Returns how many descriptors it then has at most. They come a few at a time: what its
    queue has no room for is sent again by the kernel only after seconds."""
    with contextlib.ExitStack() as stack:
        opened, most, beyond, until = 0, 0, 0, time.monotonic() + 60
        while beyond < 16 and time.monotonic() < until:
            for _ in range(8 if opened < 800 else 0):
                opened += 1
                sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    sock.connect((network.PROXY, 443))
            time.sleep(0.05)
            most = max(most, len(list(Path(f"/proc/{pid}/fd").iterdir())))
            beyond += most >= CONNECTIONS
        return most


def main(pem: Path) -> None:
    process.load()  # before this checkout may lie under what is mounted next
    syscalls.keep_mounts_private()
    pem_text = pem.read_bytes()
    syscalls.mount_empty("/tmp")
    pem = Path("/tmp/cert.pem")
    pem.write_bytes(pem_text)
    syscalls.loopback_up()
    for address in (INTERNET, RESOLVER, HOST, PRIVATE, METADATA, WIRE_SERVER):
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    told_names = internet(pem)
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    assert nft
    network.load(nft, network.rules(resolver=RESOLVER, host=[f"{HOST}/32"]))
    plan = {
        "allow": {"entries": list(ALLOW.allow), "ports": sorted(ALLOW.ports)},
        "resolver": RESOLVER,
    }
    spec = process.spec_of(plan)
    assert spec is not None
    proxy = process.start(spec, nft, guarded)
    addresses = [INTERNET, RESOLVER, HOST, PRIVATE, METADATA, WIRE_SERVER, "127.0.0.1"]
    addresses.append(network.PROXY)
    targets = targets_of(network.PROXY, addresses, flood=600)
    found = allow_probe.main(targets)
    guest = allow_probe.Guest(network.PROXY)
    for name in ("host", "meta", "wire", "rebound"):
        found[name] = allow_probe.tried(guest.tls, f"{name}.example.org")
    most = held(proxy.pid)
    found["after the flood"] = allow_probe.until_it_works(guest, "good.example.org")
    network.load(nft, network.deny([f"{INTERNET}/32"]), space=proxy.outside)
    found["denied later"] = allow_probe.tried(guest.tls, "good.example.org")
    print(
        json.dumps(
            {
                "found": found,
                "proxy": status(proxy.pid),
                "most": most,
                "asked": told_names(),
                "interfaces": [name for _, name in socket.if_nameindex()],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
