"""Caches out of the store to where a build is driven, and back.

What the session brought lies in a file whose name says the build, the epoch and which of its caches
it is. It is stored only once the ledger says that this build succeeded, at that epoch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.errors import DamagedObject, NotFound, StoreError
from vmrunner.lib import private_dirs, units
from vmrunner.model import (
    BuildRecord,
    CacheOutcome,
    CacheRule,
    CacheScope,
    EventKind,
    FoundCache,
    ObjectKind,
    Result,
    StoredCache,
    StoredObject,
)
from vmrunner.store import ObjectStore, digest_of
from vmrunner.store.fetch import check_room, fetched
from vmrunner.store.put import put

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmrunner.ledger import Ledger

SUFFIX: Final = ".cache"
COPY: Final = ".copy"  # what came from a bucket, for builds that are driven here
IN_USE: Final = 3600.0  # seconds for which a copy is on its way into a VM at most


@dataclass(frozen=True, kw_only=True, slots=True)
class CachePolicy:
    """The configuration's part of caches. `scope`: labels whose values part them; `fallback`:
    labels of scopes that every build may read too."""

    scope: Sequence[str] = ()
    fallback: Sequence[Mapping[str, str]] = ()
    most: int = 2 << 30  # bytes of one
    tenant_most: int = 20 << 30
    total_most: int = 200 << 30

    def of(self, build: BuildRecord) -> CacheScope:
        """The scopes whose caches a build may see. A label that it has not counts as empty."""
        mine = {name: build.spec.labels.get(name, "") for name in self.scope}
        others = [_text({**mine, **labels}) for labels in self.fallback]
        own = _text(mine)
        return CacheScope(
            tenant=build.tenant,
            own=own,
            others=tuple(dict.fromkeys(scope for scope in others if scope != own)),
        )


def _text(labels: Mapping[str, str]) -> str:
    return json.dumps(labels, sort_keys=True) if labels else ""


class BuildCacheShelf:
    """The caches of one build."""

    def __init__(self, transfer: CacheTransfer, build: BuildRecord) -> None:
        self._transfer = transfer
        self._build = build
        self.most = transfer.policy().most

    def find(self, rule: CacheRule, until: float) -> FoundCache | None:
        return self._transfer.find(self._build, rule, until)

    def file(self, number: int, size: int) -> Path:
        return self._transfer.file(self._build, number, size)


class CacheTransfer:
    """Caches of one ledger. `place` has what this host needs of them."""

    def __init__(
        self,
        ledger: Ledger,
        store: Callable[[], ObjectStore],
        place: Path,
        policy: Callable[[], CachePolicy],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._place = place
        self.policy = policy
        self._clock = clock

    def of(self, build: BuildRecord) -> BuildCacheShelf:
        return BuildCacheShelf(self, build)

    def find(self, build: BuildRecord, rule: CacheRule, until: float) -> FoundCache | None:
        """Return the cache that a build gets, as a file of this host whose hash was checked. One
        that is damaged or gone is forgotten. Raises StoreError; LedgerError."""
        caches = self._ledger.caches
        found = caches.find(self.policy().of(build), rule, self._clock())
        if found is None:
            return None
        try:
            self._make_way(found)
            path = fetched(
                self._store(), self._place, found.object, found.digest,
                size=found.size, suffix=COPY, until=until,
            )  # fmt: skip
        except (DamagedObject, NotFound) as error:
            caches.forget_object(found.object)
            raise StoreError(f"the cache {found.id} is lost: {error.args[0]}") from error
        exact = found.key == rule.key
        return FoundCache(key=found.key, exact=exact, path=path, size=found.size)

    def _make_way(self, new: StoredCache) -> None:
        """Let go of copies that were not used for longest, until one more has room among as much as
        a tenant may have."""
        own = f"{new.digest}{COPY}"
        others = (path for path in self._place.glob(f"*{COPY}") if path.name != own)
        copies = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in others)
        remaining = self.policy().tenant_most - new.size - sum(size for _, size, _ in copies)
        for used, size, path in copies:
            if remaining >= 0 or used > self._clock() - IN_USE:
                break
            path.unlink(missing_ok=True)
            remaining += size

    def file(self, build: BuildRecord, number: int, size: int) -> Path:
        """Return the file to bring a packed cache to, by the owner of this epoch. Raises StoreError
        where there is no room for it."""
        check_room(self._place, size)
        return private_dirs.make(self._place) / f"{build.id}.{build.epoch}.{number}{SUFFIX}"

    def keep(self, file: Path, build: BuildRecord) -> None:
        """Store what was brought of a build that has ended, if it succeeded, and remove the file.
        Raises StoreError: then it stays for another time."""
        _, epoch, number, _ = file.name.split(".")
        rules = build.spec.caches
        if (
            build.result is Result.SUCCESS
            and int(epoch) == build.epoch
            and int(number) < len(rules)
        ):
            self._keep(file, build, rules[int(number)])
        file.unlink(missing_ok=True)

    def _put(self, file: Path, build: BuildRecord, rule: CacheRule) -> StoredObject:
        try:
            return put(
                self._ledger, self._store(), ObjectKind.CACHE, file,
                digest=digest_of(file), now=self._clock(), tenant=build.tenant,
            )  # fmt: skip
        except StoreError as error:
            events = self._ledger.events.list(build.id)
            if not any(event.data.get("later") == rule.path for event in events):
                self._tell(
                    build, rule, CacheOutcome.NOT_SAVED,
                    message=f"it is tried again later: {error}"[:300], later=rule.path,
                )  # fmt: skip
            raise

    def _tell(
        self, build: BuildRecord, rule: CacheRule, outcome: CacheOutcome, **data: str | int
    ) -> None:
        self._ledger.events.add(
            build.id, EventKind.CACHE, self._clock(), outcome=outcome.value,
            path=rule.path, key=rule.key, **data,
        )  # fmt: skip

    def _keep(self, file: Path, build: BuildRecord, rule: CacheRule) -> None:
        policy = self.policy()
        for tenant, most in ((build.tenant, policy.tenant_most), (None, policy.total_most)):
            let_go = self._ledger.caches.let_go(tenant)
            if let_go + file.stat().st_size > most:
                self._tell(
                    build, rule, CacheOutcome.NOT_SAVED,
                    message=f"{units.amount(let_go)} of former caches wait in the store for their "
                    f"end, and no more than {units.amount(most)} may with this one",
                )  # fmt: skip
                return
        item = self._put(file, build, rule)
        kept = self._ledger.caches.save(
            item, rule, scope=policy.of(build), build=build.id, now=self._clock(),
            most=policy.tenant_most, total=policy.total_most,
        )  # fmt: skip
        outcome = CacheOutcome.SAVED if kept else CacheOutcome.NOT_SAVED
        self._tell(build, rule, outcome, bytes=item.size)
