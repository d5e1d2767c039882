"""Preconditions of a launch: the image, the network, the machine types. Looked up before anything
is launched, and remembered."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from vmrunner.errors import BadOrder
from vmrunner.providers.common.cache import TtlCache
from vmrunner.providers.common.call_failed import CallFailed, tolerated
from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.cloud_options import GiB
from vmrunner.providers.common.machine_types import MachineType
from vmrunner.providers.gce import error_codes
from vmrunner.providers.gce.client import FAMILY, IMAGE, TYPE, GceClient
from vmrunner.providers.gce.options import FAMILY as OURS
from vmrunner.providers.gce.options import GceOptions

#: Seconds. A new image of an old family is found that late.
IMAGES, FOR_EVER = 300.0, 86_400.0

_LINK: Final = re.compile(
    r"(?:https://[^/]+/compute/v1/)?projects/(?P<project>[^/]+)/global/images/"
    r"(?P<family>family/)?(?P<name>[a-z][a-z0-9-]*)"
)
#: Projects whose images nothing can be told to.
_NO_CLOUD_INIT: Final = frozenset({"debian-cloud"})
_NAME: Final = re.compile(r"(?P<family>family/)?(?P<name>[a-z][a-z0-9-]*)")


class ImageName(NamedTuple):
    """The parts of a word for an image. `project`: empty where it is not told."""

    project: str
    family: bool
    name: str  # the family's, or the image's


@dataclass(frozen=True, kw_only=True, slots=True)
class GceImage:
    """An image, as far as a launch needs it. `id`: its link, without the host."""

    id: str
    name: str
    architecture: str  # X86_64, ARM64; empty: it does not say
    size: int  # bytes


class GceCatalog:
    """Looks things up. Raises `CallFailed` or `BadOrder`."""

    def __init__(
        self, options: GceOptions, client: GceClient, elapsed: Callable[[], float] = boottime
    ) -> None:
        self._options = options
        self._client = client
        self._memory = TtlCache(elapsed)

    def image(self, name: str | None = None) -> GceImage:
        """The image of this link or name, or the newest of a family; None: the configured one."""
        text = name or self._options.image or f"family/{OURS}"
        return self._memory.get(("image", text), IMAGES, lambda: self._find(text))

    def types(self, zone: str) -> list[MachineType]:
        """The configured types that this zone has, in their order."""
        names = self._options.machine_types

        def ask() -> list[MachineType]:
            found = (self._type(zone, name) for name in names)
            return [machine_type for machine_type in found if machine_type is not None]

        return self._memory.get(("types", zone), FOR_EVER, ask)

    # --- within ---

    def _find(self, text: str) -> GceImage:
        found = named(text)
        field = f"providers.{self._options.name}.image"
        if found is None:
            raise BadOrder(
                f"image {text!r}: no name, family or link of an image",
                hint="projects/PROJECT/global/images/family/NAME, or …/images/NAME",
            )
        project = found.project or self._options.project
        if project in _NO_CLOUD_INIT:
            raise BadOrder(
                f"image {text}: Google's Debian has no cloud-init, and hears nothing of a build",
                hint="`vmrunner image build`, or one of projects/ubuntu-os-cloud with --bootstrap",
            )
        try:
            if found.family:
                image = self._client(FAMILY, project=project, family=found.name)
            else:
                image = self._client(IMAGE, project=project, image=found.name)
        except CallFailed as failed:
            if failed.code not in error_codes.MISSING:
                raise
            hint = f"build one, or name another in {field}"
            raise BadOrder(f"image {text}: {failed}", hint=hint) from failed
        if image.status != "READY":
            raise BadOrder(f"image {text} is {image.status}", hint=f"name another in {field}")
        return GceImage(
            id=f"projects/{project}/global/images/{image.name}",
            name=image.name,
            architecture=image.architecture,
            size=int(image.disk_size_gb) * GiB,
        )

    def _type(self, zone: str, name: str) -> MachineType | None:
        with tolerated(error_codes.MISSING):
            answer = self._client(TYPE, zone=zone, machine_type=name)
            return MachineType(
                name=answer.name,
                cpus=int(answer.guest_cpus),
                memory=int(answer.memory_mb) << 20,
                architectures=(answer.architecture,) if answer.architecture else (),
            )
        return None


def named(text: str) -> ImageName | None:
    """A link, with or without its host, an image's name, or family/NAME; None: it is none."""
    found = _LINK.fullmatch(text) or _NAME.fullmatch(text)
    if found is None:
        return None
    words = found.groupdict()
    return ImageName(words.get("project") or "", bool(words["family"]), words["name"])
