"""Webhooks of the operator, and the notifications that wait for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vmrunner.model.choices import NotifyEvent

#: The endpoint of traces: no webhook can have its name.
TRACES: Final = "otel:traces"


@dataclass(frozen=True, kw_only=True, slots=True)
class NotifyEndpoint:
    """A webhook as the ledger knows it, without URL and secret. `match`: labels that a build must
    have."""

    name: str
    events: frozenset[NotifyEvent]
    match: Mapping[str, str] = field(default_factory=dict)

    def wants(self, event: NotifyEvent, labels: Mapping[str, str]) -> bool:
        return event in self.events and self.match.items() <= labels.items()


@dataclass(frozen=True, kw_only=True, slots=True)
class Notification:
    """One event for one endpoint. `id`: the event's, the same at every try and for every endpoint.
    `data`: a document of facts that the ledger will not have later."""

    id: str
    endpoint: str
    event: NotifyEvent
    subject: str
    at: float
    data: str
    tries: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointStatus:
    """State of an endpoint. `error`: of its last try; "" if that succeeded."""

    name: str
    named_at: float
    waiting: int
    oldest: float | None
    delivered_at: float | None
    failures: int
    error: str
    given_up: int
    given_up_at: float | None
