"""Statements to PostgreSQL by libpq's own calls. A cursor of psycopg takes three times the CPU: it
looks anew at each statement's text, which here is always the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from psycopg import Connection, abc, generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

_NAMED: Final = re.compile(r"%(?:%|\((\w+)\)s)")


class _Call(NamedTuple):
    """A statement with numbered placeholders, and the values' names in their order."""

    text: bytes
    names: tuple[str, ...]
    formats: list[PyFormat]


@lru_cache(maxsize=1024)
def _call_of(text: str) -> _Call:
    """The call of a statement that names its values as `%(name)s`."""
    numbers: dict[str, int] = {}

    def numbered(found: re.Match[str]) -> str:
        if found[1] is None:
            return "%"
        return f"${numbers.setdefault(found[1], len(numbers) + 1)}"

    return _Call(
        _NAMED.sub(numbered, text).encode(), tuple(numbers), [PyFormat.AUTO] * len(numbers)
    )


class Answer:
    """The answer of a statement, as a cursor gives it. `rowcount`: rows found, or written."""

    __slots__ = ("_position", "_rows", "rowcount")

    def __init__(self, result: PGresult, loading: abc.Transformer) -> None:
        self._position = 0
        self._rows: list[tuple[Any, ...]] = []
        self.rowcount = result.command_tuples or 0
        if result.ntuples:
            loading.set_pgresult(result)
            self._rows = loading.load_rows(0, result.ntuples, tuple)

    def fetchone(self) -> tuple[Any, ...] | None:
        if self._position >= len(self._rows):
            return None
        self._position += 1
        return self._rows[self._position - 1]

    def fetchall(self) -> list[tuple[Any, ...]]:
        rows, self._position = self._rows[self._position :], len(self._rows)
        return rows

    def close(self) -> None:
        """Do nothing: all has been read."""


def run(client: Connection[Any], text: str, values: Mapping[str, Any]) -> Answer:
    """Run a statement, which names its values as `%(name)s`, in the client's transaction. Raises
    psycopg.Error."""
    if client.pgconn.transaction_status == TransactionStatus.IDLE:
        client.execute("SELECT")  # begins one, where the client does that
    adapting = _send(client, text, values)
    return Answer(_last(client, client.wait(generators.execute(client.pgconn))), adapting)


def look_up(
    client: Connection[Any], first: str, text: str, values: Mapping[str, Any]
) -> tuple[Answer, Answer]:
    """Run two statements, of which the first takes no values, in one round trip and a transaction
    of their own. Raises psycopg.Error."""
    pgconn = client.pgconn
    pgconn.enter_pipeline_mode()
    try:
        pgconn.send_query_params(first.encode(), None)
        adapting = _send(client, text, values)
        pgconn.pipeline_sync()
        first_results, results = client.wait(_two(pgconn))
    except BaseException:
        client.close()  # what it says next belongs to these
        raise
    pgconn.exit_pipeline_mode()
    answer = Answer(_last(client, first_results), Transformer(client))
    return answer, Answer(_last(client, results), adapting)


def _send(client: Connection[Any], text: str, values: Mapping[str, Any]) -> abc.Transformer:
    call, adapting = _call_of(text), Transformer(client)
    dumped = adapting.dump_sequence([values[name] for name in call.names], call.formats)
    client.pgconn.send_query_params(
        call.text, dumped, param_types=adapting.types, param_formats=adapting.formats
    )
    return adapting


def _two(pgconn: PGconn) -> abc.PQGen[tuple[list[PGresult], list[PGresult]]]:
    """The results of two statements, and then what ends their round trip."""
    first = yield from generators.execute(pgconn)
    second = yield from generators.fetch_many(pgconn)
    yield from generators.fetch_many(pgconn)
    return first, second


def run_script(client: Connection[Any], text: str) -> Answer:
    """Run several statements without values in one round trip; the answer of the last. They may
    begin a transaction or commit it. None is run after one that failed. Raises psycopg.Error."""
    client.pgconn.send_query(text.encode())
    results = client.wait(generators.execute(client.pgconn))
    return Answer(_last(client, results), Transformer(client))


def commit(client: Connection[Any], first: str = "") -> None:
    """End the transaction, if one has begun, with this statement as its last. Raises
    psycopg.Error: it may or may not have been done."""
    if client.pgconn.transaction_status != TransactionStatus.IDLE:
        run_script(client, f"{first}; COMMIT" if first else "COMMIT")


def _last(client: Connection[Any], results: list[PGresult]) -> PGresult:
    for result in results:
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise error_from_result(result, encoding=client.info.encoding)
    return results[-1]
