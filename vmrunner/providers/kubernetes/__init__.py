"""Kubernetes: VMs of KubeVirt, or pods behind the wall of a runtime class.

Its client of HTTP is imported only when a provider is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmrunner.providers.port import Driver

if TYPE_CHECKING:
    from vmrunner.lib.channels import Channel
    from vmrunner.providers.kubernetes.provider import KubernetesProvider
    from vmrunner.providers.port import Provider


def open(  # noqa: A001 - as `Driver` calls it
    name: str, *, installation: str, cache_dir: Path, **options: Any
) -> KubernetesProvider:
    """The provider called `name`. What its probes showed is kept in `cache_dir`. The other
    `options` are the fields of `options.KubernetesOptions`. Nothing is asked of the cluster yet."""
    from vmrunner.providers.kubernetes.options import KubernetesOptions
    from vmrunner.providers.kubernetes.provider import opened

    return opened(
        KubernetesOptions(
            name=name,
            installation=installation,
            cache_dir=Path(cache_dir),
            **KubernetesOptions.taken(options),
        )
    )


def channel(provider: Callable[[], Provider]) -> Channel:
    """Return the way to an instance's sshd: streams over the API server's own connection."""
    from vmrunner.providers.kubernetes.streams import ClusterChannel

    return ClusterChannel(provider)


DRIVER = Driver(
    kind="kubernetes",
    settings="vmrunner.providers.kubernetes.settings:KubernetesSettings",
    open=open,
    needs=frozenset({"installation", "cache_dir"}),
    options="vmrunner.providers.kubernetes.options:KubernetesOptions",
    extra="vmrunner[kubernetes]",
    told={"namespace": "place"},
    channel="vmrunner.providers.kubernetes:channel",
    units=True,
)
