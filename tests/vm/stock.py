"""A plain Debian with cloud-init, as the clouds have it: nothing of ours is in it, and no Docker.

Its apt knows one source, a directory in itself: a VM of a test's reaches no mirror."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

from vmrunner.images import disk, paxnames, roots
from vmrunner.images.tools import Programs
from vmrunner.providers.qemu import imagestore

SUITE: Final = "trixie"
SIZE: Final = 4 << 30
PACKAGES: Final = [
    *("ca-certificates", "cloud-init", "dbus", "iproute2", "kmod", "linux-image-cloud-amd64"),
    *(
        "e2fsprogs",
        "netbase",
        "netplan.io",
        "openssh-server",
        "systemd-resolved",
        "systemd-sysv",
        "udev",
    ),
]
#: What a VM of it will want to install.
WANTED: Final = "docker-cli docker.io iptables nftables"

_MIRROR: Final = """
set -eu
mkdir -p "$1/var/lib/mirror"
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -y --download-only --no-install-recommends install WANTED
mv "$1"/var/cache/apt/archives/*.deb "$1/var/lib/mirror/"
cd "$1/var/lib/mirror"
for deb in *.deb; do
    dpkg-deb -f "$deb"
    printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' \\
        "$deb" "$(stat -c %s "$deb")" "$(sha256sum <"$deb" | cut -d' ' -f1)"
done >Packages
rm -rf "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/var/lib/mirror ./' >"$1/etc/apt/sources.list"
"""


def build(cache: Path) -> str:
    """Make it in this cache of images; returns the name that it has there."""
    work = cache / "work"
    work.mkdir(parents=True)
    home = cache / "images" / "57ac4"
    home.mkdir(parents=True)
    root, raw, mirror = work / "root.tar", work / "disk.raw", work / "mirror.sh"
    mirror.write_text(_MIRROR.replace("WANTED", WANTED))
    programs = Programs()
    roots._mmdebstrap(
        SUITE,
        PACKAGES,
        to=root,
        tmp=roots.scratch(cache),
        what="making a plain Debian",
        programs=programs,
        report=lambda *_: None,
        hooks=[f'--customize-hook=sh {mirror} "$1"'],
    )
    paxnames.mark(root)
    disk.make(root, raw, SIZE, programs)
    disk.extract_kernel(root, home)
    disk.convert(raw, home / imagestore.DISK, programs)
    roots.scratch(cache).rmdir()
    raw.unlink()
    root.unlink()
    manifest = {
        "name": "stock",
        "hash": home.name,
        "created": time.time(),
        "containers": [],
        "cmdline": disk.CMDLINE,
        "virtual_size": SIZE,
        "files": {name: {"size": (home / name).stat().st_size} for name in imagestore.FILES},
    }
    (home / imagestore.MANIFEST).write_text(json.dumps(manifest))
    return "stock"
