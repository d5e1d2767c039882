"""An order made concrete: the programs, files, user and words of one VM, as the keeper reads
them from `plan.json`. All questions to the host are asked here, before anything is made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vmrunner.errors import BadOrder, NoCapacity
from vmrunner.model import Network, Order, tags_of
from vmrunner.providers.qemu import layout, machine, seed
from vmrunner.providers.qemu.imagestore import LocalImage
from vmrunner.providers.qemu.machine import Fd, Machine

OVERLAY: Final = "overlay.qcow2"
SEED: Final = "seed.iso"

TUN: Final = Path("/dev/net/tun")

_PATH: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin"))
_PACKAGES: Final = {"qemu-img": "qemu-utils", "pasta": "passt", "nft": "nftables"}

# Users of our own, above what systemd, containers and people use: one for each VM.
_FIRST_USER: Final = 0x7000_0000
_NOBODY: Final = 65534


def package(program: str) -> str:
    """The Debian package that brings a program."""
    return _PACKAGES.get(program, "qemu-system-x86")


def emulator() -> str:
    return f"qemu-system-{platform.machine()}"


def find(program: str) -> str | None:
    """Its path; `sbin` counts too, which an ordinary user's PATH leaves out."""
    return shutil.which(program, path=_PATH)


def need(program: str) -> str:
    found = find(program)
    if found is None:
        raise BadOrder(f"{program} is not installed", hint=f"apt install {package(program)}")
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """The programs that a VM needs; each is there."""

    qemu: str
    qemu_img: str
    nft: str
    pasta: str | None  # only a VM that reaches something needs it

    @classmethod
    def find(cls, *, internet: bool) -> Host:
        if platform.machine() != "x86_64":
            raise BadOrder(f"local VMs need an x86-64 host, this one is {platform.machine()}")
        return cls(
            qemu=need(emulator()),
            qemu_img=need("qemu-img"),
            nft=need("nft"),
            pasta=need("pasta") if internet else None,
        )


def digest(order: Order) -> str:
    """Names an order: the identical one again has the same."""
    said = dataclasses.asdict(order)
    if order.max_ttl is None:  # an order of the time before it could tell has its old name
        del said["max_ttl"]
    text = json.dumps(said, sort_keys=True, default=bytes.hex)
    return hashlib.sha256(text.encode()).hexdigest()


def user(instance: str) -> tuple[int, int] | None:
    """Whom QEMU runs as when we are root: a user that nothing else is. None: as we are."""
    if os.geteuid() != 0:
        return None
    number = _FIRST_USER + int.from_bytes(hashlib.sha256(instance.encode()).digest()[:4]) % 2**27
    for chosen in (number, _NOBODY):  # a container's root has often only 65536 users, or one
        if _mapped("uid", chosen) and _mapped("gid", chosen):
            return (chosen, chosen)
    return None


def needs_tun(user: tuple[int, int] | None) -> bool:
    """Whether pasta's device must be made for it, since only root may open it: udev opens it to
    all, some containers and small systems do not. Raises BadOrder when nothing helps."""
    if TUN.exists() and TUN.stat().st_mode & 0o006 == 0o006:
        return False
    if user is not None:
        return True
    if os.access(TUN, os.R_OK | os.W_OK):
        return False
    raise BadOrder(
        f"network = open: {TUN} may not be opened by this user",
        hint=f"chmod 0666 {TUN} as root, or --network none",
    )


def _mapped(kind: str, number: int) -> bool:
    """Whether our own user namespace has this id."""
    for line in Path(f"/proc/self/{kind}_map").read_text().splitlines():
        first, _, count = (int(word) for word in line.split())
        if first <= number < first + count:
            return True
    return False


def hidden(programs: list[str]) -> list[str]:
    """Directories that QEMU need not see: people's homes, unless its program lies there."""
    places = {Path.home(), Path("/root"), Path("/home"), Path("/srv"), Path("/var/tmp")}  # noqa: S108
    real = [Path(program).resolve() for program in programs]
    return sorted(
        str(place)
        for place in places
        if place.is_dir()
        and place != Path("/")
        and not any(program.is_relative_to(place) for program in real)
    )


def make(
    order: Order,
    *,
    home: Path,
    image: LocalImage,
    host: Host,
    accel: str,
    address: str,
    mark: str,
    now: float,
) -> dict[str, Any]:
    """What `plan.json` holds. `home` is where the directory will be."""
    internet = order.network is Network.OPEN
    runs_as = user(order.instance)
    words = machine.command(
        Machine(
            qemu=host.qemu,
            guest=mark,
            accel=accel,
            cpus=order.offer.cpus,
            memory=order.offer.memory,
            cmdline=image.cmdline,
            restrict=not internet,
        )
    )
    files: list[tuple[int, str, bool]] = [
        (Fd.OVERLAY, str(home / OVERLAY), True),
        (Fd.BASE, str(image.disk), False),
        (Fd.SEED, str(home / SEED), False),
        (Fd.KERNEL, str(image.kernel), False),
        (Fd.INITRD, str(image.initrd), False),
    ]
    if accel == "kvm":
        files.append((Fd.KVM, "/dev/kvm", True))
    return {
        "order": digest(order),
        "created": now,
        "deadline": order.deadline,
        "disk": order.offer.disk,
        "memory": order.offer.memory,
        "address": address,
        "announced": image.announces,
        "port": machine.SSH_PORT,
        "qemu": words,
        "files": files,
        "pasta": host.pasta if internet else None,
        "tun": internet and needs_tun(runs_as),
        "nft": host.nft,
        "user": runs_as,
        "hide": hidden([host.qemu, host.nft, *filter(None, [host.pasta])]),
    }


def furnish(place: Path, order: Order, image: LocalImage, host: Host) -> None:
    """Fill an instance's directory, still under its temporary name, with all but the plan."""
    meta = f"instance-id: {order.instance}\nlocal-hostname: {order.instance}\n"
    disk = seed.image({"user-data": order.user_data, "meta-data": meta.encode()})
    (place / SEED).write_bytes(disk)
    (place / layout.LOCK).touch()
    layout.write_json(place / layout.TAGS, tags_of(order))
    done = subprocess.run(
        [
            *(host.qemu_img, "create", "-q", "-f", "qcow2"),
            *("-b", str(image.disk), "-F", "qcow2"),
            str(place / OVERLAY),
            str(order.offer.disk),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        message = done.stderr.strip().splitlines()[-1:] or ["qemu-img failed"]
        if "No space left" in message[0]:
            raise NoCapacity(f"the disk is full: {message[0]}")
        raise BadOrder(f"image {image.name}: {message[0]}", hint="vmrunner image verify")
