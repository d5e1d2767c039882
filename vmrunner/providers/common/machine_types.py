"""Machine types, as far as every cloud tells of them, and which of them a build can have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vmrunner.errors import BadOrder
from vmrunner.model import Offer, Scope, Spec
from vmrunner.providers.common.capacity_pools import CapacityPool


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineType:
    """A machine type. `architectures`: none where it does not say."""

    name: str
    cpus: int
    memory: int  # bytes
    architectures: tuple[str, ...]

    def offer(self, pool: CapacityPool, scope: Scope, *, disk: int, image: str) -> Offer:
        """Return the offer of one in this pool."""
        return Offer(
            scope=scope,
            machine_type=self.name,
            place=pool.place,
            market=pool.market,
            cpus=self.cpus,
            memory=self.memory,
            disk=disk,
            image=image,
        )


T = TypeVar("T", bound=MachineType)


def fitting(types: Iterable[T], spec: Spec, architecture: str) -> dict[str, T]:
    """Return the types, by name, that are large enough and run images of this architecture (empty:
    of any)."""
    return {
        machine.name: machine
        for machine in types
        if machine.cpus >= (spec.cpus or 0)
        and machine.memory >= (spec.memory or 0)
        and (not architecture or not machine.architectures or architecture in machine.architectures)
    }


def none_fits(
    name: str, types: Sequence[str], locations: Sequence[str], spec: Spec, why: str = ""
) -> BadOrder:
    """Return the error of a provider in none of whose places a type fits. `why`: those that are
    large enough do not."""
    field = f"providers.{name}.machine_types"
    wanted = [f"cpus = {spec.cpus}" if spec.cpus else "", f"memory = {spec.memory or ''}"]
    return BadOrder(
        f"{field}: none of {', '.join(types)} is to be had in {', '.join(locations)} with "
        f"{', '.join(word for word in wanted if word)}{why and f': {why}'}",
        hint=f"correct {field}, or ask for less",
    )
