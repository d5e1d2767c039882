"""Machines that pools are made of and that builds would get, as their providers offered them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from vmrunner.core import pools as rules
from vmrunner.core.scheduling import Offers, OffersAnswer
from vmrunner.model import EmptyReason, Offer, PoolSpec, Reason, Spec

REMEMBERED: Final = 256  # machines whose last offers are remembered


class PoolMachines(NamedTuple):
    """Offers that a pool may be filled with, best first. `why`: why there is none."""

    offers: tuple[Offer, ...]
    why: EmptyReason


class PoolOffers:
    """The last offers, by machine. Used by the tick's thread alone."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, Spec], Sequence[Offer]] = {}
        self._types: set[tuple[str, str]] = set()  # provider, type: was offered once

    def would_get(self, offers: Offers, provider: str, spec: Spec) -> Sequence[Offer]:
        """The machines that a build would get. What waits needs no room: while the provider has
        none of a machine, it counts as when it was offered last."""
        answer = offers(provider, spec)
        if answer.offers:
            former = self._last.get((provider, spec), ())
            if len(self._last) >= REMEMBERED:
                self._last.clear()
            self._last[provider, spec] = (*answer.offers, *_dry(former, answer.offers))
        elif answer.refused is not None or answer.later:
            return ()
        return self._last.get((provider, spec), ())

    def for_pool(self, offers: Offers, spec: PoolSpec) -> PoolMachines:
        """The provider's offers of the pool's machine now, of its type alone where it names one."""
        self.would_get(offers, spec.provider, spec.machine)  # noted for builds that find it dry
        answer = offers(spec.provider, spec.machine)
        if spec.machine_type is None:
            return PoolMachines(answer.offers, _refusal(answer))
        found = tuple(offer for offer in answer.offers if rules.of_type(spec, offer))
        named = (spec.provider, spec.machine_type)
        if found:
            self._types.add(named)
        # A type that was offered before is left out as long as its provider has none of it.
        unknown = answer.offers and named not in self._types
        return PoolMachines(found, EmptyReason.MACHINE_TYPE if unknown else _refusal(answer))


def _refusal(answer: OffersAnswer) -> EmptyReason:
    if answer.refused is Reason.CREDENTIALS:
        return EmptyReason.CREDENTIALS
    return EmptyReason.CAPACITY if answer.refused is None else EmptyReason.REFUSED


def _dry(former: Iterable[Offer], offers: Sequence[Offer]) -> tuple[Offer, ...]:
    """The former offers of the image that is offered now, of machines that are not."""
    images = {offer.image for offer in offers}
    return tuple(
        old
        for old in former
        if old.image in images and not any(rules.same_machine(old, offer) for offer in offers)
    )
