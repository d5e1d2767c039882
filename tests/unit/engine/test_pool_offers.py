"""Machines that a pool of one type is filled with, and what it says where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.engine_parts import EngineParts
from tests.support.ledger_builds import OFFER
from tests.support.pools import POOL
from vmrunner.core.scheduling import Offers, OffersAnswer
from vmrunner.engine.engine import Engine
from vmrunner.engine.pool_offers import PoolOffers
from vmrunner.model import EmptyReason, Offer, Reason, Spec

TYPED = replace(POOL, machine_type="large")
LARGE = replace(OFFER, machine_type="large")

Fills = Callable[..., Engine]


@pytest.fixture
def fills(parts: EngineParts) -> Iterator[Fills]:
    """An engine that fills one pool, after its first tick."""
    made: list[Engine] = []

    def fill(**changes: Any) -> Engine:
        engine = parts.engine(
            clock=parts.clock, monotonic=parts.clock, pool=lambda *_: parts.pool,
            pools={"fast": replace(POOL, **changes)}, spawn=lambda _, work: None,
        )  # fmt: skip
        made.append(engine)
        engine.tick()
        return engine

    yield fill
    for engine in made:
        engine.close()


def answering(*offers: Offer, **changes: Any) -> Offers:
    return lambda _provider, _spec: OffersAnswer(offers=offers, **changes)


def types(parts: EngineParts) -> list[str]:
    return [row.offer.machine_type for row in parts.ledger.instances.open()]


def reason(parts: EngineParts) -> EmptyReason | None:
    (pool,) = parts.ledger.pools.all()
    return pool.empty_reason


def test_a_pool_is_filled_with_its_machine_type_alone(parts: EngineParts, fills: Fills) -> None:
    assert [offer.machine_type for offer in parts.provider.offers(Spec())] == ["small", "large"]
    fills(machine_type="large")
    assert types(parts) == ["large", "large"]
    assert reason(parts) is EmptyReason.MAKING


def test_without_a_type_it_has_the_best_offer(parts: EngineParts, fills: Fills) -> None:
    fills()
    assert types(parts) == ["small", "small"]


def test_a_type_that_is_never_offered_is_told(parts: EngineParts, fills: Fills) -> None:
    fills(machine_type="huge")
    assert types(parts) == []
    assert reason(parts) is EmptyReason.MACHINE_TYPE


def test_another_type_is_another_pool(parts: EngineParts, fills: Fills) -> None:
    """VMs of the former type end."""
    fills(machine_type="small").close()
    first = {row.id for row in parts.ledger.instances.open()}
    again = fills(machine_type="large")
    parts.clock.advance(31.0)  # the lease of the first is over
    for _ in range(3):
        again.tick()
    kept = [row for row in parts.ledger.instances.open() if row.state.value != "deleting"]
    assert {row.offer.machine_type for row in kept} == {"large"}
    assert not first & {row.id for row in kept}


def test_a_type_that_is_dry_just_now_is_not_unknown() -> None:
    pool_offers = PoolOffers()
    assert pool_offers.for_pool(answering(OFFER, LARGE), TYPED).offers == (LARGE,)
    assert pool_offers.for_pool(answering(OFFER), TYPED) == ((), EmptyReason.CAPACITY)
    assert PoolOffers().for_pool(answering(OFFER), TYPED) == ((), EmptyReason.MACHINE_TYPE)


@pytest.mark.parametrize("spec", [POOL, TYPED])
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({}, EmptyReason.CAPACITY),
        ({"later": True}, EmptyReason.CAPACITY),
        ({"refused": Reason.CREDENTIALS}, EmptyReason.CREDENTIALS),
        ({"refused": Reason.IMAGE}, EmptyReason.REFUSED),
    ],
)
def test_a_provider_that_offers_nothing_says_why(spec: Any, answer: Any, why: EmptyReason) -> None:
    assert PoolOffers().for_pool(answering(**answer), spec) == ((), why)


def test_builds_know_all_types_that_their_provider_offered_last() -> None:
    """Not the pool's alone: what it would get is a build's to know."""
    pool_offers = PoolOffers()
    pool_offers.for_pool(answering(OFFER, LARGE), TYPED)
    assert pool_offers.would_get(answering(), "local", TYPED.machine) == (OFFER, LARGE)
    assert pool_offers.would_get(answering(refused=Reason.IMAGE), "local", TYPED.machine) == ()


def test_a_machine_that_is_dry_may_be_claimed() -> None:
    pool_offers = PoolOffers()
    pool_offers.would_get(answering(OFFER, LARGE), "local", Spec())
    for _ in range(2):
        assert pool_offers.would_get(answering(OFFER), "local", Spec()) == (OFFER, LARGE)
    newer = replace(OFFER, image="newer")
    assert pool_offers.would_get(answering(newer), "local", Spec()) == (newer,)
