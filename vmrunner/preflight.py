"""What can be known of a build before it is submitted, and needs its provider: that the machine
can be had, that the image is there (the first build makes it), that the container can be got."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vmrunner.errors import BadOrder, ConfigError, NoCapacity
from vmrunner.model import BuildSpec, Network, Spec

if TYPE_CHECKING:
    from vmrunner.images import LocalImage, Progress
    from vmrunner.wiring import Wiring

OnImage = Callable[["Progress"], None]


def check(wiring: Wiring, spec: BuildSpec, on_image: OnImage | None) -> None:
    """Raises `ConfigError`, or the provider's own refusal. Makes the default local image when
    there is none and `on_image` is there to hear of it."""
    settings = wiring.settings.providers[spec.provider]
    if settings.kind == "qemu":
        image = _local_image(
            wiring.paths.cache, spec.image or settings.image, settings.accel, on_image
        )
        if image is None:
            return
        _container(spec, image)
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


def _local_image(
    cache: Path, wanted: str | None, accel: str, on_image: OnImage | None
) -> LocalImage | None:
    from vmrunner import images

    if wanted is None and not images.images(cache):
        if on_image is None:
            return None
        images.build(images.find("default"), cache=cache, progress=on_image, accel=accel)
    try:
        return images.resolve(cache, wanted)
    except BadOrder as error:
        raise _usable(error) from error


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
