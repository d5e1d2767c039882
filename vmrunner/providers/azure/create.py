"""Creating: one PUT for one VM that is not there yet. The identical order again is the same VM."""

from __future__ import annotations

from vmrunner.errors import BadOrder, QuotaExceeded, Uncertain
from vmrunner.model import TAG, Kind, Order, Ref
from vmrunner.providers.azure import create_request, error_codes
from vmrunner.providers.azure.boots import ManagedBoots
from vmrunner.providers.azure.catalog import AzureCatalog, AzureSize, placement
from vmrunner.providers.azure.client import DELETE, PUT, VM, Answer, AzureClient
from vmrunner.providers.azure.operations import AzureWaiter
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.azure.quotas import AzureQuotas
from vmrunner.providers.azure.resources import tags
from vmrunner.providers.common.call_failed import CallFailed, tolerated
from vmrunner.providers.common.capacity_pools import CREATE_TIMEOUT, DryPools, pool_of


class AzureCreator:
    """Launches in one resource group."""

    def __init__(
        self,
        options: AzureOptions,
        client: AzureClient,
        catalog: AzureCatalog,
        dry: DryPools,
        waiter: AzureWaiter,
        quotas: AzureQuotas,
        boots: ManagedBoots,
    ) -> None:
        self._options = options
        self._client = client
        self._catalog = catalog
        self._dry = dry
        self._waiter = waiter
        self._quotas = quotas
        self._boots = boots

    def create(self, order: Order) -> Ref:
        """Raises `CallFailed`, `BadOrder`, `Throttled` or `Uncertain`."""
        offer = order.offer
        self._boots.begin(offer.image, order.instance)
        group = offer.scope.place
        try:
            size = self._catalog.size(offer.machine_type)
            begun = self._client.insert(
                patience=CREATE_TIMEOUT,
                group=group,
                vm_name=order.instance,
                parameters=create_request.machine(
                    order,
                    self._options,
                    local=self._placement(order, size),
                    controller=size.controller if size is not None else "",
                ),
            )
            failed = self._waiter.refused(PUT, begun, group, order.instance)
            if failed is not None:
                self._clean_up(order)
                raise failed
        except BadOrder:  # Azure was not asked
            self._boots.end(order.instance)
            raise
        except CallFailed as failed:
            if failed.code in error_codes.EXISTS:
                return self._found(order, failed)
            if not isinstance(failed.error, Uncertain):
                self._boots.end(order.instance)
            self._dry.failed(pool_of(offer), failed)
            if failed.code == error_codes.NO_SPOT:
                self._dry.shut(offer.market, failed.code)
            if isinstance(failed.error, QuotaExceeded):
                self._quotas.forget()
            raise
        self._dry.clear(pool_of(offer))
        return ref_of(order)

    def _placement(self, order: Order, size: AzureSize | None) -> str:
        """Place of its disk on its host, if the size has room for it there; else "". Azure cannot
        stop such a VM, so none is made for a pool, whose VMs may be parked."""
        if self._options.os_disk != "ephemeral" or order.pool is not None:
            return ""
        return placement(self._options, size, order.offer.disk)

    def _clean_up(self, order: Order) -> None:
        """Delete what a create that failed left behind, before another is tried. Raises `Uncertain`
        when that cannot be told. Parts without their VM are left to the sweep."""
        try:
            group = order.offer.scope.place
            self._client.begin(DELETE, group=group, vm_name=order.instance, force_deletion=True)
        except CallFailed as failed:
            if failed.code not in error_codes.MISSING:
                raise Uncertain(f"what a failed create left is not seen dead: {failed}") from failed

    def _found(self, order: Order, failed: CallFailed) -> Ref:
        """Return the VM that exists: it is the VM of this order, if it is tagged so."""
        vm = self._there(order)
        if vm is None:
            raise Uncertain(f"{failed}; and it is not there") from failed
        wanted = create_request.tags_for(order, self._options)
        actual = tags(vm)
        if any(actual.get(key) != value for key, value in wanted.items() if key.startswith(TAG)):
            raise Uncertain(
                f"{order.instance} exists, and is not of this order: its {TAG}build is "
                f"{actual.get(f'{TAG}build')!r}"
            ) from failed
        return ref_of(order)

    def _there(self, order: Order) -> Answer | None:
        with tolerated(error_codes.MISSING):
            return self._client(VM, group=order.offer.scope.place, vm_name=order.instance)
        return None


def ref_of(order: Order) -> Ref:
    return Ref(order.offer.scope, Kind.INSTANCE, order.instance)
