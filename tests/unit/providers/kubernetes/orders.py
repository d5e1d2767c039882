"""Orders and options for tests of the Kubernetes driver."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from vmrunner.model import Identity, Network, Offer, Order, Role, Scope, Shape
from vmrunner.providers.kubernetes.options import KubernetesOptions

INSTALLATION: Final = "6f1c0a2b-0000-4000-8000-000000000001"
SCOPE: Final = Scope("kubernetes", "0f0f0f0f-0000-4000-8000-000000000009", "vmrunner")
IMAGE: Final = "registry.example/vmrunner@sha256:" + "a" * 64
NOW: Final = 1_795_990_000.0
NAME: Final = "vm-01j0000000000000000000000a"
UID: Final = "11111111-2222-4333-8444-555555555555"


def options(**more: Any) -> KubernetesOptions:
    """Options of a provider of VMs; with `runs="pod"` those of one of pods behind Kata."""
    given: dict[str, Any] = {"name": "cluster", "installation": INSTALLATION, "image": IMAGE}
    if more.get("runs") == "pod":
        given |= {"runtime_class": "kata-qemu", "unit_image": IMAGE}
    return KubernetesOptions(**(given | more))


def order(**more: Any) -> Order:
    """An order whose deadline is 3,300.9 s ahead of `NOW`."""
    made = Order(
        instance=NAME,
        build="b-01j0000000000000000000000b",
        installation=INSTALLATION,
        generation="7f1c0a2b-0000-4000-8000-000000000002",
        role=Role.BUILD,
        offer=Offer(scope=SCOPE, machine_type="2x4GiB", place="vmrunner", image=IMAGE),
        deadline=NOW + 3300.9,
        user_data=b"#cloud-config\n{}\n",
        network=Network.NONE,
        tags={"team": "core: a/b"},
        max_ttl=14400.0,
        identity=Identity(user_key="ssh-ed25519 AAA", host_key="KEY", host_public="ssh-ed25519 B"),
        shape=Shape(container="python:3.13", runtime="runc", log_bytes=64 << 20),
    )
    return replace(made, **more)
