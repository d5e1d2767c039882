"""Offers for builds that want more than a machine: none where the provider cannot keep it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from vmrunner.core.boxes import DOCKER, Box
from vmrunner.errors import BadOrder
from vmrunner.model import AllowList, Network, NetworkPolicy, Offer, Spec, Trait
from vmrunner.providers.port import HoldsAllowLists, HoldsNoNetwork, Provider, StartsUnits

#: How a build asks for each.
_ASKED: Final[Mapping[Trait, str]] = {
    Trait.DOCKER: "docker: true",
    Trait.PRIVILEGED: "privileged: true",
    Trait.GVISOR: "container-runtime: runsc",
    Trait.NO_NETWORK: "network: none",
    Trait.VM_IMAGE: "image: {image}",
    Trait.BOOTSTRAP: "bootstrap: true",
    Trait.PRIVATE_PULL: "registry-secret: set",
}


def offers(provider: Provider, spec: Spec) -> Sequence[Offer]:
    """Return a provider's offers. Raises BadOrder where it cannot keep what is asked for, and what
    the provider raises."""
    of_image = frozenset() if spec.image is None else {Trait.VM_IMAGE}
    _check_box(provider, spec.needs | of_image | _of_network(spec.network), spec.image)
    check(provider, spec.network)
    _check_wall(provider, spec)
    return provider.offers(spec)


def check(provider: Provider, network: NetworkPolicy) -> None:
    """Raises BadOrder where the provider cannot hold what it starts to this."""
    _check_box(provider, _of_network(network))
    if not isinstance(network, AllowList):
        return
    if not isinstance(provider, HoldsAllowLists) or not provider.holds_allow_lists:
        raise BadOrder(
            f"network: provider {provider.name} cannot hold an allow-list",
            hint="use a qemu provider, or network = open or none",
        )


def _check_wall(provider: Provider, spec: Spec) -> None:
    """Raises BadOrder for `none` where only the VM itself holds the build to it, and the build may
    be root there."""
    root = spec.needs & {Trait.DOCKER, Trait.PRIVILEGED}
    if spec.network is not Network.NONE or not root:
        return
    if not isinstance(provider, HoldsNoNetwork) or not provider.holds_no_network:
        raise BadOrder(
            f"network: none with {asked(root)}: such a build is root in its VM, whose own network "
            f"provider {provider.name} does not close",
            hint="configure a closed place for it (docs/configuration.md#network-none-in-clouds), "
            "use a qemu provider, or leave one of them out",
        )


def box(provider: Provider) -> Box:
    """Runtime of container images in the instances that the provider starts."""
    return provider.box if isinstance(provider, StartsUnits) else DOCKER


def asked(traits: Collection[Trait], image: str | None = None) -> str:
    """Return the fields and values by which a build asks for these. `image`: the build's."""
    texts = [text for trait, text in _ASKED.items() if trait in traits]
    return ", ".join(texts).format(image=image or "one for a VM")


def _of_network(network: NetworkPolicy) -> frozenset[Trait]:
    return frozenset({Trait.NO_NETWORK} if network is Network.NONE else ())


def _check_box(provider: Provider, needs: frozenset[Trait], image: str | None = None) -> None:
    if missing := needs - box(provider).keeps:
        raise BadOrder(
            f"{asked(missing, image)}: provider {provider.name} starts the container image itself, "
            "and cannot keep that",
            hint="leave it out, or use a provider whose VMs have Docker",
        )
