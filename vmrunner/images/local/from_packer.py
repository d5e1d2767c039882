"""An image that Packer's qemu source made, brought into the cache as a local one.

    python -m vmrunner.images.local.from_packer OUT STAGE

A vendor's disk has partitions; here a VM's disk is one file system, and its kernel comes from
outside. So the root's partition is cut out, and the kernel that lies in it is put beside it.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from vmrunner.config.paths import cache_path
from vmrunner.errors import ConfigError, ImageError, VmrunnerError
from vmrunner.images.local import disk
from vmrunner.images.local.builder import facts
from vmrunner.images.local.programs import ChildPrograms, require
from vmrunner.lib import cache_dirs, local_images, private_dirs
from vmrunner.lib.local_images import LocalImage

_SECTOR: Final = 512
_HEAD: Final = 34 * _SECTOR  # the protective MBR, GPT's header and 128 entries
_TIMEOUT: Final = 900.0
_STAGE: Final = "make it: vmrunner image stage DIR"


def adopt(out: Path, stage: Path, cache: Path) -> LocalImage:
    """The image of this Packer output, made from this stage. Raises ConfigError for what the user
    can mend, ImageError when the disk is not as the templates leave it."""
    require("qemu-img", "debugfs", "e2fsck")
    manifest = _manifest(stage)
    final = cache / "images" / manifest["hash"]
    if final.exists():
        raise ConfigError(
            f"image: {manifest['hash']} is there already", hint=f"remove {final}, or use it"
        )
    source = out / local_images.DISK
    if not source.is_file():
        raise ConfigError(f"packer: {source} is not there", hint="give Packer's qemu_output_dir")
    cache_dirs.make(cache, "images")
    programs = ChildPrograms()
    try:
        with (
            private_dirs.guarded(),
            TemporaryDirectory(prefix=".packed-", dir=final.parent) as place,
        ):
            new = Path(place) / "image"
            new.mkdir()
            raw = Path(place) / "root.raw"
            start, size = _root(source, Path(place), programs)
            _cut(source, raw, start, size, programs)
            programs.run(["e2fsck", "-f", "-n", str(raw)], what="checking the root", timeout=600)
            _kernel(raw, new, programs)
            disk.convert(raw, new / local_images.DISK, programs)
            sbom = disk.read(raw, disk.SBOM, Path(place), programs)
            if sbom is not None:
                (new / local_images.SBOM).write_bytes(sbom)
            whole = {
                **manifest,
                "packages": (stage / "packages.txt").read_text().split(),
                "supervisor": _supervisor(stage),
                "cmdline": disk.CMDLINE,
                "virtual_size": size,
                "files": {name: facts(new / name) for name in local_images.FILES},
            }
            (new / local_images.MANIFEST).write_text(json.dumps(whole, indent=1) + "\n")
            new.chmod(0o755)
            new.rename(final)
    finally:
        programs.stop()
    return local_images.read(final)


def partitions(head: bytes) -> list[tuple[int, int]]:
    """(start, size) in bytes of each partition of a GPT, by the disk's first 34 sectors."""
    header = head[_SECTOR : 2 * _SECTOR]
    if header[:8] != b"EFI PART":
        raise ImageError("packer: the disk has no partition table of the kind GPT")
    entries, count, length = struct.unpack_from("<QII", header, 72)
    found = []
    for number in range(min(count, 128)):
        at = entries * _SECTOR + number * length
        kind, first, last = struct.unpack_from("<16s16xQQ", head, at)
        if any(kind):
            found.append((first * _SECTOR, (last - first + 1) * _SECTOR))
    return found


# --- within -------------------------------------------------------------------------------------


def _manifest(stage: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads((stage / "image.json").read_text())
        missing = {"hash", "name", "created", "containers"} - set(read)
    except (OSError, ValueError) as error:
        raise ConfigError(f"stage: {stage}: {error}", hint=_STAGE) from None
    if missing:
        raise ConfigError(f"stage: image.json has no {', '.join(sorted(missing))}", hint=_STAGE)
    return read


def _supervisor(stage: Path) -> Mapping[str, str]:
    base = stage / "supervisor"
    files = sorted(path for path in base.rglob("*") if path.is_file())
    return {str(p.relative_to(base)): sha256(p.read_bytes()).hexdigest() for p in files}


def _root(source: Path, work: Path, programs: ChildPrograms) -> tuple[int, int]:
    """The largest partition is the root's: the others boot a vendor's own way."""
    head = work / "head"
    _cut(source, head, 0, _HEAD, programs)
    found = partitions(head.read_bytes())
    if not found:
        raise ImageError("packer: the disk has no partitions")
    return max(found, key=lambda partition: partition[1])


def _cut(source: Path, to: Path, start: int, size: int, programs: ChildPrograms) -> None:
    """A part of a qcow2's content as a raw, sparse file."""
    name = str(source).replace(",", ",,")
    options = (
        f"driver=raw,offset={start},size={size},"
        f"file.driver=qcow2,file.file.driver=file,file.file.filename={name}"
    )
    argv = ["qemu-img", "convert", "-O", "raw", "--image-opts", options, str(to)]
    programs.run(argv, what="cutting out the root", timeout=_TIMEOUT)


def _kernel(raw: Path, to: Path, programs: ChildPrograms) -> None:
    """The newest kernel of the root's /boot, with its initrd."""
    argv = ["debugfs", "-R", "ls -p /boot", str(raw)]
    listed = programs.run(argv, what="reading the root", timeout=120)
    names = {line.split("/")[5] for line in listed.splitlines() if line.count("/") >= 6}
    versions = [
        name.removeprefix("vmlinuz-")
        for name in names
        if name.startswith("vmlinuz-") and f"initrd.img-{name.removeprefix('vmlinuz-')}" in names
    ]
    if not versions:
        raise ImageError("packer: the root has no kernel with an initrd in /boot")
    newest = max(versions, key=_natural)
    for what, name in (("vmlinuz", local_images.KERNEL), ("initrd.img", local_images.INITRD)):
        argv = ["debugfs", "-R", f"dump /boot/{what}-{newest} {name}", str(raw)]
        programs.run(argv, what=f"reading {what}", timeout=120, cwd=to)
        if not (to / name).is_file() or not (to / name).stat().st_size:
            raise ImageError(f"packer: /boot/{what}-{newest} cannot be read")


def _natural(version: str) -> list[tuple[int, str]]:
    """6.12.9 before 6.12.10."""
    parts = version.replace("-", ".").replace("+", ".").split(".")
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def main(out: str, stage: str) -> int:
    """The image's hash on standard output; 1 and what is wrong on standard error."""
    try:
        image = adopt(Path(out), Path(stage), cache_path())
    except VmrunnerError as error:
        hint = f"\n  {error.hint}" if error.hint else ""
        sys.stderr.write(f"packed: {error}{hint}\n")
        return 1
    sys.stdout.write(f"{image.hash}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
