"""Creating: one insert for one order, its operation, and the meaning of failures for the next.

The operation is waited for, since only it tells that a zone has no room. That is in a thread of the
engine's own for creates; what breaks off is `Uncertain`, and the identical order, sent again by its
request id, comes to the same operation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from vmrunner.errors import BadOrder, ProviderError, Uncertain
from vmrunner.model import Kind, Offer, Order, Ref
from vmrunner.providers.common.call_failed import CallFailed, tolerated
from vmrunner.providers.common.capacity_pools import CREATE_TIMEOUT, DryPools, pool_of
from vmrunner.providers.gce import create_request, error_codes
from vmrunner.providers.gce.client import DELETE, GET, INSERT, WAIT_FOR, GceClient
from vmrunner.providers.gce.labels import label
from vmrunner.providers.gce.operations import OperationWaiter
from vmrunner.providers.gce.options import GceOptions

#: The field that a refusal of an absolute deadline names.
_ABSOLUTE: Final = "terminationTime"
#: And how a type that stays where it is refuses to move.
_MIGRATION: Final = re.compile(r"onHostMaintenance|live.migrat", re.IGNORECASE)


class GceCreator:
    """Launches in one project."""

    def __init__(
        self,
        options: GceOptions,
        client: GceClient,
        dry: DryPools,
        now: Callable[[], float],
        waiter: OperationWaiter,
    ) -> None:
        """`now` is the cloud's time."""
        self._options = options
        self._client = client
        self._dry = dry
        self._now = now
        self._waiter = waiter

    def create(self, order: Order) -> Ref:
        """Raises `CallFailed`, `BadOrder` or `Uncertain`."""
        offer = order.offer
        try:
            failed = self._ended(self._asked(order), offer)
            if failed is not None:
                self._clean_up(order)
                raise failed
        except CallFailed as failed:
            if failed.code in error_codes.EXISTS:
                return self._found(order, failed)
            self._dry.failed(pool_of(offer), failed)
            raise
        self._dry.clear(pool_of(offer))
        return ref_of(order)

    def _asked(self, order: Order) -> Any:
        """The operation. What a type or a project does not take of a VM's schedule is asked for
        otherwise, as far as that comes to the same."""
        way = create_request.USUAL
        while True:
            try:
                return self._insert(order, way)
            except CallFailed as failed:
                other = self._otherwise(order, way, failed)
                if other == way:
                    raise
                way = other

    def _otherwise(
        self, order: Order, way: create_request.RequestVariant, failed: CallFailed
    ) -> create_request.RequestVariant:
        remaining, message = order.deadline - self._now(), str(failed)
        if way.duration is None and _ABSOLUTE in message and remaining >= create_request.SHORTEST:
            return way._replace(duration=remaining)
        if isinstance(failed.error, BadOrder) and _MIGRATION.search(message):
            return way._replace(migrates=False)
        return way

    def _insert(self, order: Order, way: create_request.RequestVariant) -> Any:
        return self._client(
            INSERT,
            zone=order.offer.scope.place,
            patience=CREATE_TIMEOUT,
            instance_resource=create_request.instance(order, self._options, way),
            request_id=create_request.request_id(order.instance, way),
        )

    def _ended(self, operation: Any, offer: Offer) -> CallFailed | None:
        """Wait until it is done, and tell how it ended. Raises `Uncertain` when it goes on."""
        try:
            operation = self._waiter.done(operation, WAIT_FOR, zone=offer.scope.place)
        except CallFailed as failed:
            # What was accepted may go on, even if these credentials may not ask about it.
            raise Uncertain(f"{operation.name}: {failed.error}") from failed
        return error_codes.of_operation(operation, action=INSERT.action, where=offer.scope.place)

    def _clean_up(self, order: Order) -> None:
        """Delete what an insert that failed left behind, before another is tried. Raises
        `Uncertain` when that cannot be told."""
        try:
            if self._there(order) is not None:
                self._client(
                    DELETE,
                    zone=order.offer.scope.place,
                    instance=order.instance,
                    no_graceful_shutdown=True,
                )
        except CallFailed as failed:
            if failed.code not in error_codes.MISSING:
                raise Uncertain(f"what a failed insert left is not seen dead: {failed}") from failed

    def _found(self, order: Order, failed: CallFailed) -> Ref:
        """Return the VM that exists: it is the VM of this order, if it is tagged so."""
        vm = self._there(order)
        if vm is None:
            raise Uncertain(f"{failed}; and it is not there") from failed
        wanted = create_request.instance(order, self._options)["labels"]
        if {k: v for k, v in vm.labels.items() if k in wanted} != wanted:
            error: ProviderError = Uncertain(
                f"{order.instance} exists, and is not of this order: its "
                f"{label('build')} is {vm.labels.get(label('build'))!r}"
            )
            raise error from failed
        return ref_of(order)

    def _there(self, order: Order) -> Any | None:
        with tolerated(error_codes.MISSING):
            return self._client(GET, zone=order.offer.scope.place, instance=order.instance)
        return None


def ref_of(order: Order) -> Ref:
    return Ref(order.offer.scope, Kind.INSTANCE, order.instance)
