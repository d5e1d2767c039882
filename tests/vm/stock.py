"""A plain Debian or Ubuntu with cloud-init, as the clouds have it: nothing of ours is in it, and no
Docker.

Its apt knows one source, a directory in itself: a VM of a test's reaches no mirror."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from vmrunner.images.local import disk, pax_names, rootfs
from vmrunner.images.local.programs import ChildPrograms
from vmrunner.lib import local_images
from vmrunner.lib.file_bytes import digest_of
from vmrunner.lib.local_images import LocalImage

SIZE: Final = 4 << 30
KEYRING: Final = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")


@dataclass(frozen=True)
class Distribution:
    """`wanted`: what a VM of it will want to install."""

    suite: str
    packages: tuple[str, ...]
    wanted: str
    hooks: tuple[str, ...] = ()


_BASE: Final = (
    *("ca-certificates", "cloud-init", "dbus", "e2fsprogs", "iproute2", "kmod", "netbase"),
    *("netplan.io", "openssh-server", "systemd-resolved", "systemd-sysv", "udev"),
)
DEBIAN: Final = Distribution(
    suite="trixie",
    packages=(*_BASE, "linux-image-cloud-amd64"),
    wanted="docker-cli docker.io iptables nftables",
)
UBUNTU: Final = Distribution(
    suite="noble",
    packages=(*_BASE, "initramfs-tools", "linux-image-virtual", "sudo"),
    wanted="docker.io iptables nftables",
    hooks=(f"--keyring={KEYRING}", "--components=main,universe"),
)

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


def build(cache: Path, of: Distribution) -> str:
    """Make it in this cache of images; returns the name that it has there."""
    if of is UBUNTU and not KEYRING.exists():
        pytest.fail("Ubuntu's keyring is missing: apt-get install ubuntu-keyring")
    work = cache / "work"
    work.mkdir(parents=True)
    root, mirror = work / "root.tar", work / "mirror.sh"
    mirror.write_text(_MIRROR.replace("WANTED", of.wanted))
    with root.open("wb") as file:
        rootfs._mmdebstrap(
            of.suite,
            list(of.packages),
            to=file,
            tmp=rootfs.scratch(cache),
            what=f"making a plain {of.suite}",
            programs=ChildPrograms(),
            report=lambda *_: None,
            hooks=[*of.hooks, f'--customize-hook=sh {mirror} "$1"'],
        )
    rootfs.scratch(cache).rmdir()
    return from_root(cache, root, "stock").name


def from_root(cache: Path, root: Path, name: str) -> LocalImage:
    """An image of nothing but this root, a tar, which goes; in this cache, under this name."""
    home, raw, programs = (
        cache / "images" / ("57ac4" + "0" * 15),
        root.with_suffix(".raw"),
        ChildPrograms(),
    )
    home.mkdir(parents=True)
    disk.make(lambda to: pax_names.copy(root, to), raw, SIZE, programs)
    disk.extract_kernel(root, home)
    disk.convert(raw, home / local_images.DISK, programs)
    raw.unlink()
    root.unlink()
    manifest = {
        "name": name,
        "hash": home.name,
        "created": time.time(),
        "containers": [],
        "cmdline": disk.CMDLINE,
        "virtual_size": SIZE,
        "files": {name: _file(home / name) for name in local_images.FILES},
    }
    (home / local_images.MANIFEST).write_text(json.dumps(manifest))
    return local_images.read(home)


def _file(path: Path) -> dict[str, object]:
    return {"size": path.stat().st_size, "sha256": digest_of(path)}
