"""Makes the order for one instance: fresh keys, the user-data that plants them, and the access
that goes with it. Nothing in it is worth anything beyond this VM."""

from __future__ import annotations

from dataclasses import replace

from vmrunner.config import registry_auth
from vmrunner.core import requirements
from vmrunner.core.pools import lifetime
from vmrunner.ledger import Ledger
from vmrunner.lib.cloudinit import user_data as cloudinit
from vmrunner.model import Access, BuildRecord, Identity, Offer, Order, PoolSpec, Role, Shape
from vmrunner.providers import registry
from vmrunner.session.ssh import keys


class OrderFactory:
    """One ledger's maker of orders. The generation is that of the moment: a database that was set
    back has another, by which the reaper goes."""

    def __init__(self, ledger: Ledger, *, log_bytes: int) -> None:
        """`log_bytes`: what a build's log may take."""
        self._ledger = ledger
        self._log_bytes = log_bytes

    def __call__(
        self, build: BuildRecord, instance: str, offer: Offer, deadline: float
    ) -> tuple[Order, Access]:
        order, access = self._order(
            instance, offer, deadline, ttl=build.spec.ttl, stock=build.spec.bootstrap
        )
        order = replace(
            order,
            build=build.id,
            network=build.spec.network,
            identity=None if build.spec.bootstrap else order.identity,
            shape=self._shape(build),
            pull=self._login(build, offer),
        )
        return order, access

    def _shape(self, build: BuildRecord) -> Shape | None:
        """The container: by the digest that its tag stood for where the build was reached first."""
        shape = requirements.container(build.spec, log_bytes=self._log_bytes)
        pinned = self._ledger.instances.container(build.id) if shape else None
        return replace(shape, container=pinned) if shape and pinned else shape

    def _login(self, build: BuildRecord, offer: Offer) -> str | None:
        """The login that a system which starts the build's image itself pulls it with."""
        name = build.spec.registry_secret
        if name is None or not registry.drivers()[offer.scope.kind].units:
            return None
        secret = self._ledger.builds.secrets(build.id).get(name)
        return None if secret is None else registry_auth.docker_config(build.spec.container, secret)

    def for_pool(
        self, spec: PoolSpec, instance: str, offer: Offer, deadline: float
    ) -> tuple[Order, Access]:
        order, access = self._order(instance, offer, deadline, ttl=lifetime(spec))
        shape = Shape(container=spec.container, runtime=spec.runtime, log_bytes=spec.log_bytes)
        order = replace(order, role=Role.POOL, pool=spec.name, network=spec.network, shape=shape)
        return order, access

    def _order(
        self, instance: str, offer: Offer, deadline: float, *, ttl: float, stock: bool = False
    ) -> tuple[Order, Access]:
        """An order for a build, but for what only the build knows, and the access to the VM."""
        user, host = keys.generate(), keys.generate()
        driver = registry.drivers()[offer.scope.kind]
        after = driver.guest_timer_delay
        user_data = cloudinit.user_data(
            instance=instance,
            deadline=deadline + after,
            boot_ttl=ttl + after,
            authorized_key=user.public,
            host_private=host.private,
            host_public=host.public,
            platform=driver.platform,
            stock=stock,
        )
        order = Order(
            instance=instance,
            build="",
            installation=self._ledger.installation,
            generation=self._ledger.generation,
            role=Role.BUILD,
            offer=offer,
            deadline=deadline,
            user_data=user_data,
            identity=Identity(user_key=user.public, host_key=host.private, host_public=host.public),
        )
        return order, Access(user_private=user.private, host_public=host.public)
