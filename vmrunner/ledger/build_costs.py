"""The cost of a build, kept in its row: noted when it ends, and when each of its VMs is gone."""

from __future__ import annotations

from dataclasses import replace

from vmrunner.core import pricing
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.row_reading import readable
from vmrunner.ledger.sql import Connection, case, false, select, update
from vmrunner.ledger.statements import Prepared, arg
from vmrunner.ledger.tables import BUILDS, INSTANCES
from vmrunner.model import BuildState, Cost

_b, _i = BUILDS.c, INSTANCES.c

_ITS = Prepared(lambda: select(*codec.INSTANCE).where(_i.build == arg("build")))
_SETTLE = Prepared(
    lambda: (
        update(BUILDS)
        .where(_b.id == arg("build"))
        .values(
            cost=arg("known"),
            unpriced=arg("unpriced"),
            price_source=arg("source"),
            price_at=arg("at"),
            cost_final=case((_b.state == BuildState.FINISHED.value, arg("final")), else_=false()),
        )
        .returning(_b.cost_final)
    )
)


def settle(connection: Connection, build: str, now: float) -> Cost:
    """Note what its VMs have cost until `now`, within a transaction that has locked the build's
    row. A VM whose row cannot be read is one without a price: nothing waits for it."""
    found = readable(codec.instance, _ITS(connection, build=build).all())
    cost = pricing.total(found, lambda _: now, over=not found.unread)
    cost = replace(cost, unpriced=cost.unpriced + len(found.unread))
    final = _SETTLE(
        connection, build=build, known=cost.known, unpriced=cost.unpriced, final=cost.final,
        source=cost.source.value if cost.source else None, at=cost.at,
    ).scalar()  # fmt: skip
    return replace(cost, final=bool(final))
