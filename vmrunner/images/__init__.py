"""Build, list and verify VM images."""

from __future__ import annotations

from vmrunner.images.build import Progress, build
from vmrunner.images.recipe import Container, Recipe, find, load
from vmrunner.providers.qemu.imagestore import LocalImage, images, resolve

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
]
