"""Promotion and removal of images: facts are gathered, `core/image_retention.py` decides, the
provider deletes."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmrunner.core import image_retention
from vmrunner.core.image_retention import RetainedImage, RetentionVerdict
from vmrunner.errors import Conflict, NotFound, ProviderError, Unreadable
from vmrunner.images import recipe
from vmrunner.images.cloud.builder import imaging_of
from vmrunner.images.recipe import Inputs
from vmrunner.lib import local_images, process
from vmrunner.lib.local_images import LocalImage
from vmrunner.providers.port_images import SUPERVISOR, CloudImage, ImageStore

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.providers import Provider


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageOutcome:
    """A verdict, and what became of it. `trouble`: what could not be deleted, in words."""

    verdict: RetentionVerdict
    title: str  # the image's own name
    trouble: str = ""
    removed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageGcResult:
    """The result of one round. `troubles`: of what earlier rounds left."""

    images: tuple[ImageOutcome, ...]
    troubles: tuple[str, ...] = ()


def promote(ledger: Ledger, provider: Provider, word: str) -> tuple[CloudImage, str]:
    """Give builds of this provider that name no image this one, from now on. Return a warning, or
    "". `word`: the cloud's name of it. Raises NotFound, Conflict for one that is not ours or not
    ready, and ConfigError when the provider's configuration does not choose it."""
    imaging = imaging_of(provider)
    made = imaging.find(word)
    if made is None:
        raise NotFound(f"there is no image {word!r}", hint="vmrunner image ls lists ours")
    if made.installation != ledger.installation:
        whose = f"made by installation {made.installation}" if made.installation else "not ours"
        raise Conflict(
            f"image {made.ref} is {whose}",
            hint=f"name it in providers.{provider.name}.image instead",
        )
    if not made.ready:
        raise Conflict(f"image {made.ref} is not ready", hint="wait, or promote another")
    imaging.promote(made, provider.now())
    ledger.images.promote(provider.name, made.ref, provider.now())
    ledger.actions.add(process.user(), "image-promote", made.ref, time.time(), provider.name)
    ours = recipe.supervisor_hash(Inputs.read())
    if made.tags.get(SUPERVISOR) == ours:
        return made, ""
    return made, f"image {made.ref} has the supervisor of another version of vmrunner"


def clear(
    ledger: Ledger, provider: Provider, *, peers: Sequence[Provider], keep: int, dry_run: bool
) -> ImageGcResult:
    """Retire what is old of this installation's images at a provider. `peers`: all that are
    configured of its kind, itself among them; they may share a cloud, and what one of them gives to
    builds is in use. Raises ProviderError when not all can be listed or asked, Unreadable as
    `wanted` does: then nothing is touched."""
    imaging = imaging_of(provider)
    images = imaging.images()
    candidates = [_image(made, ledger.installation) for made in images]
    verdicts = image_retention.plan(
        candidates, keep=keep, in_use=_used(ledger, imaging, peers, images)
    )
    by_ref = {made.ref: made for made in images}
    if dry_run:
        return ImageGcResult(
            images=tuple(ImageOutcome(verdict=v, title=by_ref[v.image.ref].name) for v in verdicts)
        )
    done = [_retire(ledger, provider.name, imaging, v, by_ref[v.image.ref]) for v in verdicts]
    ledger.actions.add(process.user(), "image-gc", provider.name, time.time(), f"keep {keep}")
    remaining = [by_ref[outcome.verdict.image.ref] for outcome in done if not outcome.removed]
    try:
        troubles = imaging.leftovers(remaining, provider.now())
    except ProviderError as error:
        troubles = [str(error)]
    return ImageGcResult(images=tuple(done), troubles=tuple(troubles))


def clear_local(
    images: Sequence[LocalImage], *, chosen: Collection[str], used: Collection[str], keep: int,
    dry_run: bool,
) -> ImageGcResult:  # fmt: skip
    """Delete old images of the cache. `chosen`: hashes that builds get; `used`: that VMs may
    have."""
    by_hash = {image.hash: image for image in images}
    candidates = [
        RetainedImage(ref=i.hash, name=i.name, created=i.created, promoted=i.hash in chosen)
        for i in images
    ]
    done = []
    for verdict in image_retention.plan(candidates, keep=keep, in_use=used):
        image, trouble, removed = by_hash[verdict.image.ref], "", False
        if verdict.goes and not dry_run:
            try:
                local_images.remove(image)
                removed = True
            except OSError as error:
                trouble = str(error)
        done.append(
            ImageOutcome(verdict=verdict, title=image.name, trouble=trouble, removed=removed)
        )
    return ImageGcResult(images=tuple(done))


def wanted(ledger: Ledger) -> frozenset[str]:
    """Images of the open VMs, and the names by which builds that are not over call their images.
    Raises Unreadable when a row may name any."""
    rows, builds = ledger.instances.open(), ledger.builds.list(active=True)
    if unread := sorted(rows.unread | builds.unread):
        raise Unreadable(
            f"the rows of {', '.join(unread)} cannot be read, and may name any image: none is "
            "deleted",
            hint="use the version of vmrunner that wrote them, or end them first",
        )
    return frozenset(filter(None, [r.offer.image for r in rows] + [b.spec.image for b in builds]))


def matching(images: Sequence[LocalImage], word: str) -> frozenset[str]:
    """The hashes of the local images that a build may get which calls its image so. All that begin
    so: when one went, the word would mean another."""
    newest = max((i.created for i in images if i.name == word), default=None)
    return frozenset(
        i.hash
        for i in images
        if (i.name == word and i.created == newest)
        or (len(word) >= local_images.LEAST and i.hash.startswith(word))
    )


def _image(made: CloudImage, installation: str) -> RetainedImage:
    return RetainedImage(
        ref=made.ref,
        name=made.recipe,
        created=made.created,
        mine=made.installation == installation,
        ready=made.ready,
        promoted=made.promoted,
    )


def _used(
    ledger: Ledger, imaging: ImageStore, peers: Sequence[Provider], images: Sequence[CloudImage]
) -> frozenset[str]:
    """Return the images in use: by the cloud's machines, the ledger's, builds that wait, and the
    configuration."""
    words = (None, *sorted(wanted(ledger)))
    used = set(imaging.in_use())
    for peer in peers:
        theirs = imaging_of(peer)
        try:
            used.update(*(theirs.chosen(images, word) for word in words))
        except ProviderError as error:
            raise type(error)(f"providers.{peer.name}: {error}; no image is deleted") from error
    return frozenset(used)


def _retire(
    ledger: Ledger, name: str, imaging: ImageStore, verdict: RetentionVerdict, made: CloudImage
) -> ImageOutcome:
    if not verdict.goes:
        return ImageOutcome(verdict=verdict, title=made.name)
    try:
        troubles = imaging.remove(made)
    except ProviderError as error:
        return ImageOutcome(verdict=verdict, title=made.name, trouble=str(error))
    ledger.images.retire(name, made.ref)
    return ImageOutcome(verdict=verdict, title=made.name, trouble="; ".join(troubles), removed=True)
