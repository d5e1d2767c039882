"""Boot to the first SSH: the image that builds boot against the same packages untrimmed.

The untrimmed one is what Debian's packages make of themselves: the same packages and what Debian's
cloud images add, every service as its package enables it (Docker at boot among them), the stock
initramfs, all of cloud-init's modules and datasources, the network by netplan. Both boot in the
same provider, on the same machine type, in turns. Goal: a ratio of at most 0.6.

    .venv/bin/python bench/boot.py [--pairs 5]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from vmrunner.images import Inputs, disk, find, resolve, roots, trial
from vmrunner.images.tools import Programs
from vmrunner.providers.qemu import imagestore
from vmrunner.providers.qemu.imagestore import LocalImage

GOAL = 0.6
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vmrunner"
SIZE = 8 << 30

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
    recipe = replace(find("default"), packages=PACKAGES, disk=SIZE)
    inputs = replace(Inputs.read(), scripts={"05-initramfs.sh": b"", "10-plain.sh": PLAIN})
    work, programs = cache / "work", Programs()
    home = cache / "images" / ("0" * 20)
    for place in (home, work):
        place.mkdir(parents=True)
    root, raw = work / "root.tar", work / "disk.raw"
    scratch = roots.scratch(cache)
    roots.vm_root(recipe, inputs, to=root, tmp=scratch, programs=programs, report=lambda *_: None)
    scratch.rmdir()
    disk.make(root, raw, SIZE, programs)
    disk.extract_kernel(root, home)
    disk.convert(raw, home / imagestore.DISK, programs)
    shutil.rmtree(work)
    manifest = {
        "name": "untrimmed",
        "hash": home.name,
        "created": time.time(),
        "containers": [],
        "cmdline": disk.CMDLINE,
        "virtual_size": SIZE,
        "files": {name: {"size": (home / name).stat().st_size} for name in imagestore.FILES},
    }
    (home / imagestore.MANIFEST).write_text(json.dumps(manifest))
    return imagestore.read(home)


def whole(user_data: bytes) -> bytes:
    """The same keys and timer, and every module of cloud-init's."""
    document = yaml.safe_load(user_data)
    kept = {key: value for key, value in document.items() if key not in TRIMMING}
    return b"#cloud-config\n" + yaml.safe_dump(kept, sort_keys=False).encode()


def boot(image: LocalImage, *, trimmed: bool) -> tuple[float, str]:
    """Seconds to the first SSH, and what systemd says of this boot once it is over."""
    reshape = (lambda data: data) if trimmed else whole
    with trial.vm(image, "auto", reshape=reshape) as (connection, seconds):
        told = connection.run(
            "systemctl is-system-running --wait >/dev/null; systemd-analyze time | head -1; "
            "systemd-analyze blame --no-pager | head -12; "
            "systemctl list-units --type=service --state=active,exited --no-legend --plain | wc -l",
            timeout=600,
        )
    return seconds, told.stdout.decode()


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
        took: dict[str, list[float]] = {name: [] for name in sides}
        told = {}
        for _ in range(pairs):
            for name, side in sides.items():
                seconds, told[name] = side()
                took[name].append(seconds)
        sizes = {
            name: image.initrd.stat().st_size / 1e6
            for name, image in zip(sides, (ours, plain), strict=True)
        }
    table = Table("image", "median", "best", "worst", "initramfs")
    for name, seconds in took.items():
        figures = (statistics.median(seconds), min(seconds), max(seconds))
        table.add_row(name, *(f"{figure:.1f} s" for figure in figures), f"{sizes[name]:.1f} MB")
    ratio = statistics.median(took["trimmed"]) / statistics.median(took["untrimmed"])
    table.add_row("ratio", f"{ratio:.2f}", "", f"goal {GOAL}", "")
    console.print(table)
    for name, words in told.items():
        console.print(f"\n{name}: systemd-analyze, the last boot; active services at the end")
        console.print(words)


if __name__ == "__main__":
    main()
