"""The end of an image's builder, of what a build that failed left of its image, and of the row.

An AMI that Packer was broken off waiting for has no tags yet: the row's name for it, which no other
build has, is all that it can be found by. So a row is closed only when nothing is there under it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from vmrunner.errors import ProviderError, Throttled, Uncertain, VmrunnerError
from vmrunner.model import ImageState, Key, Kind, MadeImage, Power, Ref
from vmrunner.providers import registry
from vmrunner.providers.deletion import delete_each, delete_until_dead
from vmrunner.providers.port_images import IMAGE, CloudImage, ImageStore, KeepsImages

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.providers import Provider

log = logging.getLogger("vmrunner")

_SECONDS: Final = 60.0  # to end a builder that should be gone, and then to delete what it left
_ROUND: Final = 2.0  # seconds between two looks


def settle(ledger: Ledger, provider: Provider, newborn: float) -> None:
    """Close the rows of builders that are dead; of those past their deadline, say first what became
    of the image. A builder that was never seen counts as dead `newborn` seconds past that."""
    for row in ledger.images.open():
        if row.provider == provider.name and row.scope in provider.scopes:
            try:
                _settle(ledger, provider, row, newborn)
            except ProviderError as error:  # of one image; the next sweep asks again
                log.warning("image %s: %s", row.id, error)


def _settle(ledger: Ledger, provider: Provider, row: MadeImage, newborn: float) -> None:
    now = provider.now()
    if row.state is ImageState.BUILDING:
        if now <= row.deadline or not isinstance(provider, KeepsImages):
            return
        _learn(ledger, provider.imaging(row.scope), row, now > row.deadline + newborn)
    trouble = _clear(ledger, provider, row)
    if trouble:
        log.warning("image %s, which failed, is still there: %s", row.id, trouble)
        return
    seen = provider.look([_key(row)]).get(_key(row))
    dead = seen is not None and seen.power is Power.DEAD
    if dead or (seen is None and now > row.deadline + newborn):
        _close(ledger, provider, row)


def _learn(ledger: Ledger, imaging: ImageStore, row: MadeImage, late: bool) -> None:
    """Look for the image of a row whose Packer runs no more. The image may have come to be all the
    same: it has our tags then. One with tags that is not ready is still being made, unless it is
    `late`; then it has failed as well where we may not finish it."""
    why = "its builder was past its deadline"
    made = imaging.find(row.name)
    if made is not None and made.tags.get(IMAGE) == row.id:
        if made.ready:
            try:
                imaging.finish(made)
            except (Throttled, Uncertain):
                raise
            except ProviderError as error:
                if not late:
                    raise
                why = f"it cannot be finished: {error}"
            else:
                ledger.images.ready(row.id, made.ref, made.snapshots)
                return
        elif not late:
            return
    ledger.images.fail(row.id, why)


def delete_leftovers(
    ledger: Ledger, provider: Provider, row: MadeImage, sleep: Callable[[float], object]
) -> None:
    """Packer has ended, and should have ended its builder. What is still there is deleted, of a
    build that failed its image too; what is seen dead closes the row, and nothing else does. Raises
    nothing."""
    try:
        progress = delete_until_dead(
            provider, {_key(row): None}, seconds=_SECONDS, pause=_ROUND, sleep=sleep
        )
        for _ in range(int(_SECONDS / _ROUND)):
            why = _clear(ledger, provider, row)
            if not why:
                break
            sleep(_ROUND)
        if not why and not progress.waiting and not progress.refused:
            if progress.dead:
                _close(ledger, provider, row)
            return
        why = why or progress.refused or f"its builder {row.builder} is still there"
    except VmrunnerError as error:
        why = str(error)
    log.warning("image %s is not cleared up after: %s; the reaper goes on", row.id, why)


def _clear(ledger: Ledger, provider: Provider, row: MadeImage) -> str:
    """Delete what a build that failed left under its image's name; why not, in words. Its reference
    is written down first: a snapshot whose AMI is gone can be found by nothing else."""
    row = ledger.images.find(row.id)
    if row.state is not ImageState.FAILED or not isinstance(provider, KeepsImages):
        return ""
    imaging = provider.imaging(row.scope)
    try:
        image = imaging.find_by_name(row.name)
        if image is not None and _its(image, row, ledger.installation):
            snapshots = tuple(dict.fromkeys((*row.snapshots, *image.snapshots)))
            ledger.images.record_leftovers(row.id, image.ref, snapshots)
        elif row.ref is not None:
            image = CloudImage(ref=row.ref, name=row.name, created=row.created_at, tags={})
            snapshots = row.snapshots
        else:
            return ""
        troubles = imaging.remove(replace(image, snapshots=snapshots))
    except ProviderError as error:
        return str(error)
    if not troubles:
        ledger.images.record_leftovers(row.id, None, ())
    return "; ".join(troubles)


def _its(made: CloudImage, row: MadeImage, installation: str) -> bool:
    """True if this image is the row's. One without any tags is, by its name."""
    mine = made.installation in ("", installation) and made.tags.get(IMAGE, row.id) == row.id
    return mine and not made.promoted


def _close(ledger: Ledger, provider: Provider, row: MadeImage) -> None:
    """Close the row, but not while the fate of the image is unknown. Packer may detach the
    builder's disk, to make the image of it: where disks go by their VM's name it is deleted by
    that, since it may have no labels."""
    if ledger.images.find(row.id).state is ImageState.BUILDING:
        return
    if _named(row):
        disk = Ref(row.scope, Kind.DISK, row.builder)
        outcome = delete_each(provider, [disk])[disk]
        if outcome.error:
            log.warning("the builder's disk %s: %s", row.builder, outcome.error)
            return
    ledger.images.close(row.id, provider.now())


def _key(row: MadeImage) -> Key:
    """Return the VM's key. Where its id is its name, and so ours, its end is on record by it."""
    return Key(row.scope, row.builder, row.builder if _named(row) else None)


def _named(row: MadeImage) -> bool:
    driver = registry.find(row.scope.kind)
    return driver is not None and driver.ids_are_names
