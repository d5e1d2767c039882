"""The columns that tables are made of."""

from __future__ import annotations

from typing import Any, Final, cast

from sqlalchemy import BigInteger, Double, Index, LargeBinary, MetaData, String, Text, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

# A registry of our own: who embeds vmrunner in a SQLModel application must not find our tables
# in the metadata of theirs.
METADATA: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# Ids are searched by prefix, as a range: that needs byte order, which PostgreSQL's default
# collation is not.
ID = String().with_variant(String(collation="C"), "postgresql")


class Row(SQLModel, registry=registry(metadata=METADATA)):
    """Columns that all tables share."""


def id_column(**options: Any) -> Any:
    return Field(sa_type=cast(Any, ID), **options)


def time_column(**options: Any) -> Any:
    return Field(sa_type=Double, **options)


def big_column(**options: Any) -> Any:
    return Field(sa_type=BigInteger, **options)


def json_column(**options: Any) -> Any:
    return Field(sa_type=Text, **options)


def sealed_column() -> Any:
    return Field(default=None, sa_type=LargeBinary)


def partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index over some rows only."""
    return Index(
        name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where)
    )
