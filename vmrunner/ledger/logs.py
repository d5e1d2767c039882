"""The log of each build: masked bytes in chunks, numbered without gaps.

A chunk knows where its raw bytes ended in the VM's file (to go on from there) and how many lines
lie before it (for the user, who counts lines).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from vmrunner.errors import Fenced
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.build_writes import fetch
from vmrunner.ledger.database import Database
from vmrunner.ledger.shared_writes import Repeated, SharedWrites
from vmrunner.ledger.sql import Connection, func, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import BUILDS, CHUNKS
from vmrunner.model import Chunk, ChunkPlace

_b, _c = BUILDS.c, CHUNKS.c
_CHUNK = (_c.seq, _c.attempt, _c.time, _c.offset, _c.line, _c.data)

_COUNT = Prepared(
    lambda: (
        update(BUILDS)
        .where(_b.id == arg("build"), _b.epoch == arg("epoch"))
        .values(
            chunks=_b.chunks + 1,
            log_lines=_b.log_lines + arg("lines"),
            log_bytes=_b.log_bytes + arg("size"),
        )
        .returning(_b.chunks, _b.log_lines)
    )
)
_INSERT = inserts(CHUNKS)
_OFFSET = Prepared(
    lambda: (
        select(_c.offset)
        .where(_c.build == arg("build"), _c.attempt == arg("attempt"))
        .order_by(_c.seq.desc())
        .limit(1)
    )
)
_SIZE = Prepared(lambda: select(_b.log_bytes).where(_b.id == arg("build")))
_FORMER = Prepared(
    lambda: select(func.sum(func.length(_c.data))).where(
        _c.build == arg("build"), _c.attempt < arg("before")
    )
)
_READ = Prepared(
    lambda: (
        select(*_CHUNK)
        .where(_c.build == arg("build"), _c.seq > arg("after"))
        .order_by(_c.seq)
        .limit(arg("limit"))
    )
)
_SIZES = Prepared(
    lambda: select(_c.seq, func.length(_c.data)).where(_c.build == arg("build")).order_by(_c.seq)
)
_PLACES = Prepared(
    lambda: (
        select(_c.seq, _c.attempt, _c.offset, _c.line, func.length(_c.data))
        .where(_c.build == arg("build"))
        .order_by(_c.seq)
    )
)
#: The chunk in which line N ends is the last one that has fewer than N lines before it.
_ENDING = Prepared(
    lambda: (
        select(_c.seq)
        .where(_c.build == arg("build"), _c.line < arg("line"))
        .order_by(_c.seq.desc())
        .limit(1)
    )
)


class Logs:
    def __init__(self, database: Database, shared: SharedWrites) -> None:
        self._database = database
        self._shared = shared

    def append(
        self,
        build: str,
        attempt: int,
        epoch: int,
        *,
        offset: int,
        data: bytes,
        now: float,
        again: bool = False,
    ) -> None:
        """Add masked bytes; `offset` is where the raw ones ended. `again`: unless they stand, of a
        write that was not answered. Raises Fenced, NotFound."""
        lines = data.count(b"\n")

        def work(connection: Connection) -> None:
            row = _COUNT(connection, build=build, epoch=epoch, lines=lines, size=len(data)).first()
            if row is None:
                fetch(connection, build)
                raise Fenced(f"{build} has another owner: epoch {epoch} is over")
            # Only now: to count has waited for a commit that is late.
            if again and _offset(connection, build, attempt) >= offset:
                raise Repeated
            _INSERT(
                connection, build=build, seq=row[0], attempt=attempt, time=now, offset=offset,
                line=row[1] - lines, data=data,
            )  # fmt: skip

        with suppress(Repeated):
            self._shared.write(work)

    def offset(self, build: str, attempt: int) -> int:
        """The offset at which the stored raw bytes of this attempt end; 0 when there are none."""
        return self._database.read(lambda c: _offset(c, build, attempt))

    def size(self, build: str, *, before: int | None = None) -> int:
        """The number of bytes ever stored, of all attempts; with `before`, of the attempts before
        that one."""
        if before is None:
            return int(self._database.read(lambda c: _SIZE(c, build=build).scalar()) or 0)
        return int(
            self._database.read(lambda c: _FORMER(c, build=build, before=before).scalar()) or 0
        )

    def sizes(self, build: str) -> list[tuple[int, int]]:
        """(number, bytes) of each chunk, in order."""
        rows = self._database.read(lambda c: _SIZES(c, build=build).all())
        return [(row[0], row[1]) for row in rows]

    def places(self, build: str) -> list[ChunkPlace]:
        """All chunks without their bytes, in order."""
        rows = self._database.read(lambda c: _PLACES(c, build=build).all())
        return [ChunkPlace(*row) for row in rows]

    def read(
        self, build: str, after_line: int = 0, after_seq: int = 0, limit: int = 1000
    ) -> list[Chunk]:
        """Return chunks in order, at most `limit`. With `after_line` the first chunk is cut so that
        it begins where that line ends; nothing while that line has not ended. To go on, ask for
        what comes after the last `seq`."""

        def work(connection: Connection) -> list[Chunk]:
            after = after_seq
            if after_line > 0:
                ending = _ENDING(connection, build=build, line=after_line).scalar()
                after = max(after, (ending or 1) - 1)
            return [
                codec.chunk(row)
                for row in _READ(connection, build=build, after=after, limit=limit).all()
            ]

        return cut(self._database.read(work), after_line)


def _offset(connection: Connection, build: str, attempt: int) -> int:
    return int(_OFFSET(connection, build=build, attempt=attempt).scalar() or 0)


def cut(chunks: list[Chunk], after_line: int) -> list[Chunk]:
    """Return the chunks without what lies before the end of line `after_line`."""
    if not chunks or chunks[0].line >= after_line:
        return chunks
    first, start = chunks[0], 0
    for _ in range(after_line - first.line):
        start = first.data.find(b"\n", start) + 1
        if not start:
            return []
    rest = replace(first, line=after_line, data=first.data[start:])
    return [rest, *chunks[1:]] if rest.data else chunks[1:]
