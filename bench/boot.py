"""Boot to the first SSH: the image that builds boot against the same packages untrimmed.

The untrimmed one is what Debian's packages make of themselves: the same packages and what Debian's
cloud images add, every service as its package enables it (Docker at boot among them), the stock
initramfs, all of cloud-init's modules and datasources, the network by netplan. Both boot in the
same provider, on the same machine type, in turns. Goal: a ratio of at most 0.6.

    .venv/bin/python bench/boot.py [--pairs 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.vm.stock import from_root
from vmrunner.images import Inputs, find, resolve
from vmrunner.images.local import rootfs
from vmrunner.images.local.programs import ChildPrograms
from vmrunner.images.verification import trial_vm
from vmrunner.lib.local_images import LocalImage

GOAL = 0.6
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vmrunner"

#: Of Debian's cloud images, beside what every image of ours carries.
PACKAGES = (
    *("apparmor", "cloud-guest-utils", "cron", "iputils-ping", "logrotate", "man-db", "netplan.io"),
    *("rsyslog", "sudo", "unattended-upgrades", "vim-tiny"),
)
#: All that it takes to boot here; nothing is switched off.
PLAIN = b"""#!/bin/sh
set -eu
echo '/dev/vda / ext4 defaults,x-systemd.growfs 0 0' >/etc/fstab
rm -f /etc/ssh/ssh_host_*
: >/etc/machine-id
"""
#: What user-data of ours trims.
TRIMMING = ("cloud_config_modules", "cloud_final_modules", "growpart", "runcmd")


def untrimmed(cache: Path) -> LocalImage:
    """Made in a cache of its own, which the caller removes."""
    recipe = replace(find("default"), packages=PACKAGES)
    inputs = replace(Inputs.read(), scripts={"05-initramfs.sh": b"", "10-plain.sh": PLAIN})
    root = cache / "root.tar"
    scratch = rootfs.scratch(cache)
    rootfs.vm_root(
        recipe, inputs, to=root, tmp=scratch, programs=ChildPrograms(), report=lambda *_: None
    )
    scratch.rmdir()
    return from_root(cache, root, "untrimmed")


def whole(user_data: bytes) -> bytes:
    """The same keys and timer, and every module of cloud-init's."""
    document = yaml.safe_load(user_data)
    kept = {key: value for key, value in document.items() if key not in TRIMMING}
    return b"#cloud-config\n" + yaml.safe_dump(kept, sort_keys=False).encode()


@dataclass(frozen=True)
class Boot:
    """One boot, in seconds: to the first SSH, as we see it; until sshd listened, by the guest's own
    clock, which knows nothing of how we find that out. `systemd`: its own times, at the end."""

    ssh: float
    listens: float
    systemd: str


def boot(image: LocalImage, *, trimmed: bool) -> Boot:
    reshape = (lambda data: data) if trimmed else whole
    with trial_vm.vm(image, reshape=reshape) as (connection, seconds):
        outcome = connection.run(
            "systemctl is-system-running --wait >/dev/null; "
            "systemctl show -P ActiveEnterTimestampMonotonic ssh.service; "
            "systemd-analyze time | head -1; systemd-analyze blame --no-pager | head -12; "
            "systemctl list-units --type=service --state=active,exited --no-legend --plain | wc -l",
            timeout=600,
        )
    listens, _, rest = outcome.stdout.decode().partition("\n")
    return Boot(ssh=seconds, listens=int(listens) / 1e6, systemd=rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    console = Console(width=110, highlight=False)
    ours = resolve(CACHE, "default")
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="vmrunner-boot-") as place:
        cache = Path(place)
        cache.chmod(0o755)
        plain = untrimmed(cache)
        sides = {
            "trimmed": partial(boot, ours, trimmed=True),
            "untrimmed": partial(boot, plain, trimmed=False),
        }
        boots: dict[str, list[Boot]] = {name: [] for name in sides}
        for _ in range(pairs):
            for name, side in sides.items():
                boots[name].append(side())
        sizes = {
            name: image.initrd.stat().st_size / 1e6
            for name, image in zip(sides, (ours, plain), strict=True)
        }
    table = Table("image", "first SSH, median", "best", "worst", "sshd listens", "initramfs")
    medians = {}
    for name, those in boots.items():
        seconds = [run.ssh for run in those]
        listens = statistics.median(run.listens for run in those)
        medians[name] = (statistics.median(seconds), listens)
        figures = (medians[name][0], min(seconds), max(seconds), listens)
        table.add_row(name, *(f"{figure:.1f} s" for figure in figures), f"{sizes[name]:.1f} MB")
    ssh, listens = (a / b for a, b in zip(*medians.values(), strict=True))
    table.add_row("ratio", f"{ssh:.2f}", "", f"goal {GOAL}", f"{listens:.2f}", "")
    console.print(table)
    for name, those in boots.items():
        console.print(f"\n{name}: systemd-analyze, the last boot; active services at the end")
        console.print(those[-1].systemd)


if __name__ == "__main__":
    main()
