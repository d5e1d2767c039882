"""Providers and scopes that the configuration dropped while rows of theirs are open.

They cannot be dropped: nothing new is launched there, but looking, sweeping and deleting go on
until nothing of theirs is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from vmrunner.errors import ConfigError, Refused
from vmrunner.model import (
    Fate,
    Finding,
    Instance,
    InstanceState,
    Key,
    Level,
    Offer,
    Order,
    Outcome,
    Page,
    Ref,
    Scope,
    Seen,
    Spec,
)
from vmrunner.providers import (
    Arms,
    HoldsAllowLists,
    HoldsNoNetwork,
    LookPace,
    PacesLooks,
    Provider,
    Seals,
    capabilities,
)
from vmrunner.providers.deletion import delete_each
from vmrunner.providers.port_images import ImageStore, KeepsImages


class RetiredProvider:
    """Former drivers under one name, and the present one where the name still has one. A scope
    that the present one has is its own; the others are the former ones'. It can arm, seal or keep
    images where one of them can. Each has a clock of its own: what must tell the time goes by
    `parts`, or by `driver_at`. `before`: drivers whose scopes are not its own."""

    def __init__(
        self,
        name: str,
        former: Sequence[Provider],
        present: Provider | None,
        before: Sequence[Provider] = (),
    ) -> None:
        self.name = name
        self.former = tuple(former)
        self.present = present
        self._before = tuple(before)
        if any(isinstance(driver, Arms) for driver in self._drivers):
            self.arm = self._arm
        if any(isinstance(driver, Seals) for driver in self._drivers):
            self.seal = self._seal
        if any(isinstance(driver, KeepsImages) for driver in self._drivers):
            self.imaging = self._imaging

    @property
    def scopes(self) -> frozenset[Scope]:
        return _scopes(self._drivers) - _scopes(self._before)

    @property
    def creates(self) -> int:
        return self._drivers[0].creates

    def now(self) -> float:
        """The clock of the first: no other's VMs may be judged by it."""
        return self._drivers[0].now()

    @property
    def parts(self) -> tuple[RetiredProvider, ...]:
        """Return each driver alone, with the scopes that are its own."""
        every = self._drivers
        return tuple(
            RetiredProvider(self.name, (driver,), None, every[:n]) for n, driver in enumerate(every)
        )

    @property
    def holds_allow_lists(self) -> bool:
        """True if one of them can; `offers` and `create` ask the one that is meant."""
        return any(
            isinstance(driver, HoldsAllowLists) and driver.holds_allow_lists
            for driver in self._drivers
        )

    @property
    def holds_no_network(self) -> bool:
        """True if one of them does; `offers` asks the one that is meant."""
        return any(
            isinstance(driver, HoldsNoNetwork) and driver.holds_no_network
            for driver in self._drivers
        )

    def offers(self, spec: Spec) -> Sequence[Offer]:
        if self.present is None:
            raise Refused(f"{self.name} is not in the configuration any more: nothing starts there")
        return capabilities.offers(self.present, spec)

    def create(self, order: Order) -> Ref:
        """Create a VM whose row was written before the drop. The machine may be there already: then
        only the identical order finds it."""
        driver = self._at(order.offer.scope)
        if driver is None:
            raise Refused(f"{order.offer.scope} is no scope of {self.name}")
        capabilities.check(driver, order.network)
        return driver.create(order)

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        """One driver that fails shows none of its own and hides no other's. Raises when all did."""
        seen: dict[Key, Seen] = {}
        failures, answers = [], 0
        for driver in self._drivers:
            keys = [key for key in ids if self._at(key.scope) is driver]
            if not keys:
                continue
            try:
                seen |= driver.look(keys)
                answers += 1
            except Exception as error:  # noqa: BLE001 - see above
                failures.append(error)
        if failures and not answers:
            raise failures[0]
        return seen

    def sweep(self) -> Iterator[Page]:
        """One driver that fails hides no other's: it is told when all the others were listed."""
        failures = []
        for driver in self._drivers:
            try:
                for page in driver.sweep():
                    if self._at(page.scope) is driver:
                        yield page
            except Exception as error:  # noqa: BLE001 - see above
                failures.append(error)
        if failures:
            raise failures[0]

    def delete(self, refs: Sequence[Ref], *, force: bool = False) -> Mapping[Ref, Outcome]:
        outcomes: dict[Ref, Outcome] = {}
        for driver in self._drivers:
            own = [ref for ref in refs if self._at(ref.scope) is driver]
            if own:
                outcomes |= delete_each(driver, own, force=force)
        lost = Outcome(fate=Fate.FAILED, error=f"no scope of {self.name}")
        return {ref: outcomes.get(ref, lost) for ref in refs}

    def _arm(self, ref: Ref, instance: str, deadline: float) -> Ref | None:
        driver = self._at(ref.scope)
        return driver.arm(ref, instance, deadline) if isinstance(driver, Arms) else None

    def _seal(self, ref: Ref) -> None:
        driver = self._at(ref.scope)
        if isinstance(driver, Seals):
            driver.seal(ref)

    def _imaging(self, scope: Scope | None = None) -> ImageStore:
        driver = self.present if scope is None else self._at(scope)
        if not isinstance(driver, KeepsImages):
            raise ConfigError(f"{self.name}: no images are made there any more")
        return driver.imaging(scope)

    def console(self, ref: Ref) -> str:
        driver = self._at(ref.scope)
        return driver.console(ref) if driver is not None else ""

    def check(self) -> Sequence[Finding]:
        scopes = {scope for driver in self.former for scope in driver.scopes}
        remaining = scopes - (self.present.scopes if self.present else frozenset())
        where = ", ".join(sorted(map(str, remaining))) or self.name
        finding = Finding(
            check="dropped",
            level=Level.WARNING,
            message=f"{where}: swept until its VMs are gone",
        )
        return (finding, *(self.present.check() if self.present else ()))

    @property
    def _drivers(self) -> tuple[Provider, ...]:
        return (self.present, *self.former) if self.present is not None else self.former

    def _at(self, scope: Scope) -> Provider | None:
        if any(scope in driver.scopes for driver in self._before):
            return None
        return next((driver for driver in self._drivers if scope in driver.scopes), None)


def _scopes(drivers: Iterable[Provider]) -> frozenset[Scope]:
    return frozenset().union(*(driver.scopes for driver in drivers))


def driver_at(provider: Provider, scope: Scope) -> Provider | None:
    """The one driver that has this scope, and whose clock tells the time there."""
    if isinstance(provider, RetiredProvider):
        return provider._at(scope)
    return provider if scope in provider.scopes else None


def drivers_of(provider: Provider) -> tuple[tuple[Provider, ...], tuple[Provider, ...]]:
    """The drivers under a provider's name, the present one first, and those whose scopes are not
    its own."""
    if isinstance(provider, RetiredProvider):
        return provider._drivers, provider._before
    return (provider,), ()


def clock_at(provider: Provider, scope: Scope | None) -> float:
    """The time in a scope, by its own driver, as far as it is known without a question."""
    if isinstance(provider, RetiredProvider) and scope is not None:
        provider = provider._at(scope) or provider
    return provider.now()


def pace_at(provider: Provider, scope: Scope) -> LookPace:
    """Pace of looks at the VMs of a scope, by its own driver's word."""
    if isinstance(provider, RetiredProvider):
        provider = provider._at(scope) or provider
    return provider.look_every if isinstance(provider, PacesLooks) else LookPace()


def parts(name: str, provider: Provider) -> dict[str, Provider]:
    """The drivers of one name, each of which is reaped by itself and by its own clock, by the
    names that their memory goes by. The first, the present one, keeps the name."""
    if not isinstance(provider, RetiredProvider):
        return {name: provider}
    return {f"{name} ({n})" if n else name: part for n, part in enumerate(provider.parts)}


def present(provider: Provider) -> Provider | None:
    """The driver that may launch."""
    return provider.present if isinstance(provider, RetiredProvider) else provider


def kept(
    old: Mapping[str, Provider], new: Mapping[str, Provider], rows: Iterable[Instance]
) -> dict[str, Provider]:
    """The providers of a new configuration, and the `old` ones that still have open rows, of their
    name or of a former name of that account. One that does not tell its scopes for now is kept
    while no other has the rows of its name."""
    scopes_by_name: dict[str, set[Scope]] = {}
    for row in rows:
        if row.state is not InstanceState.GONE:
            scopes_by_name.setdefault(row.provider, set()).add(row.scope)
    providers = dict(new)
    alone = frozenset().union(*scopes_by_name.values()) - (
        _scopes(new.values()) if scopes_by_name else set()
    )
    for name, driver in old.items():
        successor = new.get(name)
        uncovered = scopes_by_name.get(name, set()) - (
            successor.scopes if successor else frozenset()
        )
        drivers = driver.former if isinstance(driver, RetiredProvider) else ()
        was = present(driver)
        if was is not None and was is not successor:
            drivers = (was, *drivers)
        former = [
            d for d in drivers if (own := d.scopes) & (uncovered | alone) or (uncovered and not own)
        ]
        if former:
            providers[name] = RetiredProvider(name, former, successor)
    return providers
