"""Kubernetes for tests: a local cluster on a virtual clock, and providers of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from vmrunner_localclouds.kube import LocalKube
from vmrunner_localclouds.kube.kinds import NAMESPACES

from vmrunner.lib import ids
from vmrunner.model import Identity, Key, Network, Order, Ref, Resource, Role, Seen, Shape, Spec
from vmrunner.providers.common.rate_limits import Buckets
from vmrunner.providers.fake import Clock
from vmrunner.providers.kubernetes.client import QUOTAS
from vmrunner.providers.kubernetes.options import KubernetesOptions
from vmrunner.providers.kubernetes.provider import KubernetesProvider, opened

INSTALLATION: Final = "00000000-0000-4000-8000-000000000001"
GENERATION: Final = "00000000-0000-4000-8000-000000000002"
IMAGE: Final = f"registry.example/vmrunner@sha256:{'a' * 64}"
#: What a configuration says of each mode.
MODES: Final[dict[str, dict[str, Any]]] = {
    "vmi": {"image": IMAGE},
    "pod": {"unit_image": IMAGE, "runtime_class": "gvisor"},
}


class Cluster:
    """A local cluster on a virtual clock. `cache`: where what probes showed is kept."""

    def __init__(self, cloud: LocalKube, clock: Clock, cache: Path) -> None:
        self.cloud = cloud
        self.clock = clock
        self.cache = cache

    def provider(self, runs: str = "vmi", **more: Any) -> KubernetesProvider:
        """Another process's view of it."""
        given = {
            "name": "cluster",
            "installation": INSTALLATION,
            "kubeconfig": str(self.cloud.kubeconfig),
            "namespace": self.cloud.namespace,
            "cache_dir": self.cache,
            "runs": runs,
            **MODES[runs],
        }
        return opened(
            KubernetesOptions(**KubernetesOptions.taken(given | more)),
            buckets=Buckets(QUOTAS, now=self.clock, sleep=self.clock.sleep),
            elapsed=self.clock,
            sleep=self.clock.sleep,
        )

    def label(self, **labels: str) -> None:
        """Label the driver's namespace: `enforce="baseline"` of Pod Security."""
        named = {f"pod-security.kubernetes.io/{key}": value for key, value in labels.items()}
        label_namespace(self.cloud, named)

    def wait(self, true: Callable[[], Any], seconds: int = 120) -> Any:
        """Let time pass until it is."""
        for _ in range(seconds):
            if value := true():
                return value
            self.clock.advance(1)
        raise AssertionError(f"not within {seconds} s")


def label_namespace(cloud: LocalKube, labels: Mapping[str, str]) -> None:
    """Add labels to the driver's namespace."""
    with cloud.held():
        found = cloud.store.get(NAMESPACES, "", cloud.namespace)
        assert found is not None
        meta = {**found["metadata"], "labels": {**found["metadata"]["labels"], **labels}}
        cloud.store.replace(NAMESPACES, found, {**found, "metadata": meta})


@contextmanager
def cluster(**more: Any) -> Iterator[Cluster]:
    """A cluster of its own, without a word of complaint at its end."""
    clock = Clock()
    with (
        tempfile.TemporaryDirectory(prefix="kube-") as cache,
        LocalKube(clock=clock, sleep=clock.sleep, **more) as cloud,
    ):
        yield Cluster(cloud, clock, Path(cache))


def make_order(provider: KubernetesProvider, *, ttl: float = 600, **more: Any) -> Order:
    """An order for something that does nothing."""
    for _ in range(2):
        provider.identity.read()  # a clock that contradicts the host's is believed the second time
    given: dict[str, Any] = {
        "instance": ids.instance_id(),
        "build": ids.build_id(),
        "installation": INSTALLATION,
        "generation": GENERATION,
        "role": Role.BUILD,
        "offer": provider.offers(Spec())[0],
        "user_data": b"#cloud-config\n{}\n",
        "network": Network.OPEN,
        "max_ttl": 14400.0,
        "identity": Identity(user_key="ssh-ed25519 A", host_key="-", host_public="ssh-ed25519 B"),
        "shape": Shape(container="registry.example/build", runtime="runc", log_bytes=1 << 20),
    }
    return Order(deadline=float(int(provider.now() + ttl)), **(given | more))


def look(provider: KubernetesProvider, order: Order, ref: Ref | None = None) -> Seen | None:
    """What one look shows of an order's instance."""
    key = Key(order.offer.scope, order.instance, ref.id if ref else None)
    return provider.look([key]).get(key)


def swept(provider: KubernetesProvider) -> list[Resource]:
    """All that a sweep shows."""
    return [resource for page in provider.sweep() for resource in page.resources]
