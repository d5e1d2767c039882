"""How many VMs a pool is to have, as its manager finds it."""

from __future__ import annotations

from dataclasses import replace

from tests.support.engine_parts import EngineParts
from tests.support.ledger_builds import OFFER, submitted
from tests.support.pools import POOL, waiting
from vmrunner.engine.pool_sizes import RENEW, PoolSizer
from vmrunner.model import Pool, PoolSpec

DEMAND = replace(POOL, size=None, hit_rate=0.9, least=1, most=6)


def came(parts: EngineParts, count: int = 60, waited: float = 0.0) -> None:
    """Builds that are started one after the other, so long after they were submitted."""
    for n in range(count):
        parts.clock.advance(5.0)
        build = replace(submitted(parts.ledger, f"b-{n}"), created_at=parts.clock() - waited)
        parts.ledger.pools.missed([(build, "fast", "")], parts.clock())


def pool(spec: PoolSpec = POOL, **changes: int) -> Pool:
    return replace(Pool(spec=spec, shape="s", revision=1), **changes)


def sized(parts: EngineParts, wanted: Pool) -> tuple[int, bool]:
    return PoolSizer(parts.context).size(wanted, "", [OFFER], parts.clock())


def test_a_wished_size_comes_first(parts: EngineParts) -> None:
    assert sized(parts, pool()) == (2, False)
    assert sized(parts, pool(size=5)) == (5, False)


def test_a_size_by_schedule(parts: EngineParts) -> None:
    spec = replace(POOL, size=None, schedule=(("* * * * *", 4),))
    assert sized(parts, pool(spec)) == (4, False)


def test_what_idles_costs_no_more_than_a_day_may(parts: EngineParts) -> None:
    dear = replace(OFFER, usd_hour=1.0)
    spec = replace(POOL, usd_per_day=3.0)
    sizer = PoolSizer(parts.context)
    assert sizer.size(pool(spec), "", [dear], 1_800_000_000.0)[1]
    free = PoolSizer(parts.context)
    assert free.size(pool(spec), "", [OFFER], 1_800_000_000.0) == (2, False)


def test_what_was_spent_today_counts(parts: EngineParts) -> None:
    midnight = 1_800_057_600.0
    waiting(parts.ledger, now=midnight)
    dear = replace(OFFER, usd_hour=1.0)
    spec = replace(POOL, usd_per_day=24.0, size=1)
    assert PoolSizer(parts.context).size(pool(spec), "", [dear], midnight) == (1, False)


def test_demand_makes_it_grow_and_night_makes_it_shrink(parts: EngineParts) -> None:
    sizer = PoolSizer(parts.context)
    parts.ledger.pools.declare({"fast": DEMAND}, "e-1", parts.clock())
    assert sizer.size(pool(DEMAND), "", [OFFER], parts.clock()) == (1, False)
    came(parts)
    parts.clock.advance(60.0)
    grown, _ = sizer.size(pool(DEMAND), "", [OFFER], parts.clock())
    assert grown > 3
    parts.clock.advance(100 * 3600.0)
    sizer.size(pool(DEMAND), "", [OFFER], parts.clock())
    parts.clock.advance(61.0)
    assert sizer.size(pool(DEMAND), "", [OFFER], parts.clock())[0] < grown


def test_what_waited_for_a_place_counts_too(parts: EngineParts) -> None:
    parts.ledger.pools.declare({"fast": DEMAND}, "e-1", parts.clock())
    sizer = PoolSizer(parts.context)
    sizer.size(pool(DEMAND), "", [OFFER], parts.clock())
    came(parts, waited=1000.0)
    parts.clock.advance(60.0)
    assert sizer.size(pool(DEMAND), "", [OFFER], parts.clock())[0] > 3


def test_another_engine_goes_on_with_what_arrived(parts: EngineParts) -> None:
    parts.ledger.pools.declare({"fast": DEMAND}, "e-1", parts.clock())
    first = PoolSizer(parts.context)
    first.size(pool(DEMAND), "", [OFFER], parts.clock())
    came(parts)
    parts.clock.advance(60.0)
    grown = first.size(pool(DEMAND), "", [OFFER], parts.clock())
    parts.clock.advance(RENEW)
    assert PoolSizer(parts.context).size(pool(DEMAND), "", [OFFER], parts.clock()) == grown


def test_demand_is_of_the_host_that_it_came_to(parts: EngineParts) -> None:
    parts.ledger.pools.declare({"fast": DEMAND}, "e-1", parts.clock())
    sizer = PoolSizer(parts.context)
    sizer.size(pool(DEMAND), "another", [OFFER], parts.clock())
    came(parts)
    parts.clock.advance(60.0)
    assert sizer.size(pool(DEMAND), "another", [OFFER], parts.clock()) == (1, False)
