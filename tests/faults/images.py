"""Images in a fault world: their tags, those that anything else would have, and what must last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vmrunner.model import MORTAL, TAG, Role
from vmrunner.providers.port_images import BUILDER, FINISH_BY, OWNER, PROMOTED

_TAGS = {
    OWNER: f"{TAG}installation",
    BUILDER: f"{TAG}instance",
    FINISH_BY: f"{TAG}expires-at",
}


def marks(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of an image, from those of something else. What would not end has no mark."""
    image_tags = {mark: tags[tag] for mark, tag in _TAGS.items() if tag in tags}
    if tags.get(f"{TAG}role") not in MORTAL:
        image_tags.pop(FINISH_BY, None)
    return image_tags


def words(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that something else would have in its place. Nothing says when what lasts ends."""
    if FINISH_BY not in tags or PROMOTED in tags:
        return {}
    other_tags = {tag: tags[mark] for mark, tag in _TAGS.items() if mark in tags}
    return {**other_tags, f"{TAG}role": Role.IMAGE.value}


def lasting(installation: str) -> Iterator[dict[str, str]]:
    """Yield the tags of images that are nearly leftovers of this installation's, and must last."""
    mark = {OWNER: installation, BUILDER: "vm-builder", FINISH_BY: "1"}
    yield mark | {PROMOTED: "1"}  # by a version that knew no mark
    for other in (installation[:-1], f"{installation}0", ""):
        yield mark | {OWNER: other}
    yield {BUILDER: "vm-builder", FINISH_BY: "1"}
    # Finished, with all that its builder had.
    builders = {"installation": installation, "role": Role.IMAGE.value, "expires-at": "1"}
    yield {OWNER: installation} | {TAG + name: value for name, value in builders.items()}
