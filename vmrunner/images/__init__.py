"""Build, list and verify VM images."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from vmrunner.images.current_image import current, speaks_ours
from vmrunner.lib.local_images import DEFAULT, LocalImage, NotMade, images, resolve

if TYPE_CHECKING:
    from vmrunner.images.local.builder import Progress, build
    from vmrunner.images.recipe import Container, Inputs, Recipe, find, load
    from vmrunner.model import Finding

__all__ = [
    "DEFAULT",
    "Container",
    "Inputs",
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

#: What is loaded when it is first used: a build whose image is there needs none of it.
_LATE: Final = {
    **dict.fromkeys(("Progress", "build"), "vmrunner.images.local.builder"),
    **dict.fromkeys(("Container", "Inputs", "Recipe", "find", "load"), "vmrunner.images.recipe"),
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return globals().setdefault(name, getattr(importlib.import_module(_LATE[name]), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def verify(image: LocalImage) -> list[Finding]:
    """Verify an image and return one finding a check: every byte is read, then the image is booted
    and looked at."""
    # It brings the whole SSH library, which `ls` need not wait for.
    from vmrunner.images.verification import checks

    return checks.verify(image)
