"""The costs of VMs that are gone, by a few columns of their rows, read much faster than a whole
row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from vmrunner.core import cost_report, pricing
from vmrunner.core.cost_report import Spent
from vmrunner.errors import Unreadable
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.tables import INSTANCES
from vmrunner.model import PriceSource, Rate, Role

_i = INSTANCES.c

#: What `spent` reads, in its order.
COLUMNS: Final = (
    _i.id, _i.build, _i.provider, _i.role, _i.ref.is_(None), _i.created_at, _i.gone_at,
    _i.parked_at, _i.claimed_at, _i.usd_hour, _i.parked_usd_hour, _i.price_source, _i.price_at,
)  # fmt: skip
_ROLES: Final = {role.value: role for role in Role}
_SOURCES: Final = {source.value: source for source in PriceSource}


def spent(row: Sequence[Any], until: float = math.inf) -> Spent:
    """A row that begins with these columns. With `until` the end of its build's last VM follows.
    Raises Unreadable."""
    try:
        name, build, provider, role, never, created, gone, parked, claimed, *prices = row[:13]
        usd, parked_usd, source, at = prices
        numbers = (created, gone, parked, claimed, usd, parked_usd, at)
        for number in numbers:
            codec.finite_or_none(number)
        rate = Rate(usd_hour=usd, parked_usd_hour=parked_usd, source=_SOURCES[source], at=at)
        return Spent(
            cost_report.kind_of(build, _ROLES[role]),
            build,
            name,
            provider,
            rate,
            () if never else tuple(pricing.stretches(created, gone, parked, claimed, rate)),
            True,
            until,
            row[13] or 0.0 if len(row) > 13 else 0.0,
        )
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Unreadable(f"the row of {row[0]} cannot be read: {why}") from error
