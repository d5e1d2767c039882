"""The outbox: notifications of webhooks, written in the transaction of their event.

An event is for the endpoints that a `serve` named lately: the process that ends a build need not
know them, and where none was ever named, nothing is written.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import Any, Final

from vmrunner.ledger.database import Database, Duplicate
from vmrunner.ledger.labels import forced_names
from vmrunner.ledger.sql import Connection, and_, delete, exists, func, or_, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import NOTIFY_ENDPOINTS, OUTBOX
from vmrunner.lib import ids
from vmrunner.model import BuildRecord, EndpointStatus, Notification, NotifyEndpoint, NotifyEvent
from vmrunner.model.principals import credited_labels

_e, _o = NOTIFY_ENDPOINTS.c, OUTBOX.c

GIVE_UP: Final = 3 * 86_400.0  # seconds after which an event is not told any more
FORGOTTEN: Final = GIVE_UP  # … after which an endpoint that no `serve` names is none
KEEP: Final = 7 * 86_400.0  # … for which what was told, or given up, is remembered
CAP: Final = 100_000  # events that wait for one endpoint: of more, the oldest are given up
LONGEST_PAUSE: Final = 600.0  # the longest wait before a next try
_ERROR: Final = 300  # characters that are kept of why a try failed


class _State(StrEnum):
    WAITING = "waiting"
    SENT = "sent"
    GIVEN_UP = "given_up"


_waits = _o.state == _State.WAITING.value

_ENDPOINTS = Prepared(
    lambda: select(_e.name, _e.events, _e.match).where(_e.named_at > arg("since"))
)
_NAMED = Prepared(lambda: select(_e.name).where(_e.name == arg("name"), _e.named_at > arg("since")))
_NAME = Prepared(
    lambda: (
        update(NOTIFY_ENDPOINTS)
        .where(_e.name == arg("name"))
        .values(events=arg("events"), match=arg("match"), named_at=arg("now"))
    )
)
_NEW_ENDPOINT = inserts(NOTIFY_ENDPOINTS)
_FORGET_ENDPOINTS = Prepared(
    lambda: delete(NOTIFY_ENDPOINTS).where(_e.named_at < arg("before")).returning(_e.name)
)
_FORGET_ITS = Prepared(lambda: delete(OUTBOX).where(_o.endpoint == arg("endpoint")))
_KNOWN = Prepared(
    lambda: select(_o.id).where(
        _o.endpoint == arg("endpoint"), _o.event == arg("event"), _o.subject == arg("subject")
    )
)
_PUT = inserts(OUTBOX)


def _due(column: Any) -> Any:
    """A time that has come; or one that no try can have set, but a wrong clock."""
    return or_(column <= arg("now"), column > arg("latest"))


_WAITING = Prepared(
    lambda: (
        select(_o.id, _o.endpoint, _o.event, _o.subject, _o.at, _o.data, _o.tries)
        .where(
            _o.endpoint == arg("endpoint"),
            _waits,
            _due(_o.due),
            exists().where(_e.name == arg("endpoint"), _due(_e.retry_at)),
        )
        .order_by(_o.due, _o.id)
        .limit(arg("limit"))
    )
)
_its_row = and_(_o.id == arg("id"), _o.endpoint == arg("endpoint"), _waits)
_SENT = Prepared(lambda: update(OUTBOX).where(_its_row).values(state=_State.SENT.value))
_WELL = Prepared(
    lambda: (
        update(NOTIFY_ENDPOINTS)
        .where(_e.name == arg("endpoint"))
        .values(retry_at=0.0, failures=0, error="", delivered_at=arg("now"))
    )
)
_LATER = Prepared(lambda: update(OUTBOX).where(_its_row).values(due=arg("due"), tries=_o.tries + 1))
_BADLY = Prepared(
    lambda: update(NOTIFY_ENDPOINTS).where(_e.name == arg("endpoint")).values(error=arg("error"))
)
_PUT_OFF = Prepared(
    lambda: (
        update(NOTIFY_ENDPOINTS)
        .where(_e.name == arg("endpoint"))
        .values(retry_at=arg("until"), failures=_e.failures + 1)
    )
)
_OLD = Prepared(
    lambda: (
        update(OUTBOX)
        .where(_waits, _o.at < arg("before"))
        .values(state=_State.GIVEN_UP.value)
        .returning(_o.endpoint)
    )
)
_NEWEST_TO_GIVE_UP = Prepared(
    lambda: (
        select(_o.id)
        .where(_waits, _o.endpoint == arg("endpoint"))
        .order_by(_o.id.desc())
        .offset(arg("cap"))
        .limit(1)
    )
)
_SURPLUS = Prepared(
    lambda: (
        update(OUTBOX)
        .where(_waits, _o.endpoint == arg("endpoint"), _o.id <= arg("id"))
        .values(state=_State.GIVEN_UP.value)
    )
)
_GAVE_UP = Prepared(
    lambda: (
        update(NOTIFY_ENDPOINTS)
        .where(_e.name == arg("endpoint"))
        .values(given_up=_e.given_up + arg("count"), given_up_at=arg("now"))
    )
)
_FORGET = Prepared(lambda: delete(OUTBOX).where(~_waits, _o.at < arg("before")))
_COUNTS = Prepared(
    lambda: select(_o.endpoint, func.count(), func.min(_o.at)).where(_waits).group_by(_o.endpoint)
)
_NEWEST = Prepared(
    lambda: select(_o.event, _o.subject, _o.at).order_by(_o.id.desc()).limit(arg("limit"))
)
_STATUS = Prepared(
    lambda: select(
        _e.name, _e.named_at, _e.delivered_at, _e.failures, _e.error, _e.given_up, _e.given_up_at
    ).order_by(_e.name)
)


def put(
    connection: Connection,
    event: NotifyEvent,
    subject: str,
    now: float,
    *,
    labels: Mapping[str, str],
    data: str = "",
) -> None:
    """Write an event down for all who want it, within the transaction of what it tells. What was
    written down before is nothing new."""
    found = _ENDPOINTS(connection, since=now - FORGOTTEN).all()
    name = ids.event_id() if found else ""
    for endpoint in map(_endpoint, found):
        about = {"endpoint": endpoint.name, "event": event.value, "subject": subject}
        if endpoint.wants(event, labels) and _KNOWN(connection, **about).first() is None:
            state = _State.WAITING.value
            _PUT(connection, id=name, at=now, due=0.0, tries=0, state=state, data=data, **about)


def put_ended(connection: Connection, build: BuildRecord, now: float) -> None:
    """Do the same of a build that ended, for its own tenant's endpoints: another tenant's value of
    a label that tokens force does not count."""
    if _ENDPOINTS(connection, since=now - FORGOTTEN).first() is None:
        return
    labels = credited_labels(build.spec.labels, build.tenant, forced_names(connection))
    put(connection, NotifyEvent.BUILD_ENDED, build.id, now, labels=labels)


def _endpoint(row: tuple[str, str, str]) -> NotifyEndpoint:
    names = json.loads(row[1])  # a newer node may name events that are not known here
    events = frozenset(event for event in NotifyEvent if event.value in names)
    return NotifyEndpoint(name=row[0], events=events, match=json.loads(row[2]))


class Outbox:
    def __init__(self, database: Database) -> None:
        self._database = database

    def declare(self, endpoints: Iterable[NotifyEndpoint], now: float) -> None:
        """Note that these endpoints are configured: from now on events are written for them."""

        def work(connection: Connection, endpoint: NotifyEndpoint) -> None:
            values = {
                "name": endpoint.name,
                "events": json.dumps(sorted(endpoint.events)),
                "match": json.dumps(dict(endpoint.match)),
            }
            if not _NAME(connection, now=now, **values).rowcount:
                _NEW_ENDPOINT(
                    connection, named_at=now, retry_at=0.0, failures=0, error="",
                    delivered_at=None, given_up=0, given_up_at=None, **values,
                )  # fmt: skip

        for endpoint in endpoints:
            with contextlib.suppress(Duplicate):  # another node named it in between
                self._database.write(partial(work, endpoint=endpoint))

    def names(self, endpoint: str, now: float) -> bool:
        """True if events are written for this endpoint now."""
        since = now - FORGOTTEN
        return self._database.look_up(_NAMED, name=endpoint, since=since) is not None

    def add(self, event: NotifyEvent, subject: str, now: float, *, data: str = "") -> None:
        """Write down an event that no other write tells. The same subject again is nothing new."""
        with contextlib.suppress(Duplicate):  # another node saw it too
            self._database.write(lambda c: put(c, event, subject, now, labels={}, data=data))

    def waiting(self, endpoint: str, now: float, limit: int) -> list[Notification]:
        """The notifications due to this endpoint now: first those never tried, oldest first, so
        that one that is refused again and again keeps no other back."""
        latest = now + 2 * LONGEST_PAUSE
        found = self._database.read(
            lambda c: _WAITING(c, endpoint=endpoint, now=now, latest=latest, limit=limit).all()
        )
        return [
            Notification(
                id=row[0], endpoint=row[1], event=NotifyEvent(row[2]), subject=row[3], at=row[4],
                data=row[5], tries=row[6],
            )
            for row in found
        ]  # fmt: skip

    def sent(self, notification: Notification, now: float) -> None:
        """Note that the endpoint took it."""

        def work(connection: Connection) -> None:
            _SENT(connection, id=notification.id, endpoint=notification.endpoint)
            _WELL(connection, endpoint=notification.endpoint, now=now)

        self._database.write(work)

    def failed(self, notification: Notification, error: str, due: float) -> None:
        """Note that it did not, and that it is tried again at `due`."""

        def work(connection: Connection) -> None:
            _LATER(connection, id=notification.id, endpoint=notification.endpoint, due=due)
            _BADLY(connection, endpoint=notification.endpoint, error=error[:_ERROR])

        self._database.write(work)

    def put_off(self, endpoint: str, until: float) -> None:
        """Leave an endpoint alone until then: it took nothing."""
        self._database.write(lambda c: _PUT_OFF(c, endpoint=endpoint, until=until).rowcount)

    def tidy(self, now: float) -> Mapping[str, int]:
        """Give up what is too old or too much, and forget what was told long ago. How many events
        were given up, by endpoint."""

        def work(connection: Connection) -> Mapping[str, int]:
            lost = Counter(row[0] for row in _OLD(connection, before=now - GIVE_UP).all())
            for endpoint, count, _ in _COUNTS(connection).all():
                if count > CAP:
                    last = _NEWEST_TO_GIVE_UP(connection, endpoint=endpoint, cap=CAP).scalar()
                    lost[endpoint] += _SURPLUS(connection, endpoint=endpoint, id=last).rowcount
            for endpoint, count in lost.items():
                _GAVE_UP(connection, endpoint=endpoint, count=count, now=now)
            _FORGET(connection, before=now - KEEP)
            for row in _FORGET_ENDPOINTS(connection, before=now - FORGOTTEN).all():
                _FORGET_ITS(connection, endpoint=row[0])
            return lost

        return self._database.write(work)

    def newest_alarms(self, looked_at: int) -> list[tuple[NotifyEvent, str, float]]:
        """Event, subject and time of each alarm among the newest notifications, of which so many
        are looked at."""
        rows = self._database.read(lambda c: _NEWEST(c, limit=looked_at).all())
        alarms = dict.fromkeys(tuple(row) for row in rows if row[0] != NotifyEvent.BUILD_ENDED)
        return [(NotifyEvent(event), subject, at) for event, subject, at in alarms]

    def status(self) -> list[EndpointStatus]:
        """The status of each endpoint, by name."""

        def work(connection: Connection) -> list[EndpointStatus]:
            counts = {row[0]: row[1:] for row in _COUNTS(connection).all()}
            return [
                EndpointStatus(
                    name=row[0], named_at=row[1], delivered_at=row[2], failures=row[3],
                    error=row[4], given_up=row[5], given_up_at=row[6],
                    waiting=counts.get(row[0], (0, None))[0],
                    oldest=counts.get(row[0], (0, None))[1],
                )
                for row in _STATUS(connection).all()
            ]  # fmt: skip

        return self._database.read(work)
