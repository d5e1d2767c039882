"""Build, list and verify VM images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrunner.images.build import Progress, build
from vmrunner.images.recipe import Container, Recipe, find, load
from vmrunner.providers.qemu.imagestore import LocalImage, images, resolve

if TYPE_CHECKING:
    from vmrunner.model import Finding

__all__ = [
    "Container",
    "LocalImage",
    "Progress",
    "Recipe",
    "build",
    "find",
    "images",
    "load",
    "resolve",
    "verify",
]


def verify(image: LocalImage, *, accel: str = "auto") -> list[Finding]:
    """One finding a check: every byte is read, then the image is booted and looked at."""
    from vmrunner.images import checks  # brings the whole SSH library, which `ls` need not wait for

    return checks.verify(image, accel=accel)
