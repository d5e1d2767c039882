"""Being born: one call for one order, and what its failures mean for the next."""

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
        self, options: Ec2Options, calls: Ec2Client, places: Ec2Catalog, dry: DryPools
    ) -> None:
        self._options = options
        self._calls = calls
        self._places = places
        self._dry = dry

    def create(self, order: Order) -> Ref:
        """Raises `CallFailed` or `BadOrder`."""
        offer = order.offer
        asked = create_request.request(order, self._options, self._places.image(offer.image))
        try:
            answer = self._calls(offer.scope.place, RUN, patience=CREATE_TIMEOUT, **asked)
        except CallFailed as failed:
            if failed.code in USED:
                return self._found(order, failed)
            if failed.code == NO_SPOT_ROLE:
                self._dry.shut(offer.market, f"{failed.code}: {failed.error.hint}")
            else:
                self._dry.failed(pool_of(offer), failed)
            raise
        self._dry.clear(pool_of(offer))
        (born,) = answer["Instances"]
        return Ref(offer.scope, Kind.INSTANCE, born["InstanceId"])

    def _found(self, order: Order, failed: CallFailed) -> Ref:
        """Return the VM that exists, or did: whoever asked before, it is the VM of this order."""
        key = Key(order.offer.scope, order.instance)
        seen = look(self._calls, [key], order.installation, public=True).get(key)
        if seen is None:
            raise failed
        return seen.ref
