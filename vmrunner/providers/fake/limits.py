"""API limits for the fake cloud: token buckets, refilled as its clock goes.

    cloud.on_call = Throttle(cloud, EC2)

A call that finds too few tokens is refused as a whole with `Throttled`, has no effect and takes
none. It never waits, as a client of a cloud should.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from vmrunner.lib.token_bucket import Bucket, Limit
from vmrunner.providers.common.rate_limits import Quota
from vmrunner.providers.fake.cloud import Cloud
from vmrunner.providers.fake.faults import Call, Fault, Plan

#: Per account and region, as EC2 documents it: Describe*, RunInstances, TerminateInstances.
EC2: Final[Mapping[frozenset[str], Quota]] = {
    frozenset({"sweep", "look"}): Quota(Limit(100, 20)),
    frozenset({"create"}): Quota(Limit(5, 2), Limit(1000, 2)),
    frozenset({"delete"}): Quota(Limit(100, 5), Limit(1000, 20)),
}


class Throttle:
    """A cloud's `on_call` that keeps to what some methods share. `refused` counts by method."""

    def __init__(self, cloud: Cloud, quotas: Mapping[frozenset[str], Quota]) -> None:
        self.refused: Counter[str] = Counter()
        self._buckets = [
            (
                methods,
                Bucket(quota.calls, cloud.now),
                quota.items and Bucket(quota.items, cloud.now),
            )
            for methods, quota in quotas.items()
        ]

    def __call__(self, call: Call) -> Plan | None:
        wanted = [
            (bucket, count)
            for methods, calls, items in self._buckets
            if call.method in methods
            for bucket, count in ((calls, 1), (items, _items(call)))
            if bucket is not None
        ]
        if any(bucket.wait(count) > 0 for bucket, count in wanted):
            self.refused[call.method] += 1
            return Plan(Fault.THROTTLE)
        for bucket, count in wanted:
            bucket.take(count)
        return None


def _items(call: Call) -> int:
    return len(call.about) if call.method == "delete" else 1
