"""A VM of an image, for a look at it from inside: booted by the same provider that builds use."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from vmrunner.errors import ImageError, VmrunnerError
from vmrunner.images import time_limits
from vmrunner.lib import ids
from vmrunner.lib.cloudinit import user_data
from vmrunner.lib.local_images import LocalImage
from vmrunner.model import Access, Address, Key, Network, Order, Ref, Role, Spec
from vmrunner.providers import Provider, qemu, registry
from vmrunner.providers.deletion import delete_until_dead
from vmrunner.providers.qemu import accel as accelerator
from vmrunner.providers.qemu import launch_plan
from vmrunner.session.ssh import keys
from vmrunner.session.ssh.client import Connection, Dialer

TTL: Final = 2400.0  # seconds after which the VM ends itself


@contextlib.contextmanager
def vm(
    image: LocalImage, *, reshape: Callable[[bytes], bytes] = lambda data: data
) -> Iterator[tuple[Connection, float]]:
    """A VM of this image without a network, and the seconds until SSH answered. Deleted at the end.
    `reshape`: changes the user-data from a build's."""
    cache = image.directory.parent.parent
    user, host = keys.generate(), keys.generate()
    with TemporaryDirectory(prefix="vmrunner-verify-") as state:
        provider = qemu.open(
            "verify", state_dir=Path(state), cache_dir=cache, installation="verify"
        )
        now = time.time()
        instance = ids.instance_id()
        order = Order(
            instance=instance,
            build="image-verify",
            installation="verify",
            generation="verify",
            role=Role.IMAGE,
            offer=provider.offers(Spec(image=image.hash, network=Network.NONE))[0],
            deadline=now + TTL,
            user_data=reshape(
                user_data.user_data(
                    instance=instance,
                    deadline=now + TTL,
                    boot_ttl=TTL,
                    authorized_key=user.public,
                    host_private=host.private,
                    host_public=host.public,
                    platform="local",
                )
            ),
            network=Network.NONE,
        )
        began = time.monotonic()
        ref = provider.create(order)
        try:
            address = _address(provider, Key(ref.scope, instance, ref.id))
            dialer = Dialer(
                Access(user_private=user.private, host_public=host.public),
                channel=registry.channel(ref.scope.kind, lambda: provider),
            )
            try:
                limit = time_limits.FIRST_BOOT[_accelerator(image, cache)]
                connection = dialer.connect(address, timeout=limit)
            except VmrunnerError as error:
                console = provider.console(ref).splitlines()[-20:]
                raise ImageError("\n".join([str(error), *console])) from None
            try:
                yield connection, time.monotonic() - began
            finally:
                connection.close()
        finally:
            _delete(provider, ref, Key(ref.scope, instance, ref.id))


def _accelerator(image: LocalImage, cache: Path) -> str:
    """Return the accelerator that the provider took, which remembers its choice in the cache."""
    programs = launch_plan.HostPrograms.find(internet=False)
    chosen = accelerator.choose("auto", qemu=programs.qemu, kernel=image.kernel, cache_dir=cache)
    return chosen.name


def _address(provider: Provider, key: Key) -> Address:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        seen = provider.look([key]).get(key)
        if seen is not None and seen.address is not None:
            return Address(*seen.address)
        time.sleep(0.1)
    raise ImageError("the VM has no address")


def _delete(provider: Provider, ref: Ref, key: Key) -> None:
    """Delete, and wait until it is not seen alive: its state directory goes next."""
    progress = delete_until_dead(provider, {key: ref}, seconds=60, pause=0.2, force=True)
    if progress.waiting or progress.refused:
        raise ImageError(f"the VM {key.instance} does not end")
