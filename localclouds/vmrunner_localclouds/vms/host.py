"""The VMs' demands on this machine: an image, QEMU, and addresses with a port 22 that can be
had."""

from __future__ import annotations

import errno
import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from vmrunner import images
from vmrunner.config import paths
from vmrunner.errors import BadOrder
from vmrunner.lib import local_images
from vmrunner.lib.local_images import LocalImage
from vmrunner.providers.qemu import accel, launch_plan
from vmrunner_localclouds.vms import command_line
from vmrunner_localclouds.vms.command_line import GuestSpec
from vmrunner_localclouds.vms.metadata import Answer
from vmrunner_localclouds.vms.vm import Vm

GiB: Final = 1024**3

_TRIES: Final = 20
_SHELL: Final = (
    "use a shell with a network of its own, for this and for vmrunner: "
    "unshare --user --map-root-user --net sh -c 'ip link set lo up; exec \"$SHELL\"'"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Vms:
    """Makes VMs that share an image and a size. `warning`: text for the user, or empty."""

    image: LocalImage
    host: command_line.HostSpec
    qemu_img: str
    warning: str

    @classmethod
    def open(
        cls,
        *,
        cache: Path | None = None,
        accelerator: str = "auto",
        cpus: int | None = None,
        memory: int = 2 * GiB,
    ) -> Self:
        """`cache`: where images lie, by default the user's; it must have the default one, as this
        version of vmrunner makes it. `accelerator`: auto, kvm or tcg. `cpus` of a VM; None: two, or
        one where it is emulated. `memory` of a VM, bytes. Raises BadOrder, with the fix."""
        cache = cache or paths.cache_path()
        image = local_images.resolve(cache, local_images.DEFAULT, images.current)
        qemu = launch_plan.need(launch_plan.emulator())
        chosen = accel.choose(accelerator, qemu=qemu, kernel=image.kernel, cache_dir=cache)
        host = command_line.HostSpec(
            qemu=qemu,
            accel=chosen.name,
            cpus=cpus or (2 if chosen.name == "kvm" else 1),
            memory=memory,
            kernel=image.kernel,
            initrd=image.initrd,
            cmdline=image.cmdline,
        )
        made = cls(
            image=image, host=host, qemu_img=launch_plan.need("qemu-img"), warning=chosen.warning
        )
        made.address()  # raises here, not at the first launch
        return made

    def address(self) -> str:
        """One of the host's loopback addresses, where port 22 is free. Raises BadOrder
        when there is none for us."""
        for _ in range(_TRIES):
            numbers = random.randint(64, 127), random.randint(0, 255), random.randint(1, 254)  # noqa: S311
            address = ".".join(map(str, (127, *numbers)))
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, command_line.SSH))
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        continue
                    raise BadOrder(
                        f"port {command_line.SSH} of {address}: {error.strerror}",
                        hint=f"sysctl net.ipv4.ip_unprivileged_port_start=22 as root, or {_SHELL}",
                    ) from error
            return address
        raise BadOrder(
            f"port {command_line.SSH} is in use on every address of this host: by its own sshd?",
            hint=_SHELL,
        )

    def make(self, guest: GuestSpec, answer: Answer) -> Vm:
        """A VM that is not started yet. `answer` is its metadata service, and may be called from
        several threads at once."""
        local_images.used(self.image)
        return Vm(self.host, self.image, self.qemu_img, guest, answer)
