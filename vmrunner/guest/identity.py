"""Identity of this VM: what tells it from every other VM that woke from the same template.

It comes over a virtio-serial port, once, before sshd starts: a head of fixed length, then JSON.

    VMRUNNER1 <length, six digits>\\n{"random": hex, "time": s, "machine_id": …, "boot_id": …,
    "hostname": …, "host_key": …, "host_public": …, "user_key": …, "deadline": s, "ttl": s,
    "network": "open" or "none"}

The answer is `ACK`, when sshd listens. Root in here may write to the port whenever they
like: the host reads `ACK` once and closes its end.
"""

from __future__ import annotations

import fcntl
import glob
import json
import math
import os
import socket
import struct
import time
from typing import Any

from . import syscalls
from .state import Place

FLAG = "vmrunner.channel"  # on the kernel's command line: an identity will come
PORT = "vmrunner.identity"
HEAD = 17  # bytes
MESSAGE_LIMIT = 8192  # bytes
ACK = b"vmrunner: ready\n"

SEED = "/dev/vdb"
SEED_BYTES = 4096
SEED_HEAD = b"VMRUNNER-SEED1\n"

_ADD_ENTROPY, _RESEED = 0x40085203, 0x5207  # linux/random.h
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def expected() -> bool:
    """True if the host gives this VM its identity over the port."""
    with open("/proc/cmdline", encoding="utf-8") as file:
        return FLAG in file.read().split()


def open_port() -> int | None:
    """A descriptor of the port; None while its driver is not there yet."""
    for name in glob.glob("/sys/class/virtio-ports/*/name"):
        with open(name, encoding="utf-8") as file:
            if file.read().strip() == PORT:
                path = f"/dev/{name.split('/')[-2]}"
                return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    return None


def seed() -> dict[str, Any] | None:
    """The shape of the container that a build of this VM will want; None: it is not known."""
    try:
        with open(SEED, "rb") as file:
            data = file.read(SEED_BYTES)
    except OSError:
        return None
    if not data.startswith(SEED_HEAD):
        return None
    return json.loads(data[len(SEED_HEAD) :].rstrip(b"\0")) or None


class Message:
    """The message as it arrives in pieces."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> dict[str, Any] | None:
        """The identity, once it is whole. Raises ValueError for what cannot be one."""
        self._data += data
        if len(self._data) < HEAD:
            return None
        word, _, length = self._data[: HEAD - 1].partition(b" ")
        size = int(length)
        if word != b"VMRUNNER1" or size > MESSAGE_LIMIT:
            raise ValueError("no identity")
        if len(self._data) < HEAD + size:
            return None
        found = json.loads(self._data[HEAD : HEAD + size])
        return found if isinstance(found, dict) else {}


def assume(place: Place, identity: dict[str, Any], root: str = "") -> None:
    """Become that VM. Randomness first, since what follows may use it; then the clock and the
    deadline, so that nothing that fails later leaves a VM without an end."""
    if not root:
        _reseed(bytes.fromhex(identity["random"]))
        if identity["time"] is not None:  # else it has run since it booted
            time.clock_settime(time.CLOCK_REALTIME, identity["time"])
    lower(place, identity["deadline"], identity["ttl"])
    name = identity["hostname"]
    _write(f"{root}/etc/machine-id", identity["machine_id"] + "\n", 0o444)
    _write(f"{root}/etc/hostname", name + "\n", 0o644)
    _write(f"{root}/etc/hosts", f"127.0.0.1 localhost {name}\n::1 localhost\n", 0o644)
    _write(f"{root}/etc/ssh/ssh_host_ed25519_key", identity["host_key"], 0o600)
    _write(f"{root}/etc/ssh/ssh_host_ed25519_key.pub", identity["host_public"], 0o644)
    _write(f"{root}/root/.ssh/authorized_keys", identity["user_key"], 0o600)
    if identity["boot_id"] is not None:
        _write(f"{place.box}/boot_id", identity["boot_id"] + "\n", 0o444)
        if not root:
            syscalls.bind(f"{place.box}/boot_id", _BOOT_ID)
    if not root:
        socket.sethostname(name)
    place.write("identified", "")


def show_boot_id(place: Place, pid: int) -> None:
    """Let the container of that process see this VM's own boot id, unless it does."""
    if place.read("boot_id_shown") == str(pid):
        return
    child = os.fork()
    if child == 0:
        code = 1
        try:
            syscalls.enter_mounts(pid)
            syscalls.bind("/vmrunner/boot_id", _BOOT_ID)
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise OSError("the boot id cannot be shown to the container")
    place.write("boot_id_shown", str(pid))


def lower(place: Place, at: float, seconds: float) -> None:
    """Let this VM end at that time, or so many seconds from now, whichever its clocks say first,
    unless it ends before anyhow."""
    former = json.loads(place.read("deadline") or "null") or [at, math.inf]
    since_boot = min(former[1], _boot_clock() + seconds)
    place.write("deadline", json.dumps([min(former[0], at), since_boot]))


def overdue(place: Place) -> bool:
    """True if this VM's own end has come, by the clock of the day or the time since it woke."""
    text = place.read("deadline")
    if not text:
        return False
    at, since_boot = json.loads(text)
    return bool(time.time() >= at or _boot_clock() >= since_boot)


def _reseed(random: bytes) -> None:
    """The kernel's random numbers are another VM's too, until this."""
    with open("/dev/urandom", "wb", buffering=0) as file:
        info = struct.pack("ii", 8 * len(random), len(random)) + random
        fcntl.ioctl(file, _ADD_ENTROPY, info)
        fcntl.ioctl(file, _RESEED)


def _boot_clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _write(path: str, text: str, mode: int) -> None:
    """Write in place: systemd may have mounted something over the file."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, mode)
        file.write(text)
