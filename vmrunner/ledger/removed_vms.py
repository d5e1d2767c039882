"""VMs whose rows were removed: hosts remember the last one that they started (`restore_detection`),
and a database that lacks it was set back, unless it removed it itself.

The newest of them is kept as a mark. What is older and has no row was removed too: else its row
would still be there, for VMs have names that sort by time. A mark is never younger than `MARGIN`,
by the database's clock, so that nothing that other hosts started since lies below it, whose clocks
may be slow, nor for the name that a fast clock made.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final

from vmrunner.ledger.sql import Connection, func, select, update
from vmrunner.ledger.statements import Prepared, arg
from vmrunner.ledger.tables import LEDGER
from vmrunner.lib import ids

MARGIN: Final = 300.0  # seconds

_l = LEDGER.c
_CLOCK = Prepared(lambda: select(func.date_part("epoch", func.clock_timestamp())))
_MARK = Prepared(
    lambda: (
        update(LEDGER)
        .where(_l.removed_vm.is_(None) | (_l.removed_vm < arg("vm")))
        .values(removed_vm=arg("vm"))
    )
)
_MARKED = Prepared(lambda: select(_l.removed_vm))


def note_removed(connection: Connection, vms: Collection[str]) -> None:
    """Note these, in the transaction that removes their rows."""
    if not vms:
        return
    now = time.time() if connection.dialect.name == "sqlite" else float(_CLOCK(connection).scalar())
    _MARK(connection, vm=min(max(vms), ids.instances_since(now - MARGIN)))


def was_removed(connection: Connection, vm: str) -> bool:
    """True of a VM without a row whose row was there."""
    mark = _MARKED(connection).scalar()
    return mark is not None and vm <= mark
