"""Make the template that builds of one shape start from, and prove it by a clone."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from vmrunner.errors import ImageError
from vmrunner.guest.state import Place
from vmrunner.images.template_vms import TemplateVms
from vmrunner.lib import ids
from vmrunner.model import Access, Identity, Key, Order, Ref, Role, Shape, Spec, Start
from vmrunner.providers import registry
from vmrunner.providers.port import Provider, StartsFromTemplates
from vmrunner.session.ssh import keys
from vmrunner.session.ssh.client import Connection, Dialer

LIFE: Final = 900.0  # seconds that the template's VM and its clone may live
RESUMED: Final = 60.0  # seconds in which the clone must answer
_PAUSE: Final = 0.1


class TemplateProvider(Provider, StartsFromTemplates, Protocol):
    """A provider that starts VMs from templates."""


def make(
    provider: TemplateProvider,
    spec: Spec,
    shape: Shape,
    *,
    vms: TemplateVms,
    progress: Callable[[str], object] = lambda _: None,
) -> str | None:
    """Make the template for builds that want this machine and container, and return its key. None:
    there is one, or none would fit. Raises ImageError, LedgerError and what the provider raises."""
    maker = provider.template_maker()
    order_of = partial(order_for, provider, spec, shape, vms)
    order, access = order_of()
    key = maker.missing(order)
    if key is None:
        return None
    with maker.begin(key) as template:
        progress("booting a VM to freeze")
        frozen, unused = order_of(anonymous=True)
        with vms.recorded(frozen, unused, partial(maker.boot, frozen, template)):
            maker.await_frozen(frozen)
        progress("resuming a clone of it")
        with vms.recorded(order, access, partial(maker.clone, order, template)) as ref:
            _prove(provider, ref, access)
        maker.publish(template, key, order)
        return key


def order_for(
    provider: Provider, spec: Spec, shape: Shape, vms: TemplateVms, *, anonymous: bool = False
) -> tuple[Order, Access]:
    """Order for a VM without a build. `anonymous`: no connection to it is ever made."""
    user, host = keys.generate(), keys.generate()
    identity = Identity(user_key=user.public, host_key=host.private, host_public=host.public)
    order = Order(
        instance=ids.instance_id(),
        build="",
        installation=vms.installation,
        generation=vms.generation,
        role=Role.IMAGE,
        offer=provider.offers(spec)[0],
        deadline=float(int(provider.now() + LIFE)),  # whole seconds, as in the tag
        user_data=b"",
        network=spec.network,
        identity=None if anonymous else identity,
        shape=shape,
    )
    return order, Access(user_private=user.private, host_public=host.public)


def _prove(provider: Provider, ref: Ref, access: Access) -> None:
    """Speak to the clone as a build would. Raises ImageError if it was booted, or does not
    answer."""
    key = Key(ref.scope, ref.id)
    until = time.monotonic() + RESUMED
    while (seen := provider.look([key]).get(key)) is None or not seen.address or not seen.start:
        if time.monotonic() > until or (seen is not None and seen.detail):
            raise ImageError(f"template: its clone does not answer: {seen and seen.detail}")
        time.sleep(_PAUSE)
    if seen.start is not Start.RESUMED:
        raise ImageError(f"template: its clone came up {seen.start}")
    channel = registry.channel(ref.scope.kind, lambda: provider)
    connection = Dialer(access, channel=channel).connect(
        seen.address, timeout=until - time.monotonic()
    )
    try:
        _ask(connection)
    finally:
        connection.close()


def _ask(connection: Connection) -> None:
    until = time.monotonic() + RESUMED

    def pulse() -> float:
        remaining = until - time.monotonic()
        if remaining <= 0:
            raise ImageError("template: the supervisor of its clone answers nothing")
        return remaining

    command = ["status", "--epoch", "0"]
    done = connection.call(Place().socket, command, lambda _: None, pulse=pulse)
    if done is None or done.exit_code:
        raise ImageError(f"template: the supervisor of its clone: {done and done.complaint}")
