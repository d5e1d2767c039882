"""Creating: one call for one order, and the meaning of its failures for the next."""

from __future__ import annotations

from typing import Final

from vmrunner.model import Key, Kind, Order, Ref
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.capacity_pools import CREATE_TIMEOUT, DryPools, pool_of
from vmrunner.providers.ec2 import create_request
from vmrunner.providers.ec2.catalog import Ec2Catalog
from vmrunner.providers.ec2.client import RUN, Ec2Client
from vmrunner.providers.ec2.describe import look
from vmrunner.providers.ec2.error_codes import NO_SPOT_ROLE
from vmrunner.providers.ec2.options import Ec2Options

#: Its client token was used: with other parameters, or by a machine that is dead now.
USED: Final = ("IdempotentParameterMismatch", "IdempotentInstanceTerminated")


class Ec2Creator:
    """Launches in one region."""

    def __init__(
        self, options: Ec2Options, client: Ec2Client, catalog: Ec2Catalog, dry: DryPools
    ) -> None:
        self._options = options
        self._client = client
        self._catalog = catalog
        self._dry = dry

    def create(self, order: Order) -> Ref:
        """Raises `CallFailed` or `BadOrder`."""
        offer = order.offer
        request = create_request.request(order, self._options, self._catalog.image(offer.image))
        try:
            answer = self._client(offer.scope.place, RUN, patience=CREATE_TIMEOUT, **request)
        except CallFailed as failed:
            if failed.code in USED:
                return self._found(order, failed)
            if failed.code == NO_SPOT_ROLE:
                self._dry.shut(offer.market, f"{failed.code}: {failed.error.hint}")
            else:
                self._dry.failed(pool_of(offer), failed)
            raise
        self._dry.clear(pool_of(offer))
        (instance,) = answer["Instances"]
        return Ref(offer.scope, Kind.INSTANCE, instance["InstanceId"])

    def _found(self, order: Order, failed: CallFailed) -> Ref:
        """Return the VM that exists, or did: it is the VM of this order."""
        key = Key(order.offer.scope, order.instance)
        seen = look(self._client, [key], order.installation, public=True).get(key)
        if seen is None:
            raise failed
        return seen.ref
