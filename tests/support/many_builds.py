"""A ledger of very many builds, written by the database itself."""

from __future__ import annotations

from sqlalchemy import Connection, text

from tests.support.ledger_builds import finished, submitted
from vmrunner.ledger import Ledger

DAY = 86_400.0
#: Of a thousand builds nine hundred succeeded, the others failed but for one, which timed out.
_RESULT = "CASE WHEN n % 1000 = 0 THEN 'timeout' WHEN n % 10 = 0 THEN 'failure' ELSE 'success' END"
_CHANGED = {
    "id": "'b-9' || substr('00000000' || n, -8)",
    "created_at": "n * 10.0",
    "finished_at": "n * 10.0 + 5",
    "result": _RESULT,
    "name": "'job-' || (n % 500)",
    "actor": "CASE WHEN n % 500 = 0 THEN 'token:t-1' ELSE 'root@host' END",
    "provider": "CASE WHEN n % 20000 = 3 THEN 'cloud' ELSE 'local' END",
    "revision": "NULL",
    "idempotency_key": "NULL",
}


def fill(ledger: Ledger, count: int) -> None:
    """Write `count` finished builds, ten seconds apart from 0 on, named b-9 and a number of eight
    digits; and two that are older by their ids: b-0, finished, and b-1, queued."""
    finished(ledger, "b-0")
    submitted(ledger, "b-1")
    sqlite = ledger._database.sqlite
    series = (
        "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < :count)"
        " SELECT n FROM s)"
        if sqlite
        else "(SELECT n FROM generate_series(1, :count) AS g(n))"
    )

    def work(connection: Connection) -> None:
        rows = connection.execute(text("SELECT * FROM builds WHERE id = 'b-0'"))
        columns = list(rows.keys())
        values = ", ".join(_CHANGED.get(name, f'b."{name}"') for name in columns)
        if not sqlite:
            values = values.replace("substr('00000000' || n, -8)", "lpad(n::text, 8, '0')")
        names = ", ".join(f'"{name}"' for name in columns)
        connection.execute(
            text(
                f"INSERT INTO builds ({names}) SELECT {values}"
                f" FROM builds b, {series} s WHERE b.id = 'b-0'"
            ),
            {"count": count},
        )
        if not sqlite:
            connection.execute(text("ANALYZE builds"))

    ledger._database.write(work)
