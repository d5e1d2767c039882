"""Integrity of an image: each of its files is what was built, before a VM boots from it.

A file's sha256 is computed once and noted with its inode, size and times of change, which cannot be
set at will; as long as these are the same, so is the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from vmrunner.lib import local_images
from vmrunner.lib.file_bytes import digest_of
from vmrunner.lib.local_images import LocalImage
from vmrunner.providers.qemu import state_dir

NOTES: Final = "verified.json"


def check(image: LocalImage, notes: Path) -> None:
    """Raises BadOrder with the file and the fix. `notes`: where what was found before is kept."""
    recorded = local_images.manifest_of(image.directory)["files"]
    wanted = {image.directory / name: recorded[name].get("sha256") for name in local_images.FILES}
    if different := first_difference(wanted, notes):
        path, digest = different
        raise local_images.damaged(
            image.directory, f"{path.name} is not what was built: its sha256 is {digest[:16]}…"
        )


def first_difference(wanted: Mapping[Path, str], notes: Path) -> tuple[Path, str] | None:
    """Compare files with their sha256. Returns the first that differs, with what it has."""
    recorded = state_dir.read_json(notes) or {}
    found: dict[str, Any] = {}
    for path, expected in wanted.items():
        seen = _seen(path)
        match recorded.get(str(path)):
            case [*before, str(digest)] if before == list(seen):
                pass
            case _:
                digest = digest_of(path)
        if digest != expected:
            return path, digest
        found[str(path)] = [*seen, digest]
    if any(recorded.get(path) != fact for path, fact in found.items()):
        still_present = {path: fact for path, fact in recorded.items() if _there(path)}
        with contextlib.suppress(OSError):  # another time, then
            state_dir.write_json(notes, {**still_present, **found})
    return None


def _there(path: str) -> bool:
    """True if that file is there; another user's may not be asked for, in a cache that was
    copied."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def _seen(path: Path) -> Sequence[int]:
    """Return the facts without which a file cannot be changed."""
    stat = path.stat()
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
