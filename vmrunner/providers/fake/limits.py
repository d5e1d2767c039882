"""API limits for the fake cloud: token buckets, refilled as its clock goes.

    cloud.on_call = Throttle(cloud, EC2)

A call that finds too few tokens is refused as a whole with `Throttled`, has no effect and takes
none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from vmrunner.providers.fake.cloud import Cloud
from vmrunner.providers.fake.faults import Call, Fault, Plan


class Limit(NamedTuple):
    """A burst, and what comes back per second."""

    burst: float
    rate: float


class Quota(NamedTuple):
    """What some methods share: so many calls, and with them so many things."""

    methods: frozenset[str]
    calls: Limit
    items: Limit | None = None


#: Per account and region, as EC2 documents it: Describe*, RunInstances, TerminateInstances.
EC2: Final = (
    Quota(frozenset({"sweep", "look"}), Limit(100, 20)),
    Quota(frozenset({"create"}), Limit(5, 2), Limit(1000, 2)),
    Quota(frozenset({"delete"}), Limit(100, 5), Limit(1000, 20)),
)


class _Bucket:
    def __init__(self, limit: Limit, now: float) -> None:
        self._limit, self._tokens, self._at = limit, limit.burst, now

    def tokens(self, now: float) -> float:
        burst, rate = self._limit
        self._tokens = min(burst, self._tokens + rate * max(0.0, now - self._at))
        self._at = now
        return self._tokens

    def take(self, count: float) -> None:
        self._tokens -= count


class Throttle:
    """A cloud's `on_call` that keeps to `quotas`. `refused` counts by method."""

    def __init__(self, cloud: Cloud, quotas: Sequence[Quota]) -> None:
        self._cloud = cloud
        self.refused: Counter[str] = Counter()
        now = cloud.now()
        self._buckets = [
            (q.methods, _Bucket(q.calls, now), _Bucket(q.items, now) if q.items else None)
            for q in quotas
        ]

    def __call__(self, call: Call) -> Plan | None:
        now = self._cloud.now()
        wanted = [
            (bucket, count)
            for methods, calls, items in self._buckets
            if call.method in methods
            for bucket, count in ((calls, 1), (items, _items(call)))
            if bucket is not None
        ]
        if any(bucket.tokens(now) < count for bucket, count in wanted):
            self.refused[call.method] += 1
            return Plan(Fault.THROTTLE)
        for bucket, count in wanted:
            bucket.take(count)
        return None


def _items(call: Call) -> int:
    return len(call.about) if call.method == "delete" else 1
