"""Images that no build finished: what the ledger knows of them, then the end of what is too late.

A row may say more than the cloud: what Packer made after whoever began it had died becomes an image
that lasts. So images go last, and none that a row calls ready.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from vmrunner.core.reap_plan import Deletion
from vmrunner.engine.context import log
from vmrunner.errors import VmrunnerError
from vmrunner.model import Death, ImageState, Kind, MadeImage, Ref
from vmrunner.providers.port_images import KeepsImages

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.providers import Provider


def is_image(kill: Deletion) -> bool:
    """True if it is the end of an image whose time is over."""
    return kill.ref.kind is Kind.IMAGE and kill.reason is Death.EXPIRED


def settle(ledger: Ledger, provider: Provider, newborn: float) -> None:
    """Close the rows of images whose builders are gone: those are no instances."""
    if any(row.provider == provider.name for row in ledger.images.open()):
        from vmrunner.images.cloud import cleanup  # with all that makes images: seldom needed

        cleanup.settle(ledger, provider, newborn)


def spared(
    ledger: Ledger | None, provider: Provider, kills: Collection[Deletion]
) -> list[Deletion]:
    """Return the kills without those of images that a row calls ready: whoever wrote that did not
    take their mark away, which is done here. A ledger that does not answer spares nothing."""
    if ledger is None or not any(map(is_image, kills)):
        return list(kills)
    try:
        ready = [row for row in ledger.images.list() if row.state is ImageState.READY]
    except VmrunnerError as error:
        log.warning("images past their time, without the ledger: %s", error)
        return list(kills)
    rest = []
    for kill in kills:
        row = next((row for row in ready if _is(row, kill.ref)), None)
        if row is None:
            rest.append(kill)
        else:
            _finish(provider, row)
    return rest


def _is(row: MadeImage, ref: Ref) -> bool:
    """True if this is the row's image: its reference is the resource's id, or ends with it."""
    same = (row.scope.kind, row.scope.account) == (ref.scope.kind, ref.scope.account)
    return same and ref.kind is Kind.IMAGE and f"/{row.ref}".endswith(f"/{ref.id}")


def _finish(provider: Provider, row: MadeImage) -> None:
    try:
        if isinstance(provider, KeepsImages):
            imaging = provider.imaging(row.scope)
            made = imaging.find(row.ref or row.name)
            if made is not None:
                imaging.finish(made)
    except VmrunnerError as error:
        log.warning("image %s is finished, and its mark stays: %s", row.id, error)
