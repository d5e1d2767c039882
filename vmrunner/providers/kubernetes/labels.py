"""Our tags as labels, which take no colon, and back; and who owns what. Pure.

A user's own tags fit no label's alphabet: they are one annotation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from vmrunner.model import TAG, Order, tags_of

PREFIX: Final = "vmrunner/"
#: The annotation that tells which order an object is of, and the one with the user's own tags.
ORDER: Final = "vmrunner/order"
USER_TAGS: Final = "vmrunner/tags"
#: By it a network policy knows its pods and VMs.
NETWORK: Final = "vmrunner/network"

JSON = Mapping[str, Any]


def labels_of(order: Order) -> dict[str, str]:
    """Labels of every object made for this order, by which it is found and judged."""
    return {
        PREFIX + key.removeprefix(TAG): value
        for key, value in tags_of(order).items()
        if key.startswith(TAG)
    }


def tags(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of an object, in the core's words."""
    return {
        TAG + key.removeprefix(PREFIX) if key.startswith(PREFIX) else key: value
        for key, value in labels.items()
    }


def digest(order: Order) -> str:
    """Digest of what an order asks for. The seconds of its deadline are counted at each call, so
    that of these only the deadline itself is in it."""
    facts = [
        order.instance,
        order.build,
        order.installation,
        order.generation,
        order.role.value,
        str(order.offer.scope),
        order.offer.machine_type,
        order.offer.image,
        int(order.deadline),
        hashlib.sha256(order.user_data).hexdigest(),
        str(order.network),
        order.shape.container if order.shape else "",
        order.pool or "",
    ]
    text = json.dumps(facts, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def same_order(shown: JSON, order: Order) -> bool:
    """True if an object is of this very order, by installation, generation and digest."""
    meta = shown.get("metadata", {})
    labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
    return (
        labels.get(f"{PREFIX}installation") == order.installation
        and labels.get(f"{PREFIX}generation") == order.generation
        and notes.get(ORDER) == digest(order)
    )


def job_owner(meta: JSON) -> str | None:
    """Uid of the Job that owns an object; None: none does."""
    owners = meta.get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("kind") == "Job"), None)


def instance_id(meta: JSON) -> str:
    """The id of a VM or pod: its name, and the uid of its Job, or its own where it has none. So
    another of that name is another instance."""
    return f"{meta['name']}/{job_owner(meta) or meta['uid']}"


def split(ref: str) -> tuple[str, str]:
    """Name and uid of an id."""
    name, _, uid = ref.partition("/")
    return name, uid
