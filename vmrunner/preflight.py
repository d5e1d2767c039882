"""What can be known of a build before it is submitted, and needs its provider: that the machine
can be had, that the image is there (the first build makes it), that the container can be got."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.errors import BadOrder, ConfigError, NoCapacity
from vmrunner.model import BuildSpec, Level, Network, Spec

if TYPE_CHECKING:
    from vmrunner.images import LocalImage, Progress
    from vmrunner.wiring import Wiring

OnImage = Callable[["Progress"], None]

#: Findings of a QEMU host that only matter to a build that reaches the internet.
_OPEN_ONLY: Final = frozenset({"pasta", "nft", "tun"})


def check(wiring: Wiring, spec: BuildSpec, on_image: OnImage | None) -> None:
    """Raises `ConfigError`, or the provider's own refusal. Makes the default local image when
    there is none and `on_image` is there to hear of it."""
    settings = wiring.settings.providers[spec.provider]
    if settings.kind == "qemu":
        if not wiring.one_host and wiring.served():
            return  # the machine that will run it is another one
        cache, wanted = wiring.paths.cache, spec.image or settings.image
        if wanted is None and not _any_image(cache):
            if on_image is None:
                return
            _make_image(cache, settings.accel, on_image)
        _container(spec, _image(cache, wanted))
        _host(wiring, spec)
    wants = Spec(
        cpus=spec.cpus,
        memory=spec.memory,
        disk=spec.disk,
        spot=spec.spot,
        image=spec.image,
        network=spec.network,
    )
    try:
        wiring.provider(spec.provider).offers(wants)
    except NoCapacity:
        return  # for now; the queue waits for it as long as the user says
    except BadOrder as error:
        raise _usable(error) from error


def _any_image(cache: Path) -> bool:
    """Is any there, be it damaged? A damaged one is told about, and not built over."""
    return any((cache / "images").glob("[!.]*"))


def _make_image(cache: Path, accel: str, on_image: OnImage) -> None:
    from vmrunner import images

    images.build(images.find("default"), cache=cache, progress=on_image, accel=accel)


def _image(cache: Path, wanted: str | None) -> LocalImage:
    from vmrunner import images

    try:
        return images.resolve(cache, wanted)
    except BadOrder as error:
        raise _usable(error) from error


def _host(wiring: Wiring, spec: BuildSpec) -> None:
    """Is all there that a VM on this host needs?"""
    ignored = _OPEN_ONLY if spec.network is Network.NONE else frozenset()
    if spec.disk is not None:
        ignored |= {"disk"}  # it speaks of the default size
    for found in wiring.provider(spec.provider).check():
        if found.level is Level.ERROR and found.check not in ignored:
            raise ConfigError(f"provider {spec.provider}: {found.message}", hint=found.fix)


def _container(spec: BuildSpec, image: LocalImage) -> None:
    if spec.network is not Network.NONE:
        return  # it can be pulled
    tagged = spec.container.rpartition("/")[2]
    name = spec.container if ":" in tagged or "@" in tagged else f"{spec.container}:latest"
    if name not in image.containers:
        baked = ", ".join(image.containers) or "none"
        raise ConfigError(
            f"container: {spec.container!r} is not in VM image {image.name!r}, and network is none",
            hint=f"in it: {baked}",
        )


def _usable(error: BadOrder) -> ConfigError:
    """Before anything is submitted, an order that can never be met is the user's to mend."""
    return ConfigError(str(error.args[0]), hint=error.hint)
