"""Garbage collection in the store.

What has a row is deleted once nothing pointed at it for a day. What has none may be another
ledger's, or of a past that this one was set back from: it stays for as long as anything is kept,
and if it is much, until an operator has looked.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmrunner.core.reap_plan import Sighting, SightingKind
from vmrunner.errors import StoreError
from vmrunner.lib import ids
from vmrunner.model import ObjectState, StoredObject
from vmrunner.store import DeletesMany, ListedObject, ObjectStore

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

log = logging.getLogger("vmrunner.serve")

UNREFERENCED: Final = 86_400.0  # seconds without a reference, until it goes
FAILURES: Final = 3  # deletions in a row that failed, until it is asked whether the store is there
ORPHAN_CAP: Final = 100  # objects without a row that go at once without being looked at
_PAGE: Final = 256
#: Under which the latch is remembered: no provider can be called that.
_STORE: Final = "store:"


@dataclass(kw_only=True, slots=True)
class CollectedGarbage:
    """Objects that went, or would, and those that are held back."""

    count: int = 0
    size: int = 0  # bytes
    held: int = 0
    failed: int = 0  # that the store did not let go of


class ObjectGc:
    """Garbage collection for one ledger. `keep`: so long what a build leaves is kept. `shared`:
    other ledgers, as a copy of this one, may have objects in the store."""

    def __init__(
        self,
        ledger: Ledger,
        store: Callable[[], ObjectStore],
        *,
        keep: float,
        shared: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._open = store
        self._keep = max(keep, UNREFERENCED)
        self._shared = shared
        self._clock = clock
        self._in_row = 0  # deletions that failed, one after the other
        self._ours = f"{ledger.installation}/{ledger.generation}/"

    def run(self, *, dry_run: bool = False, orphans: bool = False) -> CollectedGarbage:
        """Collect once. `orphans`: also what the cap holds back. An object that the store does not
        let go of keeps no other; a store that is out of reach is left for the next time."""
        total, self._in_row = CollectedGarbage(), 0
        try:
            store = self._open()
            self._rows(store, total, dry_run=dry_run)
            self._orphans(store, total, dry_run=dry_run, release=orphans)
        except StoreError as error:
            log.warning("gc: %s", error)
        return total

    def _delete(self, store: ObjectStore, name: str, total: CollectedGarbage) -> bool:
        """Delete one object. False: the store does not let go of it. Raises StoreError when that
        was so several times in a row, and the store cannot be listed either."""
        try:
            store.delete(name)
        except StoreError as error:
            total.failed += 1
            self._in_row += 1
            log.warning("gc: %s stays: %s", name, error)
            if self._in_row % FAILURES == 0:
                next(iter(store.list(f"{self._ledger.installation}/")), None)
            return False
        self._in_row = 0
        return True

    # --- objects with a row ---

    def _rows(self, store: ObjectStore, total: CollectedGarbage, *, dry_run: bool) -> None:
        now, after = self._clock(), ""
        begun = list[StoredObject]()  # to delete, once at least: last, since these may fail again
        while page := self._ledger.objects.page(after):
            after = page[-1][0].name
            if not dry_run:
                self._mark(page, now)
            begun += (row for row, _ in page if row.state is ObjectState.DELETING)
            over = [
                row
                for row, referenced in page
                if row.state is not ObjectState.DELETING
                and not referenced
                and self._is_over(row, now)
            ]
            self._collect(store, over, total, now, dry_run=dry_run)
        for first in range(0, len(begun), _PAGE):
            self._collect(store, begun[first : first + _PAGE], total, now, dry_run=dry_run)

    def _mark(self, page: list[tuple[StoredObject, bool]], now: float) -> None:
        stored = [(row, yes) for row, yes in page if row.state is ObjectState.STORED]
        self._ledger.objects.mark(
            [row.name for row, yes in stored if not yes and row.unreferenced_since is None],
            [row.name for row, yes in stored if yes and row.unreferenced_since is not None],
            now,
        )

    def _is_over(self, row: StoredObject, now: float) -> bool:
        """Say whether its time is over. One of another generation may be what the ledger that this
        one was copied from still points at: it stays for as long as anything does."""
        if row.unreferenced_since is None or row.unreferenced_since >= now - UNREFERENCED:
            return False
        ours = not self._shared or row.name.startswith(self._ours)
        return ours or row.created_at < now - self._keep

    def _collect(
        self,
        store: ObjectStore,
        rows: Sequence[StoredObject],
        total: CollectedGarbage,
        now: float,
        *,
        dry_run: bool,
    ) -> None:
        """Delete the objects of these rows, and then the rows."""
        if not dry_run:
            objects = self._ledger.objects
            fresh = [row.name for row in rows if row.state is not ObjectState.DELETING]
            # Something may point at some by now.
            marked = objects.mark_deleting(*fresh, unreferenced_before=now - UNREFERENCED)
            names = [
                row.name for row in rows if row.state is ObjectState.DELETING or row.name in marked
            ]
            gone = self._delete_all(store, names, total)
            objects.forget(*gone)
            rows = [row for row in rows if row.name in gone]
        total.count += len(rows)
        total.size += sum(row.size for row in rows)

    def _delete_all(
        self, store: ObjectStore, names: Sequence[str], total: CollectedGarbage
    ) -> set[str]:
        """Delete objects; return the names of those that are gone. Raises as `_delete`."""
        if isinstance(store, DeletesMany) and len(names) > 1:
            try:
                store.delete_all(names)
            except StoreError as error:
                log.info("gc: %s; each by itself", error)
            else:
                self._in_row = 0
                return set(names)
        return {name for name in names if self._delete(store, name, total)}

    # --- objects without one ---

    def _orphans(
        self, store: ObjectStore, total: CollectedGarbage, *, dry_run: bool, release: bool
    ) -> None:
        found = list(self._unknown(store))
        sightings = self._ledger.sightings
        latched = bool(sightings.list(_STORE, [store.url]))
        if found and not release and (latched or len(found) > ORPHAN_CAP):
            total.held = len(found)
            if not dry_run and not latched:
                sightings.record(_STORE, [store.url], [self._latch(store)])
            log.warning(
                "gc: %d objects below %s are in no row of this ledger (cap %d): none is deleted, "
                "unless by `vmrunner gc --orphans`",
                len(found),
                f"{store.url}/{self._ledger.installation}",
                ORPHAN_CAP,
            )
            return
        if latched and not dry_run:
            sightings.record(_STORE, [store.url], ())
        for item in found:
            if not dry_run:
                if not self._delete(store, item.name, total):
                    continue
                log.info("gc: %s is deleted: no row has it", item.name)
            total.count += 1
            total.size += item.size

    def _latch(self, store: ObjectStore) -> Sighting:
        return Sighting(
            what=SightingKind.LATCH,
            subject=store.url,
            place=store.url,
            sweep=ids.sweep_id(),
            begun=self._clock(),
        )

    def _unknown(self, store: ObjectStore) -> Iterator[ListedObject]:
        """Yield what is older than anything that is kept, and has no row. The store is listed
        first: what is put meanwhile has its row before."""
        before = self._clock() - self._keep
        listed = (o for o in store.list(f"{self._ledger.installation}/") if o.modified < before)
        ordered = iter(sorted(listed, key=lambda item: item.name))
        after = ""
        while page := list(itertools.islice(ordered, _PAGE)):
            names = self._ledger.objects.known(after, page[-1].name)
            yield from (item for item in page if item.name not in names)
            after = page[-1].name
