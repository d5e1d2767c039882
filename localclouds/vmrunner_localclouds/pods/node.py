"""The namespaces in which all pods of one process live: of processes, mounts, networks, IPC.

Their process 1 dies with us, and with it all that was started there, mounts and networks too. Each
pod has an address, and reaches the others and what stands in for the world (`neighbours.py`), as
far as walls let it (`walls.py`); nothing else is there to be reached. The host sees none of it.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final

from vmrunner_localclouds.pods.neighbours import ADDRESSES, Neighbours
from vmrunner_localclouds.pods.walls import Wall, ruleset

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
#: Where pods' mounts and networks are, in these namespaces.
PLACE: Final = "/run/pods"
NETWORKS: Final = "/run/netns"
_GATEWAY: Final = "10.88.0.1"
_PODS: Final = "10.88.0."  # and their number
_PATIENCE: Final = 60  # seconds for a program
_MOST: Final = 250  # pods at a time that have an address
# runsc takes a network for the host's where it sees /proc/sys/net/core/rmem_default, which newer
# kernels show in all.
_SETUP: Final = f"""
mount -t tmpfs -o mode=755 run /run
mkdir -p {PLACE} {NETWORKS}
echo 1 >/proc/sys/net/ipv4/ip_forward
mount -t tmpfs none /proc/sys/net
ip link set lo up
for address in {_GATEWAY} {" ".join(ADDRESSES)}; do ip addr add $address/32 dev lo; done
"""


class Node:
    """A context manager; programs run in it while it is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._addresses: dict[str, int] = {}
        self._neighbours: Neighbours | None = None

    def __enter__(self) -> Node:
        theirs, self._alive = os.pipe()
        words = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]
        words += ["--net", "--ipc", "--", sys.executable, "-P", "-S"]
        words += [str(Path(__file__).with_name("keeper.py")), str(theirs)]
        self._unshare = subprocess.Popen(words, pass_fds=[theirs], stdout=subprocess.PIPE)
        os.close(theirs)
        assert self._unshare.stdout is not None
        with self._unshare.stdout as ready:
            if not ready.read(1):
                os.close(self._alive)
                self._unshare.wait()
                raise OSError("pods need root, who may make namespaces")
        pid = self._unshare.pid
        self._keeper = Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()
        self._enter = [
            "nsenter",
            "--target",
            self._keeper,
            "--pid",
            "--mount",
            "--net",
            "--ipc",
            "--",
        ]
        try:
            self.shell(_SETUP)
            self._neighbours = Neighbours(f"/proc/{self._keeper}/ns/net")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all that runs in it."""
        if self._neighbours is not None:
            self._neighbours.close()
        os.close(self._alive)
        self._unshare.wait()

    def start(
        self,
        words: Sequence[str],
        *,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """A program in these namespaces. It is a child of what is returned, which does not hand on
        signals: `descendants`."""
        return subprocess.Popen(
            [*self._enter, *words], stdin=stdin, stdout=stdout, stderr=stderr, bufsize=0
        )

    def run(self, *words: str, check: bool = True) -> str:
        """Output of a program. Raises OSError with its complaint where it fails."""
        with TemporaryFile() as out, TemporaryFile() as err:  # what lives on would hold a pipe
            try:
                code = self.start(words, stdout=out, stderr=err).wait(_PATIENCE)
            except subprocess.TimeoutExpired as error:
                raise OSError(f"{shlex.join(words)[:200]}: not within {_PATIENCE} s") from error
            out.seek(0)
            err.seek(0)
            if check and code:
                complaint = err.read().decode(errors="replace").strip()
                raise OSError(f"{shlex.join(words)[:200]}: {complaint[-800:]}")
            return out.read().decode(errors="replace")

    def shell(self, script: str) -> str:
        return self.run("sh", "-ec", script)

    # --- networks ---------------------------------------------------------------------------

    def connect(self, name: str) -> str:
        """Make a pod's network; its address. Raises OSError where all are taken."""
        with self._lock:
            taken = set(self._addresses.values())
            number = next((n for n in range(2, 2 + _MOST) if n not in taken), None)
            if number is None:
                raise OSError(f"{_MOST} pods have an address; there are no more")
            self._addresses[name] = number
        address, link = f"{_PODS}{number}", _link(number)
        self.shell(
            f"""
            ip netns add {name}
            ip link add {link} type veth peer name eth0 netns {name}
            ip link set {link} up
            ip route add {address}/32 dev {link} src {_GATEWAY}
            ip -n {name} link set lo up
            ip -n {name} addr add {address}/32 dev eth0
            ip -n {name} link set eth0 up
            ip -n {name} route add {_GATEWAY}/32 dev eth0
            ip -n {name} route add default via {_GATEWAY} dev eth0
            """
        )
        return address

    def wall_in(self, walls: Mapping[str, Wall]) -> None:
        """Let these walls, by pods' addresses, be all that there are."""
        numbers = {address: int(address.removeprefix(_PODS)) for address in walls}
        links = {_link(numbers[address]): wall for address, wall in walls.items()}
        with TemporaryFile() as rules:
            rules.write(ruleset(links).encode())
            rules.seek(0)
            if code := self.start(["nft", "-f", "-"], stdin=rules).wait(_PATIENCE):
                raise OSError(f"nft refuses the walls of {', '.join(walls)}: {code}")

    def dial(self, name: str, port: int) -> socket.socket:
        """A connection to a port on the loopback of a pod's network, as a kubelet's port-forward
        makes it. Raises OSError where nothing listens."""
        with ThreadPoolExecutor(1) as thread:  # which alone is in that network
            return thread.submit(self._dial, name, port).result()

    def _dial(self, name: str, port: int) -> socket.socket:
        network = os.open(f"/proc/{self._keeper}/root{NETWORKS}/{name}", os.O_RDONLY)
        try:
            if _LIBC.setns(network, 0):
                raise OSError(ctypes.get_errno(), "no such network")
        finally:
            os.close(network)
        return socket.create_connection(("127.0.0.1", port), timeout=10)

    def disconnect(self, name: str) -> None:
        """Take a pod's network away: its link first, which would outlive the namespace for a while
        and be in the way of whoever has the address next."""
        number = self._addresses.get(name)
        if number is not None:
            self.run("ip", "link", "delete", _link(number), check=False)
        self.run("ip", "netns", "delete", name, check=False)
        with self._lock:
            self._addresses.pop(name, None)


def _link(number: int) -> str:
    """The node's end of a pod's link."""
    return f"veth{number}"


def descendants(pid: int) -> list[int]:
    """The pids, as we see them, of all processes below that one, the deepest last."""
    found: list[int] = []
    remaining = [pid]
    while remaining:
        children = _children(remaining.pop())
        found += children
        remaining += children
    return found


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        lists = [(task / "children").read_text() for task in tasks]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for text in lists for child in text.split()]
