"""Actions of users and engines that concern no build."""

from __future__ import annotations

from typing import NamedTuple

from vmrunner.ledger.database import Database
from vmrunner.ledger.sql import Connection, delete, select
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import ACTIONS

_a = ACTIONS.c
_INSERT = inserts(ACTIONS, "at", "actor", "verb", "subject", "detail")
_LATEST = Prepared(
    lambda: (
        select(_a.at, _a.actor, _a.verb, _a.subject, _a.detail)
        .order_by(_a.id.desc())
        .limit(arg("limit"))
    )
)
_FORGET = Prepared(lambda: delete(ACTIONS).where(_a.at < arg("before")))


class Action(NamedTuple):
    """One action. `at`: epoch seconds; `actor`: an engine or a user."""

    at: float
    actor: str
    verb: str
    subject: str
    detail: str


def add_action(
    connection: Connection, actor: str, verb: str, subject: str, now: float, detail: str = ""
) -> None:
    """Note an action, within a transaction."""
    _INSERT(connection, at=now, actor=actor, verb=verb, subject=subject, detail=detail[:500])


class Actions:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, actor: str, verb: str, subject: str, now: float, detail: str = "") -> None:
        """Note an action."""
        self._database.write(lambda c: add_action(c, actor, verb, subject, now, detail))

    def latest(self, limit: int = 100) -> list[Action]:
        """Return the latest actions, newest first."""
        rows = self._database.read(lambda c: _LATEST(c, limit=limit).all())
        return [Action(*row) for row in rows]

    def forget(self, before: float) -> int:
        """Forget what was done before that time; how many."""
        return self._database.write(lambda c: _FORGET(c, before=before).rowcount)
