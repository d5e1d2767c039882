"""Ceilings of what a build may be given: by `limits` for all, by a token's quota for its
own, and for callers from elsewhere the images of this installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrunner.core import ceilings
from vmrunner.errors import ConfigError, NotAllowed
from vmrunner.model import AllowList, BuildSpec, ImageState, Network, NetworkPolicy

if TYPE_CHECKING:
    from vmrunner.config.build_request import BuildRequest
    from vmrunner.config.settings import Settings
    from vmrunner.ledger import Ledger
    from vmrunner.model import BuildRecord, TokenQuota


def network(wanted: NetworkPolicy | None, settings: Settings) -> NetworkPolicy:
    """Return the network of a build: as it is said, else the default, no more than the ceiling.
    Raises ConfigError for more that is said."""
    most = settings.limits.network
    if wanted is None:
        default = settings.defaults.network
        return default if ceilings.covers(most, default) else most
    if not ceilings.covers(most, wanted):
        raise ConfigError(
            f"network: {_shown(wanted)} is above limits.network {_shown(most)}",
            hint=f"network = {_shown(most)}, or a higher limits.network",
        )
    return wanted


def check(spec: BuildRequest | BuildSpec, settings: Settings) -> None:
    """Raises ConfigError for what `limits` do not let anybody have."""
    limits = settings.limits
    if spec.privileged and not limits.privileged:
        raise ConfigError(
            "privileged: not allowed here", hint="limits.privileged = true, or leave it out"
        )
    if spec.docker and not limits.docker:
        raise ConfigError("docker: not allowed here", hint="limits.docker = true, or leave it out")


def within(request: BuildRequest, quota: TokenQuota, settings: Settings) -> BuildRequest:
    """Return a request of a token's holder, whose network is no more than its quota's where none is
    said."""
    most = quota.network
    if most is None or request.network is not None:
        return request
    default = network(None, settings)
    if ceilings.covers(most, default):
        return request
    lower = most if ceilings.covers(default, most) else Network.NONE
    return request.model_copy(update={"network": lower})


def check_quota(spec: BuildSpec, quota: TokenQuota) -> None:
    """Raises NotAllowed for what a token's quota does not cover."""
    if quota.network is not None and not ceilings.covers(quota.network, spec.network):
        raise NotAllowed(
            f"network: {_shown(spec.network)} is above the token's {_shown(quota.network)}",
            hint=f"network = {_shown(quota.network)}",
        )
    if quota.docker is False and (spec.docker or spec.privileged):
        field = "docker" if spec.docker else "privileged"
        raise NotAllowed(f"{field}: the token is for builds without", hint="leave it out")
    named = quota.images is not None and spec.image is not None
    if named and not ceilings.image_allowed(spec.image or "", quota.images or ()):
        raise NotAllowed(
            f"image: the token is not for {(spec.image or '')[:80]!r}",
            hint="leave it out" + _listed(quota.images or ()),
        )


def check_entry(build: BuildRecord, quota: TokenQuota) -> None:
    """Raises NotAllowed for a build that the token's holder could not have submitted: inside it he
    has what it was given."""
    try:
        check_quota(build.spec, quota)
    except NotAllowed as error:
        raise NotAllowed(
            f"{build.id} has more than the token may have: {error.args[0]}",
            hint="a token without this ceiling",
        ) from None


def check_root(settings: Settings, quota: TokenQuota) -> None:
    """Raises NotAllowed where `limits` or a token's quota hold a build's container: root in its VM
    passes them by."""
    networks = (settings.limits.network, quota.network or Network.OPEN)
    if not all(ceilings.covers(most, Network.OPEN) for most in networks):
        bound = "network"
    elif not settings.limits.docker or quota.docker is False:
        bound = "docker"
    else:
        return
    raise NotAllowed(
        f"the ceiling of {bound} holds in containers, so nobody whom it binds enters as root",
        hint="enter the container: vmrunner ssh --container",
    )


def check_image(spec: BuildSpec, settings: Settings, ledger: Ledger, *, remote: bool) -> None:
    """Raises NotAllowed for a VM image that no caller may name: over HTTP all but the configured
    one, those that this installation made, and those of `limits.images`; the same for all where
    that is set."""
    listed = settings.limits.images
    section = settings.providers[spec.provider]
    if spec.image is None or section.boots_local_images:
        return  # all images on this host were made here
    if listed is None and not remote:
        return
    configured = getattr(section, "image", None)
    names = {str(getattr(configured, "name", None) or configured)}
    for row in ledger.images.list():
        if row.provider == spec.provider and row.state is ImageState.READY:
            names |= {row.name, *([row.ref] if row.ref else [])}
    if not ceilings.image_allowed(spec.image, names | set(listed or ())):
        raise NotAllowed(
            f"image: {spec.image[:80]!r} is neither configured nor made by this installation",
            hint="leave it out, or have it named in limits.images",
        )


def _shown(policy: NetworkPolicy) -> str:
    return str(policy) if isinstance(policy, AllowList) else policy.value


def _listed(names: tuple[str, ...]) -> str:
    return f", or one of: {', '.join(names)}" if names else ""
