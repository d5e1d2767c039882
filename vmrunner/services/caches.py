"""Caches as people and programs see them, and their removal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vmrunner.lib import process
from vmrunner.services.documents import iso

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.model import Principal, StoredCache
    from vmrunner.services.document_types import CacheDocument


def visible_to(principal: Principal) -> str | None:
    """Return the tenant whose caches a principal sees; None: all."""
    return principal.tenant if principal.labels else None


def remove(ledger: Ledger, name: str, tenant: str | None = None, *, by: str = "") -> StoredCache:
    """Let go of one, by the beginning of its id, of this tenant where one is named; its bytes go
    with the next gc but one. Raises NotFound, Conflict."""
    found = ledger.caches.find_named(name, tenant)
    if ledger.caches.remove(found.id):
        ledger.actions.add(
            by or process.user(), "cache-remove", found.id, time.time(), f"{found.key} {found.path}"
        )
    return found


def cache_document(cache: StoredCache) -> CacheDocument:
    """A cache for programs."""
    return {
        "id": cache.id,
        "key": cache.key,
        "path": cache.path,
        "scope": cache.scope,
        "size": cache.size,
        "build": cache.build,
        "tenant": cache.tenant,
        "created_at": iso(cache.created_at),
        "used_at": iso(cache.used_at),
    }
