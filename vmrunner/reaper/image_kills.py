"""Images that no build finished: what the ledger knows of them, then the end of what is too late.

A row may say more than the cloud: what Packer made after its builder had died becomes an image that
lasts. So images go last, and none that a row calls ready; and no VM waits for what a ledger or a
cloud says of an image.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from vmrunner.core.reap_plan import Deletion
from vmrunner.engine.context import log
from vmrunner.errors import VmrunnerError
from vmrunner.model import Death, ImageState, Kind, MadeImage
from vmrunner.providers.port_images import KeepsImages
from vmrunner.reaper.kills import kill
from vmrunner.reaper.report import Outcomes

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.providers import Provider

#: So long past its builder's deadline an image waits until its row could be asked for, in seconds.
ASKED: Final = 86_400.0


def is_image(kill: Deletion) -> bool:
    """True if it is the end of an image whose time is over."""
    return kill.ref.kind is Kind.IMAGE and kill.reason is Death.EXPIRED


def settle(ledger: Ledger, provider: Provider, newborn: float) -> None:
    """Close the rows of images whose builders are gone: those are no instances."""
    if any(row.provider == provider.name for row in ledger.images.open()):
        from vmrunner.images.cloud import cleanup  # with all that makes images: seldom needed

        cleanup.settle(ledger, provider, newborn)


def end(ledger: Ledger | None, provider: Provider, kills: Iterable[Deletion]) -> Outcomes:
    """Delete the images of these kills, but none that a row calls ready."""
    ending = [deletion for deletion in kills if is_image(deletion)]
    return kill(provider, spared(ledger, provider, ending)) if ending else {}


def spared(
    ledger: Ledger | None, provider: Provider, kills: Collection[Deletion]
) -> list[Deletion]:
    """The kills of images without those that a row calls ready: its writer did not take their mark
    away, which is done here. Nor those of which the outcome is not known yet: it asks again, for a
    day, and then they are ready, or have failed. A ledger that does not answer spares nothing."""
    if ledger is None:
        return list(kills)
    try:
        rows = ledger.images.list()
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing vetoes an end past a deadline
        log.warning("images past their time, without the ledger: %s", error)
        return list(kills)
    rest, now = [], provider.now()
    for ending in kills:
        row = next((row for row in rows if _is(row, ending)), None)
        if row is not None and row.state is ImageState.READY:
            _finish(provider, row)
        elif row is None or row.state is not ImageState.BUILDING or now > row.deadline + ASKED:
            rest.append(ending)
    return rest


def _is(row: MadeImage, kill: Deletion) -> bool:
    """True if this is the row's image: its reference is the resource's id, or ends with it. Before
    it has one the image is known by its builder."""
    ref = kill.ref
    same = (row.scope.kind, row.scope.account) == (ref.scope.kind, ref.scope.account)
    if row.ref is None:
        return same and row.builder == kill.instance
    return same and f"/{row.ref}".endswith(f"/{ref.id}")


def _finish(provider: Provider, row: MadeImage) -> None:
    try:
        if isinstance(provider, KeepsImages):
            imaging = provider.imaging(row.scope)
            made = imaging.find(row.ref or row.name)
            if made is not None:
                imaging.finish(made)
    except VmrunnerError as error:
        log.warning("image %s is finished, and its mark stays: %s", row.id, error)
