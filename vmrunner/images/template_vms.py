"""Rows of the VMs that a template is made of: written before the VM, closed once that is dead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from vmrunner.errors import BadOrder, ImageError, NoCapacity
from vmrunner.ledger.transfer_types import LaunchRequest
from vmrunner.model import Access, Death, Instance, InstanceState, Key, Order, Ref
from vmrunner.providers import Provider
from vmrunner.providers.deletion import delete_until_dead
from vmrunner.providers.hourly_rates import rate_of

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

_END: Final = 60.0  # seconds in which such a VM must end
_PAUSE: Final = 0.2  # seconds between looks


class TemplateVms:
    """The VMs of which one process makes a template. `maker`: that process among the members of the
    ledger; once it is gone, the reaper ends them."""

    def __init__(
        self,
        ledger: Ledger,
        provider: Provider,
        maker: str,
        *,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._ledger, self._provider, self._maker = ledger, provider, maker
        self._sleep = sleep

    @property
    def installation(self) -> str:
        """Installation that owns these VMs."""
        return self._ledger.installation

    @property
    def generation(self) -> str:
        """Return the ledger's generation, which has their rows."""
        return self._ledger.generation

    @contextmanager
    def recorded(self, order: Order, access: Access, create: Callable[[], Ref]) -> Iterator[Ref]:
        """Write an order's row and create its VM, which is dead at the end. Raises LedgerError,
        what `create` raises, and ImageError where the VM lives on, left to the reaper."""
        ledger, row = self._ledger, self._row(order)
        launch = LaunchRequest(
            build_id=None, seen_epoch=0, instance=row, order=order, access=access
        )
        if not (won := ledger.instances.start([launch], until=order.deadline)):
            raise ImageError(f"template: {won.over_budget[row.id]}")
        try:
            ref = create()
        except (BadOrder, NoCapacity):
            self._close(row, Death.REFUSED)
            raise
        except BaseException:
            with suppress(ImageError):  # what `create` says is told; the row is left to the reaper
                self._end(row, None)
            raise
        try:
            ledger.instances.record([(row.id, row.epoch, ref)], self._provider.now())
            yield ref
        finally:
            self._end(row, ref)

    def _row(self, order: Order) -> Instance:
        now, name = self._provider.now(), self._provider.name
        prices = self._ledger.prices.of(order.offer.scope)
        return Instance(
            id=order.instance,
            build=None,
            attempt=0,
            provider=name,
            offer=order.offer,
            rate=rate_of(self._provider, order.offer, order.role, prices, now),
            role=order.role,
            state=InstanceState.REQUESTED,
            created_at=now,
            state_since=now,
            deadline=order.deadline,
            epoch=1,
            owner=self._maker,
        )

    def _end(self, row: Instance, ref: Ref | None) -> None:
        key = Key(row.scope, row.id)
        progress = delete_until_dead(
            self._provider, {key: ref}, seconds=_END, pause=_PAUSE, force=True, sleep=self._sleep
        )
        if key not in progress.dead:
            raise ImageError(
                f"template: {row.id} does not end: {progress.refused or 'it lives on'}"
            )
        self._close(row, Death.DONE)

    def _close(self, row: Instance, death: Death) -> None:
        now = self._provider.now()
        self._ledger.instances.close(row.id, epoch=row.epoch, death=death, now=now)
