"""A daemon's tasks about the outbox: a sender for each endpoint, and a look every now and then."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vmrunner.ledger.outbox import GIVE_UP
from vmrunner.lib import units
from vmrunner.model import Limits, NotifyEndpoint
from vmrunner.services import alarms, notifications, traces

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings
    from vmrunner.ledger import Ledger
    from vmrunner.runtime.provider_set import ProviderSet

log = logging.getLogger("vmrunner")

DECLARE_INTERVAL: Final = 3600.0  # seconds between two declarations of the same endpoints


class OutboxTasks:
    """The tasks of one daemon. Webhooks are as its configuration has them now, traces as its
    environment says."""

    def __init__(
        self, ledger: Ledger, providers: ProviderSet, clock_doubt: Callable[[], str] = lambda: ""
    ) -> None:
        """`clock_doubt` looks at the clock and says why it is not to be believed, or ""."""
        self._ledger = ledger
        self._clock_doubt = clock_doubt
        self._providers = providers
        self._declared: tuple[list[NotifyEndpoint], float] = [], 0.0

    def senders(self, settings: Settings) -> dict[str, Callable[[], None]]:
        """A sender for each endpoint, by name."""
        return notifications.senders(
            self._ledger, settings.notify, settings.server.url
        ) | traces.senders(self._ledger, os.environ, settings.server.url)

    def declare(self) -> None:
        """Let events be written for the endpoints that there are."""
        endpoints = notifications.endpoints(self._providers.settings.notify)
        endpoints += traces.endpoints(os.environ)
        before, at = self._declared
        now = time.time()
        if endpoints and (endpoints != before or now - at > DECLARE_INTERVAL):
            self._ledger.outbox.declare(endpoints, now)
            self._declared = endpoints, now

    def watch(self) -> None:
        """Declare them again, give up and forget what is too old, and write alarms down."""
        self.declare()
        now = time.time()
        if not self._clock_doubt() and self._ledger.outbox.status():
            for name, count in self._ledger.outbox.tidy(now).items():
                age = units.span(GIVE_UP)
                log.error(
                    "notify %s: %d events were given up: too many, or %s old", name, count, age
                )
        if self._providers.settings.notify:
            alarms.write_alarms(self._ledger, self._providers, grace=Limits().grace, now=now)
