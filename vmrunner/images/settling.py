"""The end of an image's builder, and of its row."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vmrunner.deleting import delete
from vmrunner.errors import VmrunnerError
from vmrunner.model import ImageState, Key, Kind, MadeImage, Power, Ref
from vmrunner.providers.imaging import IMAGE, Imaging, Keeps

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.providers import Provider

log = logging.getLogger("vmrunner")

_ROUNDS: Final = 30  # looks at a builder that should be gone
_ROUND: Final = 2.0  # seconds between them


def settle(ledger: Ledger, provider: Provider, newborn: float) -> None:
    """Close the rows of builders that are gone; of those past their deadline, say first what became
    of the image. A builder that nobody ever saw counts as gone `newborn` seconds past that."""
    for row in ledger.images.open():
        now = provider.now()
        if row.provider != provider.name or row.scope not in provider.scopes:
            continue
        if row.state is ImageState.BUILDING:
            if now <= row.deadline or not isinstance(provider, Keeps):
                continue
            _learn(ledger, provider.imaging(), row)
        seen = provider.look([_key(row)]).get(_key(row))
        dead = seen is not None and seen.power is Power.DEAD
        if dead or (seen is None and now > row.deadline + newborn):
            _close(ledger, provider, row)


def _learn(ledger: Ledger, imaging: Imaging, row: MadeImage) -> None:
    """Whoever drove Packer is gone. The image may have come to be all the same."""
    made = next((i for i in imaging.images() if i.tags.get(IMAGE) == row.id and i.ready), None)
    if made is not None:
        ledger.images.ready(row.id, made.ref, made.snapshots)
    else:
        ledger.images.fail(row.id, "its builder was past its deadline")


def bury(
    ledger: Ledger, provider: Provider, row: MadeImage, sleep: Callable[[float], object]
) -> None:
    """Packer has ended, and should have ended its builder. What is still there is deleted; what is
    seen dead closes the row, and nothing else does. Raises nothing."""
    try:
        for _ in range(_ROUNDS):
            seen = provider.look([_key(row)]).get(_key(row))
            if seen is None:
                return
            if seen.power is Power.DEAD:
                _close(ledger, provider, row)
                return
            if seen.power is not Power.STOPPING:
                delete(provider, [seen.ref])
            sleep(_ROUND)
        why = "it is still there"
    except VmrunnerError as error:
        why = str(error)
    log.warning("the builder %s is not seen gone: %s; its deadline ends it", row.builder, why)


def _close(ledger: Ledger, provider: Provider, row: MadeImage) -> None:
    """On Compute Engine Packer detaches the builder's disk, to make the image of it: it goes by the
    builder's name, and may have no labels."""
    if row.scope.kind == "gce":
        disk = Ref(row.scope, Kind.DISK, row.builder)
        outcome = delete(provider, [disk])[disk]
        if outcome.error:
            log.warning("the builder's disk %s: %s", row.builder, outcome.error)
            return
    ledger.images.close(row.id, provider.now())


def _key(row: MadeImage) -> Key:
    """On Compute Engine a VM's name is ours, so that its end is on record by it."""
    return Key(row.scope, row.builder, row.builder if row.scope.kind == "gce" else None)
