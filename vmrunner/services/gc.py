"""The removal of what has outlived its use on this host."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from vmrunner.errors import Conflict
from vmrunner.images import retention
from vmrunner.lib import local_images, process
from vmrunner.providers.settings import LocalSettings
from vmrunner.reaper.clock_witness import believe_clock, clock_doubt
from vmrunner.reaper.retention import Removal, retain, size_of
from vmrunner.store.object_gc import ObjectGc

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmrunner.config.paths import Paths
    from vmrunner.config.settings import Settings
    from vmrunner.ledger import Ledger
    from vmrunner.store import ObjectStore

log = logging.getLogger("vmrunner")


def gc(
    ledger: Ledger,
    settings: Settings,
    paths: Paths,
    store: Callable[[], ObjectStore],
    *,
    dry_run: bool = False,
    orphans: bool = False,
    trust_clock: bool = False,
    by: str | None = "",
) -> list[Removal]:
    """Remove what has outlived its build for as long as it or the configuration says, what nothing
    in the store needs, and local images that a newer one of their name replaced and that no
    build uses and no configuration names. `orphans`: also objects without a row that the cap holds
    back. `by`: for whom, else this process's user; None: no request, and no action is noted. Raises
    Conflict where the time is in doubt; `trust_clock`: the caller says that it is right."""
    doubt = clock_doubt(ledger)
    if doubt and not (dry_run or trust_clock):
        raise Conflict(
            f"nothing was removed: {doubt}",
            hint="see `date`; if it is right: vmrunner gc --trust-clock, or wait a day",
        )
    if doubt and trust_clock:
        believe_clock(ledger, process.user())
    now = ledger.engines.now
    keep = settings.reaper.keep_logs
    removed = [
        *retain(
            ledger,
            ObjectGc(ledger, store, keep=keep, shared=bool(settings.store.url), clock=now),
            sources=paths.sources,
            artifacts=paths.artifacts,
            keep=keep,
            keep_caches=settings.caches.keep,
            keep_rows=settings.retention.rows,
            now=now(),
            dry_run=dry_run,
            orphans=orphans,
        ),
        gc_images(ledger, settings, paths, dry_run=dry_run),
    ]
    if by is not None and not dry_run:
        detail = "orphans" if orphans else ""
        ledger.actions.add(by or process.user(), "gc", "all", time.time(), detail)
    return removed


def gc_images(
    ledger: Ledger, settings: Settings, paths: Paths, *, dry_run: bool = False
) -> Removal:
    """Remove the latter alone."""
    configured = {
        section.image
        for section in settings.providers.values()
        if isinstance(section, LocalSettings)
    }
    references = {reference for reference in (*configured, *retention.wanted(ledger)) if reference}
    found = local_images.images(paths.cache)
    named = {digest for reference in references for digest in retention.matching(found, reference)}
    old = local_images.replaced(
        paths.cache, now=time.time(), keep=settings.reaper.keep_images, named=named
    )
    size = sum(size_of(image.directory) for image in old)
    for image in () if dry_run else old:
        local_images.remove(image)
        log.info("retention: image %s (%s) is removed", image.name, image.hash[:12])
    return Removal("images", len(old), size)
