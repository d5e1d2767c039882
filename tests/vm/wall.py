"""Start one VM in a network with nothing real in it and print, as JSON, what its guest reaches.

    unshare --net --mount python -m tests.vm.wall NETWORK CACHE DIRECTORY [UID]

With a template in CACHE it is a clone of that, else it boots. With UID, the provider and all that
it starts run as that ordinary user.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

from tests.vm import stand_in
from tests.vm.qemu_fixture import SHAPE, Machine, make_provider
from vmrunner.model import Network
from vmrunner.providers.qemu import processes, sweep

LATER = "11.8.8.8"  # an address that the host gets while the VM runs
PROBE = """
import json, socket
from concurrent.futures import ThreadPoolExecutor

def tcp(address):
    with socket.create_connection((address, {port}), timeout=4) as s:
        return s.recv(100).decode()

def udp(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(4)
        s.sendto(b"?", (address, {port}))
        return s.recv(100).decode()

def name(_):
    return socket.gethostbyname("some.name.test")

def asked(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(4)
        question = b"\\1\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\4some\\4name\\4test\\0\\0\\1\\0\\1"
        s.sendto(question, (address, 53))
        return socket.inet_ntoa(s.recv(512)[-4:])

def tried(job):
    try:
        return job[0](job[1])
    except OSError as error:
        return type(error).__name__

jobs = [(how, address) for address in {addresses} for how in (tcp, udp, asked)] + [(name, "")]
with ThreadPoolExecutor(60) as pool:
    answers = pool.map(tried, jobs)
    found = {{how.__name__ + " " + address: said for (how, address), said in zip(jobs, answers)}}
print(json.dumps(found))
"""
GATEWAYS = ("10.0.2.2", "10.0.2.3", "169.254.1.1", "169.254.2.1", "169.254.2.2", "0.0.0.0")
IPV6 = ("fd77::1", "fd77::2", "fe80::1%eth0")


def probe(vm: Machine, addresses: tuple[str, ...]) -> dict[str, str]:
    program = PROBE.format(port=stand_in.PORT, addresses=addresses)
    done = vm.ssh(f"python3 - <<'EOP'\n{program}\nEOP", timeout=90)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def give_tun_to_all() -> None:
    """As udev does. Only this mount namespace sees it."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/dev/net"], check=True)
    os.mknod("/dev/net/tun", stat.S_IFCHR, os.makedev(10, 200))
    Path("/dev/net/tun").chmod(0o666)


def become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def add_address(address: str) -> None:
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)


def main(network: Network, cache: Path, directory: Path, uid: int | None) -> None:
    go, late = os.pipe()
    if os.fork() == 0:  # stays root, for what is done later; before there are threads
        os.close(late)
        if os.read(go, 1):
            add_address(LATER)
        os._exit(0)
    stand_in.build()
    if uid is not None:
        give_tun_to_all()
        become(uid)
    provider = make_provider(directory, cache=cache, accel="tcg", dns=stand_in.RESOLVER)
    shape = SHAPE if (cache / "templates").exists() else None
    vm = Machine.order_one(provider, directory, network=network, ttl=400, shape=shape)
    ref = provider.create(vm.order)
    try:
        started = time.monotonic()
        vm.wait_booted()
        print(f"{network}: up to SSH {time.monotonic() - started:.1f} s", file=sys.stderr)
        everything = (*stand_in.HOST, *stand_in.OTHERS, stand_in.INTERNET, *GATEWAYS, *IPV6)
        found = probe(vm, everything)
        os.write(late, b"1")
        time.sleep(8)  # the keeper looks for new addresses every 5 s
        later = probe(vm, (LATER, stand_in.INTERNET))
        uids = {
            Path(f"/proc/{process_id.pid}").stat().st_uid
            for process_id, _ in processes.marked(sweep.mark(provider.state))
            if (Path(f"/proc/{process_id.pid}/cmdline").read_bytes()).startswith(b"/usr/bin/qemu")
        }
        seen = vm.look()
        answer = {
            "token": stand_in.TOKEN,
            "first": found,
            "later": later,
            "uids": sorted(uids),
            "start": seen and seen.start,
        }
        print(json.dumps(answer))
    finally:
        provider.delete([ref])
        vm.wait_dead(10)


if __name__ == "__main__":
    main(
        Network(sys.argv[1]),
        Path(sys.argv[2]),
        Path(sys.argv[3]),
        int(sys.argv[4]) if len(sys.argv) > 4 else None,
    )
