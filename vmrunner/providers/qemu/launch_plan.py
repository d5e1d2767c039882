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
from vmrunner.lib import process
from vmrunner.lib.local_images import LocalImage
from vmrunner.model import AllowList, Network, NetworkPolicy, Order, Role, tags_of
from vmrunner.providers.qemu import command_line, processes, seed, state_dir, templates
from vmrunner.providers.qemu.command_line import MiB, QemuFd, QemuMachine, QemuStart
from vmrunner.providers.qemu.templates import Template

SEED: Final = "seed.iso"

TUN: Final = Path("/dev/net/tun")

_ALSO: Final = ("/usr/sbin", "/sbin", "/usr/bin")
_PACKAGES: Final = {"qemu-img": "qemu-utils", "pasta": "passt", "nft": "nftables"}

#: Bytes beyond the guest's memory that QEMU may take (translated code alone 512 MiB), and what it
#: may reserve.
_OVERHEAD: Final = 2048 * MiB
_RESERVED: Final = 6144 * MiB
#: Beside a thread for each processor: QEMU has up to 64 for its disks.
_THREADS: Final = 128
#: Older kernels count all threads of the user, not those of the VM's namespace.
_COUNTS_THREADS: Final = (5, 14)


def package(program: str) -> str:
    """The Debian package that brings a program."""
    return _PACKAGES.get(program, "qemu-system-x86")


def emulator() -> str:
    return f"qemu-system-{platform.machine()}"


def find(program: str) -> str | None:
    """Return a program's path; `sbin` counts too, which an ordinary user's PATH leaves out. No part
    of PATH that means the working directory is searched: a checkout may lie there."""
    path = os.environ.get("PATH", "").split(os.pathsep)
    directories = [place for place in (*path, *_ALSO) if place.startswith("/")]
    return shutil.which(program, path=os.pathsep.join(directories))


def need(program: str) -> str:
    found = find(program)
    if found is None:
        raise BadOrder(f"{program} is not installed", hint=f"apt install {package(program)}")
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class HostPrograms:
    """The programs that a VM needs; each is there."""

    qemu: str
    qemu_img: str
    nft: str
    pasta: str | None  # only a VM that reaches something needs it

    @classmethod
    def find(cls, *, internet: bool) -> HostPrograms:
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
    fields = dataclasses.asdict(order)
    for later in ("max_ttl", "identity", "shape", "pool", "pull"):
        if fields[later] is None:  # an order of the time before it could tell has its old name
            del fields[later]
    for later in ("docker", "privileged") if fields.get("shape") else ():
        if not fields["shape"][later]:
            del fields["shape"][later]
    text = json.dumps(fields, sort_keys=True, default=bytes.hex)
    return hashlib.sha256(text.encode()).hexdigest()


def needs_tun(user: tuple[int, int] | None) -> bool:
    """True if pasta's device must be made for it, since only root may open it: udev opens it to
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


def hidden(*ours: Path) -> list[str]:
    """Directories that QEMU must not see, should they lie where its programs and libraries do:
    `ours`, and people's homes."""
    directories = (*ours, Path.home(), Path("/root"), Path("/home"), Path("/srv"))
    return sorted({str(place.resolve()) for place in directories} - {"/"})


def growth(disk: int) -> int:
    """Bytes that an overlay for a disk of `disk` bytes may come to take, with its tables."""
    return disk + disk // 1000 + 4 * MiB


def limits(*, cpus: int, memory: int, disk: int) -> dict[str, int]:
    """Limits of QEMU's resources, by their names in `resource`."""
    found = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": growth(disk),
        "RLIMIT_AS": memory + _RESERVED,
    }
    if processes.kernel() >= _COUNTS_THREADS:
        found["RLIMIT_NPROC"] = cpus + _THREADS
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class VmPlan:
    """Decisions about a VM before anything of it is made."""

    order: Order
    image: LocalImage
    programs: HostPrograms
    accel: str
    template: Template | None = None
    save: Path | None = None  # the directory of the template that it is to become
    sealed: bool = False  # it has no way out, whatever builds from its template will have

    @property
    def channel(self) -> bool:
        """True if its identity comes over a port; else all is in the user-data."""
        return self.image.channel and (self.order.identity is not None or self.save is not None)

    def words(self, start: QemuStart, mark: str) -> list[str]:
        """QEMU's command line."""
        offer = self.order.offer
        return command_line.command(
            QemuMachine(
                qemu=self.programs.qemu,
                guest=mark,
                accel=self.accel,
                cpus=offer.cpus,
                memory=offer.memory,
                cmdline=self.image.cmdline,
                restrict=self.order.network is Network.NONE,
                channel=self.channel,
                start=start,
            )
        )

    def template_order(self) -> Order | None:
        """Return an order of the template that such a VM can start from; None: none fits it. A
        build that wants another container than waits there gets a fresh one in the clone, which the
        image may lack: one with Docker or more rights. A pool's would have to wait, too."""
        order, shape, containers = self.order, self.order.shape, self.image.containers
        if not self.channel or shape is None:
            return None
        baked = shape.container in containers
        if baked and shape == shape.waiting:
            return order
        if order.role is not Role.BUILD or not containers:
            return None
        container = shape.container if baked else containers[0]
        waits = dataclasses.replace(shape.waiting, container=container)
        return dataclasses.replace(order, shape=waits)

    def template_key(self) -> str | None:
        """Return the name of that template."""
        if (order := self.template_order()) is None:
            return None
        return templates.key(self.words(QemuStart.RESUME, ""), order, self.image, self.accel)


def make(
    vm: VmPlan, *, directory: Path, resolver: str, hide: list[str], mark: str, now: float
) -> dict[str, Any]:
    """Return the content of `plan.json`. `directory` is where the directory will be."""
    order, image, programs = vm.order, vm.image, vm.programs
    internet = order.network is not Network.NONE and not vm.sealed
    runs_as = processes.user(order.instance)
    offer = order.offer
    disk = directory / state_dir.OVERLAY if vm.save is None else vm.save / templates.DISK
    files = [(QemuFd.OVERLAY, str(disk))]
    if vm.accel == "kvm":
        files.append((QemuFd.KVM, "/dev/kvm"))
    if vm.save:
        files += [(QemuFd.RAM, str(vm.save / templates.RAM))]
        files += [(QemuFd.STATE, str(vm.save / templates.STATE))]
    images = [
        (QemuFd.BASE, str(image.disk)),
        (QemuFd.SEED, str(directory / SEED)),
        (QemuFd.KERNEL, str(image.kernel)),
        (QemuFd.INITRD, str(image.initrd)),
    ]
    return {
        "order": digest(order),
        "created": now,
        "deadline": order.deadline,
        "disk": offer.disk,
        "memory": offer.memory,
        "announced": image.announces,
        "channel": vm.channel,
        "identity": _identity(order) if vm.channel and vm.save is None else None,
        "save": vm.save is not None,
        "maker": dataclasses.asdict(process.current()) if order.role is Role.IMAGE else None,
        "qemu": vm.words(QemuStart.SAVE if vm.save else QemuStart.BOOT, mark),
        "resume": _resume(vm, mark),
        "overlay": overlay(
            programs.qemu_img, image.disk, directory / state_dir.OVERLAY, offer.disk
        ),
        "files": files,
        "images": images,
        "pasta": programs.pasta if internet else None,
        "allow": _allow(order.network) if internet else None,
        "resolver": resolver if internet else None,
        "tun": internet and needs_tun(runs_as),
        "nft": programs.nft,
        "user": runs_as,
        "hide": hide,
        "limits": limits(cpus=offer.cpus, memory=offer.memory, disk=offer.disk),
        "group": {
            "memory": offer.memory + _OVERHEAD,
            "processes": offer.cpus + 2 * _THREADS,
        },
    }


def _allow(network: NetworkPolicy) -> dict[str, Any] | None:
    """Parts of an allow-list that the keeper needs, which does not read it itself."""
    if not isinstance(network, AllowList):
        return None
    return {"entries": list(network.allow), "ports": sorted(network.ports)}


def _identity(order: Order) -> dict[str, Any]:
    """Identity that the guest is told, but for what the keeper draws when it says so."""
    assert order.identity is not None
    return {
        "hostname": order.instance,
        "user_key": order.identity.user_key.strip() + "\n",
        "host_key": order.identity.host_key.strip() + "\n",
        "host_public": order.identity.host_public.strip() + "\n",
        "deadline": order.deadline,
        "network": order.network.inside.value,
    }


def _resume(vm: VmPlan, mark: str) -> dict[str, Any] | None:
    """Fields of the plan by which the VM starts from its template."""
    if vm.template is None:
        return None
    files = [
        (QemuFd.RAM, str(vm.template.ram)),
        (QemuFd.STATE, str(vm.template.state)),
        (QemuFd.TEMPLATE, str(vm.template.disk)),
    ]
    return {"template": vm.template.key, "qemu": vm.words(QemuStart.RESUME, mark), "images": files}


def overlay(qemu_img: str, backing: Path, made: Path, size: int) -> list[str]:
    """The command that makes a disk of `size` bytes over another."""
    command = [qemu_img, "create", "-q", "-f", "qcow2", "-b", str(backing), "-F", "qcow2"]
    return [*command, str(made), str(size)]


def furnish(place: Path, vm: VmPlan) -> None:
    """Fill an instance's directory, still under its temporary name, with all but the plan."""
    order, image = vm.order, vm.image
    meta = f"instance-id: {order.instance}\nlocal-hostname: {order.instance}\n"
    if vm.channel:
        disk = seed.shape(_shape(vm))
    else:
        disk = seed.image({"user-data": order.user_data, "meta-data": meta.encode()})
    (place / SEED).write_bytes(disk)
    (place / state_dir.LOCK).touch()
    state_dir.write_json(place / state_dir.TAGS, tags_of(order))
    below = image.disk if vm.template is None else vm.template.disk
    made = place / state_dir.OVERLAY if vm.save is None else vm.save / templates.DISK
    command = overlay(vm.programs.qemu_img, below, made, order.offer.disk)
    if vm.template:
        command.insert(2, "-u")  # a template that went just now is the keeper's to miss
    done = subprocess.run(
        command,
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
    if vm.save:
        with (vm.save / templates.RAM).open("wb") as ram:
            ram.truncate(order.offer.memory)
        (vm.save / templates.RAM).chmod(0o666)  # in a directory that no other user may enter
        (vm.save / templates.STATE).touch()


def _shape(vm: VmPlan) -> dict[str, str | int] | None:
    shape = vm.order.shape
    if shape is None or shape != shape.waiting or shape.container not in vm.image.containers:
        return None
    return {**dataclasses.asdict(shape), "network": vm.order.network.inside.value}
