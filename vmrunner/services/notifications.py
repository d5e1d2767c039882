"""Webhooks: what waits in the outbox is sent, signed, at least once, by the engine that holds the
endpoint's lease.

A crash between sending and its note sends again, with the same event id. Each endpoint has its own
lease, waits and thread (`daemon`), so one that is poison delays no other. Nothing here is waited
for: builds and kills know no webhook.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vmrunner.engine.leases import LeaseTaker
from vmrunner.errors import ConfigError, LedgerError, NotFound
from vmrunner.ledger.outbox import FORGOTTEN, GIVE_UP, LONGEST_PAUSE
from vmrunner.lib import ids, units
from vmrunner.lib.backoff import backoff
from vmrunner.model import TRACES, EndpointStatus, Finding, Level, Notification, NotifyEndpoint
from vmrunner.services import notice_text
from vmrunner.services.client import people, webhooks
from vmrunner.services.documents import ended_document, envelope, iso

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmrunner.config.notify import NotifySettings
    from vmrunner.ledger import Ledger

log = logging.getLogger("vmrunner")

FIRST_PAUSE: Final = 5.0  # seconds before the second try, doubled each time, up to `LONGEST_PAUSE`
SENDER_LEASE: Final = 60.0
FAILURES: Final = 3  # after so many in a row the endpoint is left alone for a while
TURN: Final = 120.0  # seconds that a run lasts at most
TEST: Final = "test"
_AT_ONCE: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Webhook:
    """An endpoint with what it takes to send. `people`: `key` is Apprise's URL, and `server_url`
    that of the page, or ""."""

    name: str
    url: str
    key: bytes
    people: bool = False
    server_url: str = ""


def open_webhook(settings: NotifySettings, server_url: str = "") -> Webhook:
    """Read its secret. Raises ConfigError."""
    key, of_people = settings.key(), settings.kind == "people"
    if of_people:
        people.require()
    else:
        webhooks.standard_key(key)
    return Webhook(
        name=settings.name, url=settings.url, key=key, people=of_people, server_url=server_url
    )


def senders(
    ledger: Ledger, settings: list[NotifySettings], server_url: str = ""
) -> dict[str, Callable[[], None]]:
    """A sender for each of them, by name. One whose secret is not here is left to other nodes: no
    build waits for a webhook, so no engine does."""
    found = {}
    for endpoint in settings:
        try:
            deliver = delivery(ledger, open_webhook(endpoint, server_url))
            found[endpoint.name] = OutboxSender(ledger, endpoint.name, deliver).run
        except ConfigError as error:
            log.warning("nothing is sent from here: %s", error)
    return found


def endpoints(settings: list[NotifySettings]) -> list[NotifyEndpoint]:
    """Return them as the ledger is to know them."""
    return [
        NotifyEndpoint(name=endpoint.name, events=endpoint.wanted, match=endpoint.match)
        for endpoint in settings
    ]


#: Tells one event to one endpoint, by our clock. Returns why it was not taken; empty when it was.
Delivery = Callable[[Notification, float], str]


def delivery(
    ledger: Ledger, webhook: Webhook, post: Callable[..., str] = webhooks.post
) -> Delivery:
    """A function that posts one notification to a webhook. `post` is `webhooks.post`."""

    def deliver(notification: Notification, now: float) -> str:
        body = body_of(ledger, notification)
        if webhook.people:
            return _tell(webhook, body)
        event = notification.event.value
        return post(webhook.url, webhook.key, event=event, name=notification.id, body=body, now=now)

    return deliver


def _tell(webhook: Webhook, body: bytes) -> str:
    text = notice_text.text_of(json.loads(body), webhook.server_url)
    return people.tell(webhook.key, text) if text else ""


class OutboxSender:
    """The sender to one endpoint, a run at a time."""

    def __init__(
        self,
        ledger: Ledger,
        name: str,
        deliver: Delivery,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._name = name
        self._deliver = deliver
        self._clock = clock
        self._monotonic = monotonic
        self._lease = f"notify:{name}"
        self._taker = LeaseTaker(
            ledger, ids.engine_id(), SENDER_LEASE, clock=clock, monotonic=monotonic
        )
        self._until = 0.0  # monotonic

    def run(self) -> None:
        """Send what is due, unless another node is about it."""
        if not self._ledger.outbox.waiting(self._name, self._clock(), 1):
            return
        self._until = 0.0
        if not self._holds():
            return
        try:
            self._send_all(self._monotonic() + TURN)
        finally:
            self._taker.release(self._lease)

    def _holds(self) -> bool:
        """True if the lease is ours for as long as a request can take."""
        now = self._monotonic()
        if self._until - now > 2 * webhooks.WHOLE:
            return True
        self._until = now + SENDER_LEASE
        return self._taker.take(self._lease)

    def _send_all(self, end: float) -> None:
        name, outbox, failures = self._name, self._ledger.outbox, 0
        while self._monotonic() < end:
            found = outbox.waiting(name, self._clock(), _AT_ONCE)
            for notification in found:
                if not self._holds():
                    return
                failures = 0 if self._send(notification) else failures + 1
                if failures == FAILURES:
                    break
            if len(found) < _AT_ONCE or failures == FAILURES:
                break
        if failures:
            status = next((s for s in outbox.status() if s.name == name), None)
            wait = backoff(FIRST_PAUSE, status.failures if status else 0, LONGEST_PAUSE)
            outbox.put_off(name, self._clock() + wait)

    def _send(self, notification: Notification) -> bool:
        now = self._clock()
        try:
            error = self._deliver(notification, now)
        except LedgerError:
            raise
        except Exception as problem:  # noqa: BLE001 - one that cannot be told keeps no other
            error = f"{type(problem).__name__}: {problem}"
        if not error:
            self._ledger.outbox.sent(notification, self._clock())
            return True
        wait = backoff(FIRST_PAUSE, notification.tries, LONGEST_PAUSE)
        self._ledger.outbox.failed(notification, error, self._clock() + wait)
        log.warning(
            "notify %s: %s %s: %s",
            notification.endpoint,
            notification.event,
            notification.subject,
            error,
        )
        return False


def body_of(ledger: Ledger, notification: Notification) -> bytes:
    """The body that is sent: the event, and documents as `-o json` gives them."""
    document = (
        json.loads(notification.data) if notification.data else _build(ledger, notification.subject)
    )
    return _body(
        ledger.installation, notification.id, notification.event.value, notification.at, document
    )


def _body(
    installation: str, name: str, event: str, at: float, document: Mapping[str, Any]
) -> bytes:
    head = {"id": name, "event": event, "time": iso(at), "installation": installation}
    return json.dumps({**head, **document}).encode()


def _build(ledger: Ledger, name: str) -> Mapping[str, Any]:
    build = ledger.builds.get(name)
    start = ledger.instances.starts([build.instance or ""]).get(build.instance or "")
    document = ended_document(build, ledger.events.list(name))
    return envelope("build", [{**document, "start": start}])


def try_out(webhook: Webhook, installation: str, now: float) -> tuple[str, str]:
    """Send a test event, past the outbox. Return its id, and why it was not taken."""
    name = ids.event_id()
    body = _body(installation, name, TEST, now, envelope(TEST, []))
    if webhook.people:
        return name, _tell(webhook, body)
    return name, webhooks.post(webhook.url, webhook.key, event=TEST, name=name, body=body, now=now)


def one_of(settings: list[NotifySettings], name: str) -> NotifySettings:
    """Return the endpoint of this name. Raises NotFound."""
    for endpoint in settings:
        if endpoint.name == name:
            return endpoint
    raise NotFound(
        f"notify: no endpoint {name!r} is configured",
        hint=units.did_you_mean(name, [endpoint.name for endpoint in settings]),
    )


def findings(ledger: Ledger, settings: list[NotifySettings], now: float) -> Iterator[Finding]:
    """Say of each endpoint whether it takes what it is told."""
    statuses = {status.name: status for status in ledger.outbox.status()}
    for endpoint in settings:
        try:
            endpoint.key()
        except ConfigError as error:
            level, text, fix = Level.ERROR, str(error.args[0]), error.hint
        else:
            test = f"vmrunner notify test {endpoint.name}"
            level, text, fix = _verdict(statuses.get(endpoint.name), now, test)
            if level is Level.OK and endpoint.in_the_clear:
                text = f"what it is told crosses the network in the clear; {text}"
                level, fix = Level.WARNING, "https://"
        yield Finding(check=f"notify {endpoint.name}", level=level, message=text, fix=fix)
    if TRACES in statuses:
        level, text, fix = _verdict(
            statuses[TRACES], now, "see the collector, and OTEL_EXPORTER_OTLP_*"
        )
        yield Finding(check="traces", level=level, message=text, fix=fix)


def _verdict(status: EndpointStatus | None, now: float, fix: str) -> tuple[Level, str, str]:
    if status is None or now - status.named_at > FORGOTTEN:
        return Level.WARNING, "no `serve` has named it: nothing is written for it", "vmrunner serve"
    if status.given_up_at is not None and now - status.given_up_at < 2 * GIVE_UP:
        ago = units.span(now - status.given_up_at)
        return Level.ERROR, f"{status.given_up} events were given up, the last {ago} ago", fix
    if status.error:
        return Level.WARNING, f"{status.waiting} events wait: {status.error}", fix
    if status.delivered_at is None:
        return Level.OK, "it was told nothing yet", ""
    return Level.OK, f"it took an event {units.span(now - status.delivered_at)} ago", ""
