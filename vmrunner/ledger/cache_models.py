"""The table of caches."""

from __future__ import annotations

from sqlalchemy import Index, UniqueConstraint

from vmrunner.ledger.column_types import Row
from vmrunner.ledger.column_types import id_column as _id
from vmrunner.ledger.column_types import time_column as _time


class CacheRow(Row, table=True):
    """A directory that a build left to later ones of its tenant."""

    __tablename__ = "caches"
    __table_args__ = (
        UniqueConstraint("tenant", "scope", "path", "key"),
        Index("ix_caches_used_at", "used_at"),
        Index("ix_caches_object", "object"),
    )

    id: str = _id(primary_key=True)
    tenant: str
    scope: str
    key: str
    path: str
    object: str = _id()
    build: str = _id()
    created_at: float = _time()
    used_at: float = _time()
