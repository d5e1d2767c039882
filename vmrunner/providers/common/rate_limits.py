"""Quotas of one account, as token buckets by place: one account may have many, and each call takes
from all that it counts against.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Final, NamedTuple

from vmrunner.errors import Throttled
from vmrunner.lib.token_bucket import Bucket, Limit
from vmrunner.providers.common.call_failed import CallFailed

#: So many buckets are kept; of more, those that are full go.
KEPT_BUCKETS: Final = 4096


class Quota(NamedTuple):
    """The limit on one kind of call: how many, and how many things in all of them."""

    calls: Limit
    items: Limit | None = None


class Buckets:
    """The buckets of one account, by place and quota. A place may be one thing that has a limit of
    its own."""

    def __init__(
        self,
        quotas: Mapping[str, Quota],
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._quotas = quotas
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()
        self._buckets: dict[Hashable, list[tuple[Bucket, bool]]] = {}

    def take(self, place: str, quota: str, *, items: int = 1, patience: float = 30.0) -> None:
        """Wait for one call about so many things, at most `patience` seconds. Raises `CallFailed`
        when that is not enough, and nothing is taken."""
        with self._lock:
            if len(self._buckets) > KEPT_BUCKETS:
                self._drop_full()
            buckets = self._of(place, quota)
            wait = max(bucket.wait(items if many else 1) for bucket, many in buckets)
            if wait > patience:
                text = f"{place}: {quota} is at its limit for another {wait:.0f} s"
                hint = "wait, or raise the account's limit"
                raise CallFailed("", Throttled(text, hint=hint, wait=wait))
            for bucket, many in buckets:
                bucket.take(items if many else 1)
        if wait > 0:
            self._sleep(wait)

    def spare(self, place: str, quota: str) -> float:
        """Number of calls, each about one thing, that can be made without waiting. To ask for it
        makes no bucket."""
        with self._lock:
            found = self._buckets.get((place, quota))
            if found is None:
                return min(limit.burst for limit in self._quotas[quota] if limit is not None)
            return min(bucket.spare() for bucket, _ in found)

    def record(self, place: str, quota: str, *, refused: bool, retry_after: float = 0.0) -> None:
        """Record the cloud's answer to a call: too many, and `retry_after` seconds until another
        has a point; or anything else."""
        buckets = self._of(place, quota)
        if not refused:  # as nearly each answer: it waits for no other thread
            for bucket, _ in buckets:
                bucket.granted()
            return
        with self._lock:
            for bucket, _ in buckets:
                bucket.refused(retry_after)

    def _drop_full(self) -> None:
        """Forget buckets of places that were not asked for a while: a new one is the same."""
        for key, buckets in list(self._buckets.items()):
            if all(bucket.full for bucket, _ in buckets):
                del self._buckets[key]

    def _of(self, place: str, quota: str) -> list[tuple[Bucket, bool]]:
        """Return the buckets, each with True where it counts things instead of calls."""
        found = self._buckets.get((place, quota))
        if found is None:
            calls, items = self._quotas[quota]
            made = [(Bucket(calls, self._now), False)]
            if items is not None:
                made.append((Bucket(items, self._now), True))
            found = self._buckets.setdefault((place, quota), made)  # the first one made counts
        return found
