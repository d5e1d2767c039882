"""Local images in the user's cache, found by recipe hash or name, under any ledger.

    <cache>/images/<hash>/{image.json, disk.qcow2, vmlinuz, initrd.img, sbom.cdx.json}

A directory appears there by one rename when it is complete. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vmrunner.errors import BadOrder
from vmrunner.lib import cache_dirs

MANIFEST: Final = "image.json"
DISK: Final = "disk.qcow2"
KERNEL: Final = "vmlinuz"
INITRD: Final = "initrd.img"
SBOM: Final = "sbom.cdx.json"  # of the VM's packages, as it is inside; older images have none
FILES: Final = (DISK, KERNEL, INITRD)

#: What is being removed; a builder removes what is left of it.
GONE: Final = ".gone-"
#: The name that means: as this version of vmrunner makes it.
DEFAULT: Final = "default"

#: So many characters of a hash name an image.
LEAST: Final = 4

_BUILD: Final = "vmrunner image build"


class NotMade(BadOrder):
    """The default image is not there, or only one that another version of vmrunner made."""


@dataclass(frozen=True, kw_only=True)
class LocalImage:
    """One complete image. `size` is what it takes on disk, `virtual_size` the smallest disk that
    a VM of it can have, both in bytes; `created` is epoch seconds."""

    hash: str
    name: str
    directory: Path
    cmdline: str
    containers: tuple[str, ...]
    created: float
    size: int
    virtual_size: int
    sha256: Mapping[str, str] = field(default_factory=dict)  # of FILES: the hash is the recipe's
    supervisor: Mapping[str, str] = field(default_factory=dict)  # its files' sha256, by name
    announces: bool = False  # its console says when its sshd is there
    channel: bool = False  # it can take its identity from a port
    origins: Mapping[str, str] = field(default_factory=dict)  # what each container is made of
    packages: tuple[str, ...] | None = None  # Debian's, in the VM; None: it was not noted

    @property
    def disk(self) -> Path:
        return self.directory / DISK

    @property
    def kernel(self) -> Path:
        return self.directory / KERNEL

    @property
    def initrd(self) -> Path:
        return self.directory / INITRD


def images(cache: Path) -> list[LocalImage]:
    """Return all complete images, newest first. What is being built or damaged is not among them.
    Raises BadOrder when others may write the cache."""
    found = []
    for directory in _directories(cache):
        try:
            found.append(read(directory))
        except BadOrder:
            continue
    return sorted(found, key=lambda image: image.created, reverse=True)


def resolve(
    cache: Path, wanted: str | None = None, current: Callable[[], str] | None = None
) -> LocalImage:
    """The image with this name (the newest of that name), hash or unique start of a hash; None:
    the one named "default", else the newest. `current` gives the hash that the default recipe has
    now: then "default" is that very image, and an older one of the name counts as not there.

    Raises `NotMade` when the default recipe would make it; BadOrder with the fix when there is
    none or it is damaged: a damaged one is never passed over for another."""
    cache_dirs.check(cache, "images")
    is_default = wanted in (None, DEFAULT)
    if current is not None and is_default:
        made = cache / "images" / current()
        if made.is_dir():
            return read(made)  # nothing is asked of all the others
    directories = _directories(cache)
    hashes = [d for d in directories if wanted is not None and d.name.startswith(wanted)]
    if wanted is not None and len(wanted) >= LEAST and hashes:
        if len(hashes) > 1:
            raise BadOrder(
                f"image: {wanted!r} is the start of several", hint="give more of the hash"
            )
        return read(hashes[0])
    readable = [(manifest, d) for d in directories if (manifest := _glance(d)) is not None]
    if current is not None and is_default and any(m["name"] == DEFAULT for m, _ in readable):
        raise NotMade(
            f"image: the local image {DEFAULT!r} is of another version of vmrunner",
            hint=f"{_BUILD} makes this version's",
        )
    for name in [wanted] if wanted is not None else [DEFAULT, None]:
        dated = [(m["created"], d) for m, d in readable if name is None or m["name"] == name]
        if dated:
            return read(max(dated)[1])
    if wanted is None:
        raise NotMade("image: there is no local image yet", hint=f"{_BUILD} makes one")
    names = ", ".join(sorted({m["name"] for m, _ in readable})) or "none"
    if ":" in wanted or "/" in wanted:
        raise BadOrder(
            f"image: {wanted!r} is no VM image, which is what the VM boots from (there: {names})",
            hint=f"a container's image is another option: --container {wanted}, or `container:` in "
            "a job",
        )
    missing = NotMade if wanted == DEFAULT else BadOrder
    raise missing(
        f"image: {wanted!r} is not in {cache / 'images'}",
        hint=f"there: {names}; `{_BUILD}` makes one from a recipe",
    )


def used(image: LocalImage) -> None:
    """Note that a VM is made of it: what is used is not pruned."""
    with contextlib.suppress(OSError):  # a cache that is another's, and may only be read
        os.utime(image.directory)


def replaced(
    cache: Path, *, now: float, keep: float, named: Collection[str] = ()
) -> list[LocalImage]:
    """Images that a newer one of their name replaced and that were not used for `keep` seconds.
    `named`: hashes of those that stay, since builds will want them."""
    newest: set[str] = set()
    old = []
    for image in images(cache):
        newer = image.name in newest
        newest.add(image.name)
        if newer and image.hash not in named and now - last_used(image) >= keep:
            old.append(image)
    return old


def remove(image: LocalImage) -> None:
    """Gone at once, or not at all. A VM that runs keeps what it has open. Raises OSError."""
    rubbish = image.directory.with_name(f"{GONE}{image.hash}")
    shutil.rmtree(rubbish, ignore_errors=True)  # of one who died while removing the same
    image.directory.rename(rubbish)
    shutil.rmtree(rubbish)


def last_used(image: LocalImage) -> float:
    """Time when a VM was last made of it, or else it itself was; epoch seconds. Raises OSError."""
    return max(image.created, image.directory.stat().st_mtime)


def read(directory: Path) -> LocalImage:
    """The image in a directory, after the cheap check: every file has the size that it had.
    Raises BadOrder. (`vmrunner image verify` reads every byte.)"""
    manifest = manifest_of(directory)
    cache = directory.parent.parent
    for file in (MANIFEST, *FILES):
        cache_dirs.check(cache, "images", directory.name, file)
    try:
        files = {name: int(manifest["files"][name]["size"]) for name in FILES}
        image = LocalImage(
            hash=str(manifest["hash"]),
            name=str(manifest["name"]),
            directory=directory,
            cmdline=str(manifest["cmdline"]),
            containers=tuple(str(name) for name in manifest["containers"]),
            created=float(manifest["created"]),
            size=sum(files.values()),
            virtual_size=int(manifest["virtual_size"]),
            sha256={name: str(manifest["files"][name].get("sha256")) for name in FILES},
            supervisor=dict(manifest.get("supervisor", {})),
            announces=bool(manifest.get("announces")),
            channel=bool(manifest.get("channel")),
            origins=dict(manifest.get("origins", {})),
            packages=tuple(map(str, manifest["packages"])) if "packages" in manifest else None,
        )
    except (KeyError, TypeError, ValueError):
        raise damaged(directory, f"{MANIFEST} is incomplete") from None
    if image.hash != directory.name:
        raise damaged(directory, f"{MANIFEST} is of another image")
    for name, size in files.items():
        try:
            stored = (directory / name).stat().st_size
        except OSError:
            raise damaged(directory, f"{name} is missing") from None
        if stored != size:
            raise damaged(directory, f"{name} has {stored} bytes, not {size}")
    return image


def manifest_of(directory: Path) -> dict[str, Any]:
    """The manifest as it stands in the directory. Raises BadOrder when it cannot be read."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
    except (OSError, ValueError):
        raise damaged(directory, f"{MANIFEST} cannot be read") from None
    if not isinstance(manifest, dict):
        raise damaged(directory, f"{MANIFEST} is not a table")
    return manifest


def _glance(directory: Path) -> dict[str, Any] | None:
    try:
        manifest = manifest_of(directory)
        return {"name": str(manifest["name"]), "created": float(manifest["created"])}
    except (BadOrder, KeyError, TypeError, ValueError):
        return None


def _directories(cache: Path) -> list[Path]:
    cache_dirs.check(cache, "images")
    try:
        entries = sorted((cache / "images").iterdir())
    except OSError:
        return []
    return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]


def damaged(directory: Path, what: str) -> BadOrder:
    return BadOrder(
        f"image: {directory.name} is damaged: {what}",
        hint=f"remove {directory} and run `{_BUILD}`",
    )
