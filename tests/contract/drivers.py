"""The drivers under contract: each makes providers over one cloud or host, and lets time pass."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from vmrunner import ids
from vmrunner.model import Network, Order, Role, Scope, Spec
from vmrunner.providers import Provider
from vmrunner.providers.fake import Clock, Cloud, FakeProvider

T = TypeVar("T")
INSTALLATION = "00000000-0000-4000-8000-000000000001"
GENERATION = "00000000-0000-4000-8000-000000000002"


class Driver(Protocol):
    """One kind of provider, and a cloud for it that nobody else uses."""

    def open(self) -> Provider:
        """Another process's view of the same cloud."""

    def wait(self, true: Callable[[], T], seconds: float = 120) -> T:
        """Let time pass until it is; fails when it never is."""

    def stray(self, scope: Scope) -> Scope:
        """A scope in which no provider of this driver acts."""


class FakeDriver:
    """The fake cloud, slow and forgetful enough to be worth a contract."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.cloud = Cloud(self.clock)
        self.cloud.boot_seconds = 5
        self.cloud.delete_seconds = 5
        self.cloud.disks = True
        self.cloud.native_deadline = True

    def open(self) -> Provider:
        return FakeProvider("fake", self.cloud, page_size=2)

    def wait(self, true: Callable[[], T], seconds: float = 120) -> T:
        for _ in range(int(seconds)):
            value = true()
            if value:
                return value
            self.clock.advance(1)
        raise AssertionError(f"not within {seconds} s")

    def stray(self, scope: Scope) -> Scope:
        return scope._replace(account="another")


class QemuDriver:
    """Real VMs on this host, in a state directory of the test's own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self) -> Provider:
        from tests.vm.qemu_fixture import make_provider

        return make_provider(self.root)

    def wait(self, true: Callable[[], T], seconds: float = 120) -> T:
        end = time.monotonic() + seconds
        while not (value := true()):
            assert time.monotonic() < end, f"not within {seconds} s"
            time.sleep(0.2)
        return value

    def stray(self, scope: Scope) -> Scope:
        return scope._replace(account="another-machine")


@contextlib.contextmanager
def driven(kind: str, root: Path) -> Iterator[Driver]:
    """A driver of this kind; whatever a test left is deleted when it ends."""
    driver: Driver = FakeDriver() if kind == "fake" else QemuDriver(root)
    yield driver
    provider = driver.open()

    def empty() -> bool:
        left = [r.ref for page in provider.sweep() for r in page.resources if r.alive]
        provider.delete(left, force=True)
        return not left

    driver.wait(empty)


def make_order(provider: Provider, *, ttl: float = 600) -> Order:
    """An order for a VM whose guest does nothing; the contract looks at it from outside."""
    return Order(
        instance=ids.instance_id(),
        build=ids.build_id(),
        installation=INSTALLATION,
        generation=GENERATION,
        role=Role.BUILD,
        offer=provider.offers(Spec(network=Network.NONE))[0],
        deadline=float(int(provider.now() + ttl)),
        user_data=b"#cloud-config\n{}\n",
        network=Network.NONE,  # a test's guest sends nothing from this machine
    )
