"""The image that builds get by default: which hash it has as this version of vmrunner makes it.

To work that out takes what reads recipes, so the hash is remembered by the files that it follows
from (`config/remembered.py`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from vmrunner.config import remembered
from vmrunner.lib import resources
from vmrunner.lib.local_images import DEFAULT, LocalImage


@cache
def current() -> str:
    """The hash of the default image. Asked once: an engine that an upgrade passed by goes on with
    the image that belongs to its own code."""
    name = _name()
    kept = remembered.read(name)
    if isinstance(kept, str):
        return kept
    from vmrunner.images import recipe

    found = recipe.image_hash(recipe.find(DEFAULT), recipe.Inputs.read())
    remembered.write(name, found)
    return found


def speaks_ours(image: LocalImage) -> bool:
    """True if the supervisor in this image is ours, byte by byte. Of an image by another recipe,
    more cannot be known."""
    return image.hash == current() or dict(image.supervisor) == _supervisor()


@cache
def _supervisor() -> Mapping[str, str]:
    from vmrunner.images.recipe import Inputs

    files = Inputs.read().supervisor
    return {name: hashlib.sha256(text).hexdigest() for name, text in files.items()}


def _name() -> str:
    """A hash of all that ends in the image, and of the code that makes its hash of that."""
    found = hashlib.sha256(b"image")
    for path in sorted(_files()):
        text = path.read_bytes()
        found.update(b"%d %b %d\0" % (len(str(path)), str(path).encode(), len(text)))
        found.update(text)
    return found.hexdigest()


def _files() -> Iterator[Path]:
    yield Path(__file__).with_name("recipe.py")
    yield from resources.GUEST.glob("[!.]*.*")
    yield from (path for path in resources.path("packer").rglob("*") if path.is_file())
