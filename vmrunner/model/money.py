"""Prices, rates, costs. USD; an unknown price is None, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class PriceSource(StrEnum):
    """Sources of a price, the surest first."""

    OWN = "own"  # the user's own machine: it costs nothing
    CLOUD = "cloud"  # the cloud's own price list
    PROVIDER = "provider"  # the driver told it with its offer
    SHIPPED = "shipped"  # the table that came with vmrunner, which may be old
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Price:
    """USD an hour of one thing, as it was at that time."""

    usd_hour: float
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Bill:
    """Quantities that one VM is billed for, by the names of a price list. `parked`: those while it
    is parked."""

    on: Mapping[str, float]
    parked: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """USD an hour of one VM with its disk and address, frozen when it is requested. `at`: date of
    the oldest price in it, in epoch seconds."""

    usd_hour: float | None = None
    parked_usd_hour: float | None = None
    source: PriceSource = PriceSource.UNKNOWN
    at: float | None = None


UNKNOWN_RATE: Final = Rate()


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """USD that some VMs have cost. `known`: the sum of those with a price. `unpriced`: the number
    of the others. `final`: nothing can be added any more."""

    known: float = 0.0
    unpriced: int = 0
    final: bool = False
    source: PriceSource | None = None  # the least sure one of a price in it; None: nothing was born
    at: float | None = None  # when its oldest price was true

    @property
    def usd(self) -> float | None:
        """The whole sum in USD; None if a price is unknown."""
        return None if self.unpriced else self.known


NO_COST: Final = Cost()


class BudgetAction(StrEnum):
    """Answer to a VM that would overdraw a budget."""

    REFUSE = "refuse"
    WARN = "warn"


class BudgetPeriod(StrEnum):
    """Span of a budget, in UTC."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """USD that builds with these labels may cost in each day or month. `actor`: only builds that
    it submitted. VMs that wait in a pool have neither labels nor actor."""

    usd: float
    period: BudgetPeriod
    match: Mapping[str, str] = field(default_factory=dict)
    action: BudgetAction = BudgetAction.REFUSE
    actor: str = ""

    @property
    def name(self) -> str:
        """Return its name for people, different from that of every other budget."""
        labels = (f"{name}={value}" for name, value in sorted(self.match.items()))
        warns = ["warn"] if self.action is BudgetAction.WARN else []
        actor = [self.actor] if self.actor else []
        return " ".join([self.period.value, *labels, *actor, *warns])

    def concerns(self, labels: Mapping[str, str], actor: str) -> bool:
        """True if a build with these labels, submitted by that actor, is paid from it."""
        mine = not self.actor or self.actor == actor
        return mine and all(labels.get(name) == value for name, value in self.match.items())

    def seen_whole(self, labels: Mapping[str, str]) -> bool:
        """Return True if a viewer of builds with these labels sees all that are paid from it."""
        return bool(self.actor) or labels.items() <= self.match.items()


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetState:
    """State of a budget in one period, in USD. `held`: the sum spent, plus what living VMs can
    still cost until their deadlines."""

    budget: Budget
    start: float
    held: float
