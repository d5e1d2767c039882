"""Caches in a ledger, without a build that left them."""

from __future__ import annotations

from vmrunner.ledger import Ledger
from vmrunner.model import CacheRule, CacheScope, ObjectKind, StoredObject

RULE = CacheRule(key="k", path="/cache", fallback=("k", "%"))


def save(
    ledger: Ledger, name: str, scope: CacheScope, rule: CacheRule = RULE, **options: float
) -> bool:
    said = {"now": 1.0, "size": 10, "most": 100, **options}
    one = StoredObject(
        name=name, kind=ObjectKind.CACHE, digest="d", size=int(said["size"]), created_at=1.0,
        tenant=scope.tenant,
    )  # fmt: skip
    ledger.objects.begin(one)
    return ledger.caches.save(
        one, rule, scope=scope, build="b-1", now=said["now"], most=int(said["most"]),
        total=int(said["total"]) if "total" in said else None,
    )  # fmt: skip
