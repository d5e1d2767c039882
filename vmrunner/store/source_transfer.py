"""Packed sources into the store, and out of it to where a build is driven."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.errors import NotFound, StoreError
from vmrunner.model import LOCAL_TENANT, BuildRecord, ObjectKind
from vmrunner.store import ObjectStore, digest_of
from vmrunner.store.fetch import fetched
from vmrunner.store.put import put

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

_TRIES: Final = 3


class SourceTransfer:
    """Sources of one ledger. `place` has what this host needs of them: those that are still to be
    uploaded, and a cache of those that came from a bucket."""

    def __init__(
        self,
        ledger: Ledger,
        store: Callable[[], ObjectStore],
        place: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._place = place
        self._clock = clock

    def store(self, file: Path, *, tenant: str = LOCAL_TENANT) -> str:
        """See to it that the tenant has these bytes in the store for a day at least, or for as long
        as a build is to have them; return their digest, by which a build names them. Identical
        bytes of one tenant are one object. Raises StoreError."""
        digest, objects = digest_of(file), self._ledger.objects
        for _ in range(_TRIES):
            if objects.renewed_source(tenant, digest, self._clock()) is not None:
                return digest
            item = put(
                self._ledger, self._store(), ObjectKind.SOURCE, file,
                digest=digest, now=self._clock(), tenant=tenant,
            )  # fmt: skip
            if objects.conclude_source(item.name, self._clock()):
                return digest
        raise StoreError(f"source {digest} vanishes as soon as it is stored", hint="see its clock")

    def find(self, digest: str, *, tenant: str) -> None:
        """See whether the tenant has a source of this digest, and keep it for another day. Raises
        NotFound."""
        if self._ledger.objects.renewed_source(tenant, digest, self._clock()) is None:
            raise NotFound(
                f"source: nothing with the digest {digest} was uploaded",
                hint="PUT /api/v1/sources first",
            )

    def again(self, build: BuildRecord, *, tenant: str) -> str:
        """Return the digest of a build's source for another build of this tenant. Raises NotFound
        where it is gone, or another tenant's."""
        if build.source_object is None:
            raise NotFound(f"the source of {build.id} was never stored")
        digest = self._ledger.objects.get(build.source_object).digest
        self.find(digest, tenant=tenant)
        return digest

    def fetch(self, build: BuildRecord) -> Path | None:
        """The packed source of a build, as a file of this host whose hash was checked; None where
        it has none. Raises StoreError when it cannot be had now, or is damaged."""
        if build.source_object is None:
            spool = self._place / f"{build.id}.tar"  # of a vmrunner that had no store
            return spool if spool.exists() else None
        try:
            digest = self._ledger.objects.get(build.source_object).digest
            return fetched(self._store(), self._place, build.source_object, digest)
        except NotFound as error:
            raise StoreError(
                f"the source of {build.id} is gone: {error.args[0]}",
                hint="submit it again; see who else deletes in the store",
            ) from error

    def adopt(self, build: BuildRecord, spool: Path) -> None:
        """Store the source of a build that waits since a vmrunner that had no store."""
        digest = self.store(spool, tenant=build.tenant)
        if self._ledger.objects.adopt_source(build.id, build.tenant, digest):
            spool.unlink(missing_ok=True)
