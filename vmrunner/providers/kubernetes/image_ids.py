"""Digests of images that a node pulled, out of what it tells of its containers. Pure."""

from __future__ import annotations

import re
from typing import Final

#: A node that pulled nothing, as of an image that was loaded there, tells a bare digest: that of
#: the image's configuration, by which no registry gives it.
_ID: Final = re.compile(r"(?:docker-pullable://)?([^@\s]+)@(sha256:[0-9a-f]{64})")
_HUB: Final = "docker.io"


def pinned(image: str, image_id: str) -> str | None:
    """The image by its digest. `image`: as the pod has it, to which an admission webhook may have
    added one. `image_id`: a container's `imageID`. None: the container has not begun, or the node
    had its image from elsewhere, and nothing says that the image's own registry has that digest."""
    if image_id and "@" in image:
        return image
    found = _ID.fullmatch(image_id)
    if found is None or _place(found[1]) != _place(image):
        return None
    return f"{_untagged(image)}@{found[2]}"


def _untagged(image: str) -> str:
    head, slash, last = image.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _place(image: str) -> str:
    """Registry and repository, as nodes write them in full."""
    name = _untagged(image)
    first, slash, rest = name.partition("/")
    if not slash or not (set(".:") & set(first) or first == "localhost"):
        first, rest = _HUB, name
    if first not in (_HUB, f"index.{_HUB}"):
        return name
    return f"{_HUB}/{rest}" if "/" in rest else f"{_HUB}/library/{rest}"
