"""Build, list and verify VM images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from vmrunner.images.local.builder import Progress, build
from vmrunner.images.recipe import Container, Inputs, Recipe, find, image_hash, load
from vmrunner.lib.local_images import DEFAULT, LocalImage, NotMade, images, resolve

if TYPE_CHECKING:
    from vmrunner.model import Finding

__all__ = [
    "DEFAULT",
    "Container",
    "LocalImage",
    "NotMade",
    "Progress",
    "Recipe",
    "build",
    "current",
    "find",
    "images",
    "load",
    "resolve",
    "speaks_ours",
    "verify",
]


@cache
def current() -> str:
    """The hash that the default image has as this version of vmrunner makes it. Asked once: an
    engine that an upgrade passed by goes on with the image that belongs to its own code."""
    return image_hash(find(DEFAULT), Inputs.read())


def speaks_ours(image: LocalImage) -> bool:
    """True if the supervisor in this image is ours, byte by byte. Of an image by another recipe,
    more cannot be known."""
    return image.hash == current() or dict(image.supervisor) == _supervisor()


@cache
def _supervisor() -> Mapping[str, str]:
    files = Inputs.read().supervisor
    return {name: hashlib.sha256(text).hexdigest() for name, text in files.items()}


def verify(image: LocalImage) -> list[Finding]:
    """Verify an image and return one finding a check: every byte is read, then the image is booted
    and looked at."""
    # It brings the whole SSH library, which `ls` need not wait for.
    from vmrunner.images.verification import checks

    return checks.verify(image)
