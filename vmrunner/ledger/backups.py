"""Copies of a whole ledger: made while it is served, and put in the place of another."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vmrunner.ledger import postgres_copy, sqlite_copy
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger import upgrade as schema
from vmrunner.ledger.connections import single_transaction
from vmrunner.ledger.database import Database
from vmrunner.ledger.sql import Connection
from vmrunner.ledger.transfer_types import Member
from vmrunner.ledger.urls import LedgerUrl

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CopiedObject:
    """An object of the store as a row of the copy has it."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerCopy:
    """A ledger at one moment. `objects`: all that were stored; `unbrought`: builds whose artifacts
    lie on a host still."""

    version: str
    installation: str
    generation: str
    canary: bytes
    objects: list[CopiedObject]
    unbrought: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerInPlace:
    """The ledger that a copy is to replace, if any. `used`: it has builds, VMs, images or tokens;
    `members`: processes that serve it, or did when they wrote last."""

    installation: str | None = None
    used: bool = False
    members: tuple[Member, ...] = ()


def save(database: Database, file: Path) -> LedgerCopy:
    """Copy the ledger into a new file. Nothing waits for that."""
    if not database.sqlite:
        return postgres_copy.save(database.url, file, _facts)
    sqlite_copy.save(database, file)
    return _read(sqlite_copy.url_of(file), _facts)


def look(url: LedgerUrl, path: Path | None) -> LedgerInPlace:
    """See what is there, whatever its version."""
    if path is not None and not (path.exists() and path.stat().st_size):
        return LedgerInPlace()
    if schema.current(url) is None:
        return LedgerInPlace()
    return _read(url, _in_place)


def put_back(
    url: LedgerUrl, path: Path | None, file: Path, *, version: str, gone: Iterable[str], now: float
) -> None:
    """Put a copy in the place of what is there, in one transaction: whole or not at all, and never
    with the generation of the ledger that it was made of. Nothing is launched from it until a
    person resumes it. `gone`: objects that could not be copied any more."""
    statements = _settling(version, gone, now)
    if path is None:
        postgres_copy.put_back(url, file, statements)
    else:
        sqlite_copy.put_back(url, path, file, statements)


def _settling(version: str, gone: Iterable[str], now: float) -> list[str]:
    """The statements that make another ledger of it. What nodes did and saw lately was at another
    one."""
    generation = secrets.token_hex(8)
    texts = [
        f"UPDATE ledger SET generation = '{generation}', paused_at = COALESCE(paused_at, {now!r})",  # noqa: S608
        "DELETE FROM engines",
        "DELETE FROM leases",
        "DELETE FROM sightings",
    ]
    if version >= "0006":
        texts.append("DELETE FROM logins")
    for name in gone:
        quoted = name.replace("'", "''")
        texts.append(f"UPDATE objects SET state = 'deleting' WHERE name = '{quoted}'")  # noqa: S608
    return texts


def _read(url: LedgerUrl, work: Callable[[Connection], T]) -> T:
    with single_transaction(url) as connection:
        return work(connection)


def _facts(connection: Connection) -> LedgerCopy:
    installation, generation, canary = connection.exec_driver_sql(
        "SELECT installation, generation, canary FROM ledger"
    ).one()
    objects = connection.exec_driver_sql(
        "SELECT name, size, digest FROM objects WHERE state = 'stored' ORDER BY name"
    )
    unbrought = connection.exec_driver_sql(
        "SELECT COUNT(*) FROM builds WHERE state = 'finished' AND collected IS NOT NULL "
        "AND artifacts_object IS NULL AND removed_at IS NULL"
    )
    return LedgerCopy(
        version=schema.version(connection) or "",
        installation=installation,
        generation=generation,
        canary=bytes(canary),
        objects=[CopiedObject(*row) for row in objects],
        unbrought=unbrought.scalar_one(),
    )


def _in_place(connection: Connection) -> LedgerInPlace:
    tables = {"builds", "instances", "images", "tokens"} & schema.tables(connection)
    members = connection.exec_driver_sql(
        "SELECT id, process, kind, joined_at, seen_at FROM engines"
    )
    return LedgerInPlace(
        installation=connection.exec_driver_sql("SELECT installation FROM ledger").scalar(),
        used=any(
            connection.exec_driver_sql(f"SELECT 1 FROM {name} LIMIT 1").first()  # noqa: S608
            for name in sorted(tables)
        ),
        members=tuple(
            Member(
                id=row[0],
                process=codec.process_from(row[1]),
                kind=row[2],
                joined_at=row[3],
                seen_at=row[4],
            )
            for row in members
        ),
    )
