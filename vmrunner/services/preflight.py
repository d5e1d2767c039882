"""Checks of a build before it is submitted that need its provider: that the machine can be had,
that the image is there or can be made, that the container can be got.

Nothing is made here. What has to be made is given back, for the time when all else is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from vmrunner.config import registry_auth
from vmrunner.core import requirements
from vmrunner.errors import (
    BadOrder,
    ConfigError,
    NoCapacity,
    ProviderError,
    QuotaExceeded,
    Throttled,
)
from vmrunner.lib import units
from vmrunner.model import RUNSC, AllowList, BuildSpec, Level, Network
from vmrunner.providers import capabilities
from vmrunner.providers.port import BootsLocalImages
from vmrunner.providers.port_guard import CanHaveGuard
from vmrunner.runtime import background

if TYPE_CHECKING:
    from vmrunner.config.paths import Paths
    from vmrunner.config.settings import Settings
    from vmrunner.images import LocalImage, Progress, Recipe
    from vmrunner.ledger import Ledger
    from vmrunner.providers.settings import LocalSettings
    from vmrunner.runtime.provider_set import ProviderSet

OnImage = Callable[["Progress"], None]

#: Findings of this host that only matter to a build that reaches the internet.
_OPEN_ONLY: Final = frozenset({"pasta", "nft", "tun"})
_DOCKER_HUB: Final = "registry-1.docker.io"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageToBuild:
    """An image that must be made before the build can start."""

    recipe: Recipe
    cache: Path
    why: str

    def make(self, progress: OnImage) -> None:
        """Minutes the first time, less when only some of it changed; nothing if another process
        made it meanwhile."""
        from vmrunner import images

        images.build(self.recipe, cache=self.cache, progress=progress)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreflightResult:
    """A build that may be submitted, once `image` is made. `warnings` are for the user."""

    image: ImageToBuild | None = None
    warnings: tuple[str, ...] = ()


def check(
    spec: BuildSpec, settings: Settings, *, paths: Paths, ledger: Ledger, providers: ProviderSet
) -> PreflightResult:
    """Raises `ConfigError`, or the provider's own refusal."""
    section = settings.providers[spec.provider]
    if section.boots_local_images:
        if not background.one_host(ledger) and background.served(ledger, [spec.provider]):
            return PreflightResult()  # the machine that will run it is another one
        return _local(spec, cast("LocalSettings", section), paths, providers)
    _offered(spec, providers)
    return PreflightResult(warnings=_unguarded(spec.provider, ledger, providers))


def _unguarded(name: str, ledger: Ledger, providers: ProviderSet) -> tuple[str, ...]:
    """Return, at the first launch, what the guarantee is worth in this account; `doctor` says it
    later."""
    provider = providers.get(name)
    if not isinstance(provider, CanHaveGuard) or ledger.instances.launched(name):
        return ()
    try:
        found = provider.unguarded()
    except ProviderError as error:
        return (f"{name}: whether a guard is in the account cannot be told: {error}",)
    return tuple(f"{name}: {finding.message} ({finding.fix})" for finding in found)


def _local(
    spec: BuildSpec, section: LocalSettings, paths: Paths, providers: ProviderSet
) -> PreflightResult:
    """The image first, since what it holds decides on the container."""
    from vmrunner import images

    if spec.bootstrap and spec.image is None:
        raise ConfigError("bootstrap: the default image needs none", hint="leave it out")
    try:
        image = images.resolve(paths.cache, spec.image or section.image, images.current)
    except images.NotMade as error:
        recipe = images.find(images.DEFAULT)
        _container(spec, recipe.name, [container.name for container in recipe.containers])
        _runtime(spec, recipe.name, recipe.packages)
        _host(spec, providers)
        _sized(spec, recipe, providers)
        _disk(spec, section, providers, recipe.name, recipe.disk)
        to_build = ImageToBuild(recipe=recipe, cache=paths.cache, why=str(error.args[0]))
        return PreflightResult(image=to_build)
    except BadOrder as error:
        raise _usable(error) from error
    if spec.bootstrap and image.supervisor:
        raise ConfigError(f"bootstrap: image {image.name!r} needs none", hint="leave it out")
    _container(spec, image.name, image.containers)
    _runtime(spec, image.name, image.packages)
    _host(spec, providers)
    _offered(spec, providers)
    _disk(spec, section, providers, image.name, image.virtual_size)
    return PreflightResult(warnings=() if spec.bootstrap else _foreign(image))


def _foreign(image: LocalImage) -> tuple[str, ...]:
    """An image that was named is used as it is; but say so when its supervisor is not ours."""
    from vmrunner import images

    if images.speaks_ours(image):
        return ()
    fix = "vmrunner image build" + ("" if image.name == images.DEFAULT else " RECIPE.toml")
    return (
        f"image: {image.name!r} ({image.hash[:12]}) is of another version of vmrunner ({fix} "
        "makes it anew)",
    )


def _offered(spec: BuildSpec, providers: ProviderSet) -> None:
    """Check that its provider has such a machine."""
    try:
        capabilities.offers(providers.get(spec.provider), requirements.machine(spec))
    except (NoCapacity, QuotaExceeded, Throttled):
        return  # for now; the queue waits for it as long as the user says
    except BadOrder as error:
        raise _usable(error) from error


def _sized(spec: BuildSpec, recipe: Recipe, providers: ProviderSet) -> None:
    """The same of this host, for an image that is not there yet."""
    driver = providers.get(spec.provider)
    try:
        capabilities.check(driver, spec.network)
        if isinstance(driver, BootsLocalImages):
            driver.check_size(requirements.machine(spec), least=recipe.disk, image=recipe.name)
    except BadOrder as error:
        raise _usable(error) from error


def _disk(
    spec: BuildSpec, section: LocalSettings, providers: ProviderSet, image: str, least: int
) -> None:
    """Check that this host can ever hold what the build's disk may grow to, and that the configured
    size of one is enough for the image. `_host` looks at the room for that size."""
    if spec.disk is None and section.disk is not None and section.disk < least:
        raise ConfigError(
            f"providers.{spec.provider}.disk: {units.amount(section.disk)}: image {image} needs "
            f"{units.amount(least)}",
            hint="at least that, or leave it out",
        )
    driver = providers.get(spec.provider)
    if spec.disk is not None and isinstance(driver, BootsLocalImages):
        try:
            driver.check_room(spec.disk)
        except BadOrder as error:
            raise _usable(error) from error


def _host(spec: BuildSpec, providers: ProviderSet) -> None:
    """Check that all is there that a VM on this host needs."""
    ignored = frozenset({"image"})  # this build's may be another than the configured one
    if spec.network is Network.NONE:
        ignored |= _OPEN_ONLY
    if not isinstance(spec.network, AllowList):
        ignored |= {"allow-list"}
    if spec.disk is not None:
        ignored |= {"disk"}  # it speaks of the default size
    for found in providers.get(spec.provider).check():
        if found.level is Level.ERROR and found.check not in ignored:
            raise ConfigError(f"provider {spec.provider}: {found.message}", hint=found.fix)


def _container(spec: BuildSpec, image: str, containers: Collection[str]) -> None:
    if spec.network is Network.OPEN:
        return  # the supervisor pulls it
    tagged = spec.container.rpartition("/")[2]
    name = spec.container if ":" in tagged or "@" in tagged else f"{spec.container}:latest"
    if name in containers:
        return
    baked = ", ".join(containers) or "none"
    if not isinstance(spec.network, AllowList):
        raise ConfigError(
            f"container: {spec.container!r} is not in VM image {image!r}, and network is none",
            hint=f"in it: {baked}",
        )
    host, port = _registry(spec.container)
    if not spec.network.permits(host, port):
        raise ConfigError(
            f"container: {spec.container!r} is not in VM image {image!r}, and the allow-list has "
            f"not its registry {host}",
            hint=f"allow that, and where it has its tokens and layers; in the image: {baked}",
        )


def _registry(container: str) -> tuple[str, int]:
    """Return whom Docker asks for a container's image."""
    host, _, port = registry_auth.registry_of(container).partition(":")
    return (_DOCKER_HUB if host == registry_auth.HUB else host), int(port or 443)


def _runtime(spec: BuildSpec, image: str, packages: Collection[str] | None) -> None:
    """Check that the image has the runtime. Where the image does not tell, the supervisor will."""
    if spec.runtime == RUNSC and packages is not None and RUNSC not in packages:
        raise ConfigError(
            f"container-runtime: VM image {image!r} has no runsc (gVisor)",
            hint='one with it: a recipe with packages = ["runsc"], such as `vmrunner image build '
            "gvisor` and --image gvisor",
        )


def _usable(error: BadOrder) -> ConfigError:
    """Translate an order that can never be met: before anything is submitted, it is the user's to
    mend."""
    return ConfigError(str(error.args[0]), hint=error.hint)
