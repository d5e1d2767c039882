"""Caches in a ledger, without a build that left them."""

from __future__ import annotations

from vmrunner.ledger import Ledger
from vmrunner.model import CacheRule, CacheScope, ObjectKind, StoredObject

RULE = CacheRule(key="k", path="/cache", fallback=("k", "%"))


def save(
    ledger: Ledger, name: str, scope: CacheScope, rule: CacheRule = RULE, **options: float
) -> bool:
    values = {"now": 1.0, "size": 10, "most": 100, **options}
    stored = StoredObject(
        name=name, kind=ObjectKind.CACHE, digest="d", size=int(values["size"]), created_at=1.0,
        tenant=scope.tenant,
    )  # fmt: skip
    ledger.objects.begin(stored)
    return ledger.caches.save(
        stored, rule, scope=scope, build="b-1", now=values["now"], most=int(values["most"]),
        total=int(values["total"]) if "total" in values else None,
    )  # fmt: skip
