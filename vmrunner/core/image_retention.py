"""The choice of images to delete. Pure: images in, a verdict on each out; a dry run is "do not
apply"."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum


class RetentionReason(StrEnum):
    """Reason why an image stays, or goes."""

    FOREIGN = "foreign"  # another installation's, or without an owner
    UNFINISHED = "unfinished"  # it is being made
    PROMOTED = "promoted"  # builds get it
    IN_USE = "in use"  # a VM was made from it, or is about to be
    NEWEST = "newest"  # among the newest of its name
    OLD = "old"  # none of these: it goes


@dataclass(frozen=True, kw_only=True, slots=True)
class RetainedImage:
    """One image, as far as it is known. `name`: of its recipe; `mine`: this installation made
    it."""

    ref: str
    name: str
    created: float  # epoch seconds
    mine: bool = True
    ready: bool = True
    promoted: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RetentionVerdict:
    """The verdict on one image."""

    image: RetainedImage
    why: RetentionReason

    @property
    def goes(self) -> bool:
        return self.why is RetentionReason.OLD


def plan(
    images: Iterable[RetainedImage], *, keep: int, in_use: Collection[str]
) -> tuple[RetentionVerdict, ...]:
    """A verdict on each, newest first. Of each name the `keep` newest that are ready and ours stay,
    whatever else keeps them."""
    order = sorted(images, key=lambda image: (image.created, image.ref), reverse=True)
    counted: dict[str, int] = {}
    verdicts = []
    for image in order:
        rank = counted.get(image.name, 0)
        if image.mine and image.ready:
            counted[image.name] = rank + 1
        verdicts.append(RetentionVerdict(image=image, why=_why(image, rank < keep, in_use)))
    return tuple(verdicts)


def _why(image: RetainedImage, newest: bool, in_use: Collection[str]) -> RetentionReason:
    if not image.mine:
        return RetentionReason.FOREIGN
    if not image.ready:
        return RetentionReason.UNFINISHED
    if image.promoted:
        return RetentionReason.PROMOTED
    if image.ref in in_use:
        return RetentionReason.IN_USE
    return RetentionReason.NEWEST if newest else RetentionReason.OLD
