"""The drivers under contract: each makes providers over one cloud or host, and lets time pass."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from tests.support import thirdparty
from tests.support.ec2 import KINDS, credentials
from vmrunner.lib import ids
from vmrunner.model import Identity, Kind, Network, Order, Role, Scope, Shape, Spec
from vmrunner.providers import Provider, StartsUnits, load
from vmrunner.providers.fake import Clock, Cloud, FakeProvider
from vmrunner.providers.gce.labels import labels

if TYPE_CHECKING:
    from vmrunner_localclouds.azure import LocalAzure
    from vmrunner_localclouds.ec2 import LocalCloud
    from vmrunner_localclouds.gce import LocalGce

    from tests.support.kube_driver import Cluster
    from vmrunner.providers.port_images import ImageRequest

T = TypeVar("T")
INSTALLATION = "00000000-0000-4000-8000-000000000001"
GENERATION = "00000000-0000-4000-8000-000000000002"


class Driver(Protocol):
    """One kind of provider, and a cloud for it that nobody else uses. `shortest`: the least
    seconds that a VM of it can be told to live. `kinds`: what a sweep shows. `native_deadline`:
    the cloud ends a VM at its deadline with nothing of ours alive."""

    shortest: float
    kinds: Collection[Kind]
    native_deadline: bool

    def open(self) -> Provider:
        """Another process's view of the same cloud."""

    def wait(self, true: Callable[[], T], seconds: float = 120) -> T:
        """Let time pass until it is; fails when it never is."""

    def stray(self, scope: Scope) -> Scope:
        """A scope in which no provider of this driver acts."""


@runtime_checkable
class LeavesImages(Protocol):
    """A driver whose sweep shows images that no build finished."""

    def image(self, request: ImageRequest) -> None:
        """What Packer leaves of this wish when whoever began it is dead."""


class FakeDriver:
    """The fake cloud, slow and forgetful enough to be worth a contract."""

    shortest = 8.0
    kinds = (Kind.INSTANCE, Kind.DISK)
    native_deadline = True

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
        return _wait(self.clock, true, seconds)

    def stray(self, scope: Scope) -> Scope:
        return scope._replace(account="another")


class ElsewhereDriver(FakeDriver):
    """The same behind a driver of another distribution."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def open(self) -> Provider:
        return load(self._kind, "there", installation=INSTALLATION, cloud=self.cloud)


class FormerDriver:
    """A driver of another distribution, frozen as it was written for a former port."""

    shortest = 8.0
    kinds = (Kind.INSTANCE,)
    native_deadline = True

    def __init__(self) -> None:
        self.clock = Clock()
        self.cloud = importlib.import_module("formerly.provider").Machines(clock=self.clock)

    def open(self) -> Provider:
        return load("former", "there", installation=INSTALLATION, cloud=self.cloud)

    def wait(self, true: Callable[[], T], seconds: float = 120) -> T:
        return _wait(self.clock, true, seconds)

    def stray(self, scope: Scope) -> Scope:
        return scope._replace(account="another")


class QemuDriver:
    """Real VMs on this host, in a state directory of the test's own."""

    shortest = 8.0
    kinds = (Kind.INSTANCE,)
    native_deadline = True

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


class Ec2Driver:
    """EC2 at the local endpoint, as slow and as forgetful. The two differ by `endpoint_url`."""

    shortest = 8.0
    kinds = KINDS
    native_deadline = False

    def __init__(self, cloud: LocalCloud, clock: Clock) -> None:
        self.clock = clock
        self.cloud = cloud
        self.site = cloud.furnish("eu-west-1")
        cloud.boot_seconds = cloud.delete_seconds = 5
        cloud.visibility_lag = 2

    def open(self) -> Provider:
        return load(
            "ec2",
            "aws",
            installation=INSTALLATION,
            region=self.site.region,
            image=self.site.image,
            subnets=self.site.subnets,
            security_groups=[self.site.security_group],
            endpoint_url=self.cloud.url,
        )

    def wait(self, true: Callable[[], T], seconds: float = 120) -> T:
        return _wait(self.clock, true, seconds)

    def stray(self, scope: Scope) -> Scope:
        return scope._replace(account="210987654321")

    def image(self, request: ImageRequest) -> None:
        self.cloud.image(self.site.region, request.name, tags=request.tags)


class GceDriver:
    """Compute Engine at the local endpoint, as slow. The two differ by `api_endpoint`."""

    shortest = 40.0
    kinds = (Kind.INSTANCE, Kind.DISK, Kind.ADDRESS, Kind.SNAPSHOT, Kind.IMAGE)
    native_deadline = True

    def __init__(self, cloud: LocalGce, clock: Clock) -> None:
        self.clock = clock
        self.cloud = cloud
        self.site = cloud.furnish()
        cloud.boot_seconds = cloud.delete_seconds = 5
        cloud.operation_seconds = cloud.visibility_lag = 2
        cloud.suspend_seconds = 5

    def open(self) -> Provider:
        return load(
            "gce",
            "google",
            installation=INSTALLATION,
            project=self.site.project,
            zones=self.site.zones,
            image=self.site.family,
            subnetwork=self.site.subnetwork,
            api_endpoint=self.cloud.url,
        )

    def wait(self, true: Callable[[], T], seconds: float = 120) -> T:
        return _wait(self.clock, true, seconds)

    def stray(self, scope: Scope) -> Scope:
        return scope._replace(account="another-project")

    def image(self, request: ImageRequest) -> None:
        self.cloud.image(request.name, family="vmrunner-unfinished", labels=labels(request.tags))


class AzureDriver:
    """Azure at the local endpoint, as slow and as forgetful. The two differ by `endpoint`."""

    shortest = 8.0
    kinds = (Kind.INSTANCE, Kind.DISK, Kind.INTERFACE, Kind.ADDRESS, Kind.SNAPSHOT, Kind.IMAGE)
    native_deadline = False

    def __init__(self, cloud: LocalAzure, clock: Clock) -> None:
        self.clock = clock
        self.cloud = cloud
        self.site = cloud.furnish()
        cloud.boot_seconds = cloud.delete_seconds = cloud.stop_seconds = 5
        cloud.operation_seconds = cloud.visibility_lag = 2

    def open(self) -> Provider:
        return load(
            "azure",
            "azure",
            installation=INSTALLATION,
            subscription=self.site.subscription,
            resource_group=self.site.group,
            location=self.site.location,
            zones=self.site.zones,
            image=self.site.image,
            subnet=self.site.subnet,
            endpoint=self.cloud.url,
        )

    def wait(self, true: Callable[[], T], seconds: float = 120) -> T:
        return _wait(self.clock, true, seconds)

    def stray(self, scope: Scope) -> Scope:
        return scope._replace(account="another-subscription")

    def image(self, request: ImageRequest) -> None:
        self.cloud.image(self.site.group, request.name, tags=request.tags)


class KubernetesDriver:
    """A namespace of the local cluster, with VMs or pods in it. The two differ by `kubeconfig`."""

    shortest = 8.0
    kinds = (Kind.INSTANCE, Kind.SCHEDULE, Kind.SECRET, Kind.DISK)
    native_deadline = True

    def __init__(self, cluster: Cluster, runs: str) -> None:
        self.clock = cluster.clock
        self.cluster = cluster
        self.runs = runs
        cloud = cluster.cloud
        cloud.virt.seconds = cloud.kubelet.seconds = 5
        cloud.virt.stop_seconds = cloud.kubelet.stop_seconds = 5

    def open(self) -> Provider:
        return self.cluster.provider(self.runs)

    def wait(self, true: Callable[[], T], seconds: float = 120) -> T:
        return _wait(self.clock, true, seconds)

    def stray(self, scope: Scope) -> Scope:
        return scope._replace(account="00000000-0000-4000-8000-0000000000aa")


def _wait(clock: Clock, true: Callable[[], T], seconds: float) -> T:
    for _ in range(int(seconds)):
        value = true()
        if value:
            return value
        clock.advance(1)
    raise AssertionError(f"not within {seconds} s")


@contextlib.contextmanager
def _driver(kind: str, root: Path) -> Iterator[Driver]:
    if kind == "ec2":
        from vmrunner_localclouds.ec2 import LocalCloud

        clock = Clock()
        with credentials(), LocalCloud(clock=clock) as cloud:
            yield Ec2Driver(cloud, clock)
    elif kind == "gce":
        from vmrunner_localclouds.gce import LocalGce

        clock = Clock()
        with LocalGce(clock=clock, sleep=clock.sleep) as google:
            yield GceDriver(google, clock)
    elif kind == "azure":
        from vmrunner_localclouds.azure import LocalAzure

        clock = Clock()
        with LocalAzure(clock=clock, sleep=clock.sleep) as microsoft:
            yield AzureDriver(microsoft, clock)
    elif kind in ("vmi", "pod"):
        from tests.support.kube_driver import cluster

        with cluster() as kube:
            yield KubernetesDriver(kube, kind)
            # Of a container that never began there is no log, which is told as a bad request.
            assert not [text for text in kube.cloud.rejected if "/log" not in text]
    elif kind in ("elsewhere", "nameless"):
        with thirdparty.importable(root / "site"):
            yield ElsewhereDriver(kind)
    elif kind == "former":
        with thirdparty.importable(root / "site", thirdparty.FORMER):
            yield FormerDriver()
    else:
        yield FakeDriver() if kind == "fake" else QemuDriver(root)


@contextlib.contextmanager
def driven(kind: str, root: Path) -> Iterator[Driver]:
    """A driver of this kind; whatever a test left is deleted when it ends."""
    with _driver(kind, root) as driver:
        yield driver
        _clean(driver)


def _clean(driver: Driver) -> None:
    provider = driver.open()

    def empty() -> bool:
        found = (r for page in provider.sweep() for r in page.resources)
        leftovers = [r.ref for r in found if r.alive and r.tag("installation") == INSTALLATION]
        provider.delete(leftovers, force=True)
        return not leftovers

    driver.wait(empty)


def make_order(provider: Provider, *, ttl: float = 600) -> Order:
    """An order for a VM whose guest does nothing; the contract looks at it from outside. A guest
    sends nothing from this machine, where who starts it has no need to see that first."""
    network = Network.OPEN if isinstance(provider, StartsUnits) else Network.NONE
    return Order(
        instance=ids.instance_id(),
        build=ids.build_id(),
        installation=INSTALLATION,
        generation=GENERATION,
        role=Role.BUILD,
        offer=provider.offers(Spec(network=network))[0],
        deadline=float(int(provider.now() + ttl)),
        max_ttl=14400.0,
        user_data=b"#cloud-config\n{}\n",
        network=network,
        identity=Identity(user_key="ssh-ed25519 A", host_key="-", host_public="ssh-ed25519 B"),
        shape=Shape(container="registry.example/build", runtime="runc", log_bytes=1 << 20),
    )
