"""The upload of one object: its row, its bytes, and then the caller concludes it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from vmrunner.model import LOCAL_TENANT, ObjectKind, StoredObject
from vmrunner.store import ObjectStore

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger


def put(
    ledger: Ledger,
    store: ObjectStore,
    kind: ObjectKind,
    file: Path,
    *,
    digest: str,
    now: float,
    tenant: str = LOCAL_TENANT,
    build: str | None = None,
    attempt: int = 0,
    epoch: int = 0,
) -> StoredObject:
    """Upload a file under a new name. A crash at any point leaves a row by which
    gc finds what was written. Raises StoreError."""
    part = f"{attempt}-{epoch}-{secrets.token_hex(8)}"
    new = StoredObject(
        name=f"{ledger.installation}/{ledger.generation}/{kind}/{build or digest}/{part}",
        kind=kind,
        digest=digest,
        size=file.stat().st_size,
        created_at=now,
        tenant=tenant,
        build=build,
    )
    ledger.objects.begin(new)
    store.put(new.name, file, digest=digest)
    return new
