"""The table by which changes are counted (see `models`)."""

from __future__ import annotations

from sqlalchemy import BigInteger
from sqlmodel import Field

from vmrunner.ledger.column_types import Row


class RevisionRow(Row, table=True):
    """The single row that counts the transactions which changed builds or instances."""

    __tablename__ = "revisions"

    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    last: int = Field(default=0, sa_type=BigInteger)
