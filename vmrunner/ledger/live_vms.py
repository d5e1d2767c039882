"""The number of VMs that are open, by provider, as a transaction that starts some must know it.

It is counted once, and from then on only what changed since is read: by the change counter, whose
numbers become visible in their order (`change_counter`). So a start costs the same beside ten VMs
and beside ten thousand. A whole count every five minutes is the truth, as for `open_rows`.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

from vmrunner.ledger.database import Database
from vmrunner.ledger.open_rows import MARK, WHOLE, Mark
from vmrunner.ledger.sql import Connection, and_, select
from vmrunner.ledger.statements import Prepared, arg
from vmrunner.ledger.tables import INSTANCES
from vmrunner.model import InstanceState, Role

_i = INSTANCES.c
#: A template's VM takes no place of a build's.
_COUNTED: Final = and_(_i.state != InstanceState.GONE.value, _i.role != Role.IMAGE.value)
_ALL = Prepared(lambda: select(_i.id, _i.provider).where(_COUNTED))
_CHANGED = Prepared(lambda: select(_i.id, _i.provider, _COUNTED).where(_i.revision > arg("seen")))


class LiveVms:
    """The count of one ledger's user. It takes no lock: who counts holds the database's, which
    keeps all others from starting any until it has committed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._mark: Mark | None = None
        self._counted_at = 0.0  # monotonic, of the last whole count
        self._provider_of: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def count(self, connection: Connection) -> Counter[str]:
        """The VMs that are open, by provider. To be called before the transaction changes any."""
        row = MARK(connection).first()
        assert row is not None
        # The mark comes first: what is committed meanwhile is read once more the next time.
        mark, before = Mark(row[0], row[1], self._database.servers_met), self._mark
        self._mark = None  # until all is read
        if before is None or not before.leads_to(mark) or self._is_old:
            self._provider_of = dict(_ALL(connection).all())
            self._counts = Counter(self._provider_of.values())
            self._counted_at = time.monotonic()
        elif mark != before:
            for name, provider, is_open in _CHANGED(connection, seen=before.revision).all():
                self._forget(name)
                if is_open:
                    self._provider_of[name] = provider
                    self._counts[provider] += 1
        self._mark = mark
        return self._counts.copy()

    @property
    def _is_old(self) -> bool:
        return not 0 <= time.monotonic() - self._counted_at < WHOLE

    def _forget(self, name: str) -> None:
        provider = self._provider_of.pop(name, None)
        if provider is not None:
            self._counts[provider] -= 1
