"""The local EC2: what exists, the knobs, and the endpoint."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.common.faults import RequestFate
from vmrunner_localclouds.common.service import LocalService
from vmrunner_localclouds.ec2 import fixtures, guest_vms, moto_patches
from vmrunner_localclouds.ec2.endpoint import Ec2Endpoint
from vmrunner_localclouds.ec2.faults import THROTTLED, TOO_MANY, Ec2Faults
from vmrunner_localclouds.ec2.fixtures import Ec2Site
from vmrunner_localclouds.ec2.machines import Ec2Machine
from vmrunner_localclouds.ec2.requests import Ec2Request
from vmrunner_localclouds.ec2.run_instances import Token
from vmrunner_localclouds.ec2.vendor_limits import Throttles

if TYPE_CHECKING:
    from moto.ec2.models import EC2Backend

    from vmrunner_localclouds.vms import Vms

#: An image has one disk, unless `mappings` say otherwise.
ROOT: Final = (fixtures.Mapping(device="/dev/xvda"),)


class LocalCloud(LocalService[Ec2Machine, Ec2Request, RequestFate]):
    """One account. All plain attributes may be changed at any time. With `vms` a real VM is behind
    every instance; then the clock must be the real one."""

    def __init__(self, *, clock: Callable[[], float] = time.time, vms: Vms | None = None) -> None:
        super().__init__(clock, Ec2Faults(), vms)
        self.boot_seconds = 0.0
        self.delete_seconds = 0.0  # from an accepted termination to the end
        self.shutdown_seconds = 0.0  # so long a guest takes to shut down at a stop
        self.tombstone = 3600.0  # so long the terminated are shown
        self.visibility_lag = 0.0  # so long new machines are not visible
        self.seal_seconds = 0.0  # from a change of metadata options to its effect
        self.token_seconds = 86_400.0  # so long a client token lives
        self.dry: set[tuple[str, str, str]] = set()  # (type, subnet, market) without capacity
        self.quota: dict[str, int] = {}  # instances at once, by market
        self.quotas: dict[str, float] = {}  # what Service Quotas says, by its code
        self.prices = {"m7i.large": 0.1117, "t3.micro": 0.0114}  # USD an hour, by machine type
        self.spot_prices: dict[str, dict[str, float]] = {}  # by machine type and letter of the zone
        self.disk_price = 0.088  # USD a GiB and month
        self.address_price = 0.005
        self.outages: set[str] = set()  # zones that are disrupted
        self.lacking: set[str] = set()  # instance types that it does not have
        self.spot_role = True  # has the account the service-linked role that spot needs?
        self.roles: set[str] = set()  # paths with names: `aws-reserved/sso/name`
        self.default_quotas: set[str] = set()  # codes of which the account has no value of its own
        self.disabled: set[str] = set()  # regions that the account has not enabled
        self.accounts: dict[str, str] = {}  # access key → account; default: this one's
        self.by_id: dict[str, Ec2Machine] = {}
        self.hidden: set[str] = set()  # ids of machines that no list shows yet
        self.tokens: dict[tuple[str, str, str], Token] = {}
        self.throttles = True  # requests above EC2's own rates are refused
        self._rates = Throttles(self.now)
        self.account = f"{secrets.randbelow(9 * 10**11) + 10**11}"
        moto_patches.install()
        self._endpoint = Ec2Endpoint(self)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        with super().held(), moto_patches.within(self):
            yield

    # --- what is there ---

    def furnish(
        self,
        region: str,
        *,
        name: str = "vmrunner-test",
        mappings: Sequence[fixtures.Mapping] = ROOT,
        ssh_from: str = "192.0.2.0/24",
    ) -> Ec2Site:
        """Make what a launch in this region needs."""
        image = self.image(region, name, mappings=mappings)
        with self.held():
            return fixtures.furnish(self.backend(region), image, ssh_from=ssh_from)

    def image(
        self,
        region: str,
        name: str,
        *,
        mappings: Sequence[fixtures.Mapping] = ROOT,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """The id of a new image."""
        with self.held():
            return fixtures.add_image(
                self.backend(region), name, self.now(), mappings, dict(tags or {})
            )

    def backend(self, region: str, account: str | None = None) -> EC2Backend:
        """moto's backend of a region."""
        from moto.ec2.models import ec2_backends

        return ec2_backends[account or self.account][region]

    def add(self, machine: Ec2Machine) -> None:
        """A machine was launched."""
        self.machines.append(machine)
        self.by_id[machine.id] = machine
        if self.bodies is not None:
            guest_vms.embody(machine, self.bodies)
        machine.begin()

    # --- who asks ---

    def account_of(self, key: str) -> str:
        return self.accounts.get(key, self.account)

    def plan(self, request: Ec2Request) -> RequestFate | None:
        """The fate of a request before it is looked at; None: no fault is planned."""
        if request.key not in self.refused and request.region in self.disabled:
            if request.service == "ec2":
                text = "AWS was not able to validate the provided access credentials"
                return RequestFate("AuthFailure", 401, text)
            return RequestFate("InvalidClientTokenId", 403, "The security token is invalid")
        fate = super().plan(request)
        if fate is not None or not self.throttles:
            return fate
        if self._rates.admit(self.account_of(request.key), request):
            return None
        return THROTTLED if request.service == "ec2" else TOO_MANY
