"""A disk as Packer's qemu source leaves it becomes a local image: the root's partition alone, the
newest kernel in it, a manifest that the store takes."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import pytest

from vmrunner.errors import ConfigError, ImageError
from vmrunner.images.local import from_packer
from vmrunner.lib import local_images

MIB = 1 << 20
HASH = "0123456789abcdef0123"
ROOT = (4 * MIB, 24 * MIB)  # start, size
BOOT = (2 * MIB, 1 * MIB)
SBOM = '{"components": []}'
KERNELS = ("6.12.9+deb13-cloud-amd64", "6.12.10+deb13-cloud-amd64")
LINUX = bytes(range(16))  # any type but none


def run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


def table(*partitions: tuple[int, int]) -> bytes:
    """A GPT's first 34 sectors, as far as anybody reads them here."""
    header = b"EFI PART" + bytes(64) + struct.pack("<QII", 2, 128, 128)
    entries = b"".join(
        LINUX + bytes(16) + struct.pack("<QQ", start // 512, (start + size) // 512 - 1) + bytes(80)
        for start, size in partitions
    )
    return (bytes(512) + header.ljust(512, b"\0") + entries).ljust(34 * 512, b"\0")


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    place = tmp_path / "stage"
    (place / "supervisor" / "guest").mkdir(parents=True)
    (place / "supervisor" / "supervisor").write_text("#!/usr/bin/python3\n")
    (place / "supervisor" / "guest" / "container_files.py").write_text("")
    manifest = {"hash": HASH, "name": "default", "created": 1.0, "containers": ["debian:trixie"]}
    (place / "image.json").write_text(json.dumps(manifest))
    (place / "packages.txt").write_text("docker.io\ngit\n")
    return place


@pytest.fixture
def out(tmp_path: Path) -> Path:
    tree, place = tmp_path / "tree", tmp_path / "out"
    (tree / "boot").mkdir(parents=True)
    (tree / "etc/vmrunner").mkdir(parents=True)
    (tree / "etc/vmrunner/sbom.cdx.json").write_text(SBOM)
    place.mkdir()
    for version in KERNELS:
        (tree / "boot" / f"vmlinuz-{version}").write_text(f"kernel {version}")
        (tree / "boot" / f"initrd.img-{version}").write_text(f"initrd {version}")
    (tree / "boot" / "vmlinuz-6.13.0-half-removed").write_text("kernel without an initrd")
    root, raw = tmp_path / "root.ext4", tmp_path / "disk.raw"
    run("mke2fs", "-q", "-t", "ext4", "-d", tree, root, f"{ROOT[1] // 1024}k")
    with raw.open("wb") as file:
        file.truncate(32 * MIB)
        file.write(table(BOOT, ROOT))
        file.seek(ROOT[0])
        file.write(root.read_bytes())
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, place / "disk.qcow2")
    return place


def test_only_the_root_becomes_the_disk_beside_its_newest_kernel(
    out: Path, stage: Path, tmp_path: Path
) -> None:
    image = from_packer.adopt(out, stage, tmp_path / "cache")
    assert image == local_images.resolve(tmp_path / "cache", HASH)
    assert image.virtual_size == ROOT[1]
    assert image.kernel.read_text() == f"kernel {KERNELS[1]}"
    assert image.initrd.read_text() == f"initrd {KERNELS[1]}"
    assert image.packages == ("docker.io", "git")
    assert (image.directory / local_images.SBOM).read_text() == SBOM
    assert sorted(image.supervisor) == ["guest/container_files.py", "supervisor"]
    back = tmp_path / "back.raw"
    run("qemu-img", "convert", "-O", "raw", image.disk, back)
    assert back.read_bytes() == (tmp_path / "root.ext4").read_bytes()
    assert [path.name for path in image.directory.parent.iterdir()] == [HASH]


def test_one_that_is_there_is_not_replaced(out: Path, stage: Path, tmp_path: Path) -> None:
    from_packer.adopt(out, stage, tmp_path / "cache")
    with pytest.raises(ConfigError, match="is there already"):
        from_packer.adopt(out, stage, tmp_path / "cache")


def test_a_disk_without_a_kernel_is_refused_and_leaves_nothing(
    out: Path, stage: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "disk.raw"
    (tmp_path / "bare" / "boot").mkdir(parents=True)
    empty = tmp_path / "empty.ext4"
    run("mke2fs", "-q", "-t", "ext4", "-d", tmp_path / "bare", empty, f"{ROOT[1] // 1024}k")
    with raw.open("r+b") as file:
        file.seek(ROOT[0])
        file.write(empty.read_bytes())
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, out / "disk.qcow2")
    with pytest.raises(ImageError, match="no kernel with an initrd"):
        from_packer.adopt(out, stage, tmp_path / "cache")
    assert list((tmp_path / "cache" / "images").iterdir()) == []


def test_a_disk_without_partitions_is_refused(out: Path, stage: Path, tmp_path: Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", out / "disk.qcow2", "8M")
    with pytest.raises(ImageError, match="no partition table"):
        from_packer.adopt(out, stage, tmp_path / "cache")


@pytest.mark.parametrize("text", ["", "{}", '{"hash": "x"}'])
def test_a_stage_that_is_none_is_refused(out: Path, stage: Path, tmp_path: Path, text: str) -> None:
    (stage / "image.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        from_packer.adopt(out, stage, tmp_path / "cache")
    assert caught.value.hint == "make it: vmrunner image stage DIR"


def test_an_output_that_is_none_is_refused(stage: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"disk\.qcow2 is not there"):
        from_packer.adopt(tmp_path / "nowhere", stage, tmp_path / "cache")
