"""Objects of the store, as the ledger knows them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vmrunner.model.builds import LOCAL_TENANT


class ObjectKind(StrEnum):
    """Kind of what an object holds."""

    SOURCE = "source"  # a packed source, by its digest
    LOG = "log"  # the whole log of a build that ended
    ARTIFACTS = "artifacts"  # all that a build brought back
    CACHE = "cache"  # a directory that a build left to later ones


class ObjectState(StrEnum):
    """State of an object. The row is there before the bytes, and after them."""

    UPLOADING = "uploading"
    STORED = "stored"
    DELETING = "deleting"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """A row of `objects`, as it was when it was read."""

    name: str  # never used again
    kind: ObjectKind
    digest: str  # SHA-256 of its bytes
    size: int
    created_at: float
    tenant: str = LOCAL_TENANT
    build: str | None = None  # None: a source, which builds share
    state: ObjectState = ObjectState.UPLOADING
    unreferenced_since: float | None = None  # None: something pointed at it when gc last looked
