"""Our tags as labels, which take no colon, and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vmrunner.model import TAG, Order, tags_of

PREFIX: Final = "vmrunner-"
#: vmrunner's own labels on one resource.
OURS: Final = 7


def labels_of(order: Order) -> dict[str, str]:
    """Labels of every resource created for this order. It has a name anyway."""
    return labels(tags_of(order))


def labels(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of ours as labels; what is not ours is left out. A value has no dots there."""
    return {
        PREFIX + key.removeprefix(TAG): value.replace(".", "_")
        for key, value in tags.items()
        if key.startswith(TAG)
    }


def tags(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of a resource, in the core's words."""
    return {
        TAG + key.removeprefix(PREFIX) if key.startswith(PREFIX) else key: value
        for key, value in labels.items()
    }


def label(name: str) -> str:
    return PREFIX + name
