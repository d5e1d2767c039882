"""Preconditions of a launch: the image and the sizes. Looked up before anything is launched, and
remembered."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from vmrunner.errors import BadOrder
from vmrunner.model import Market
from vmrunner.providers.azure import error_codes, galleries
from vmrunner.providers.azure.client import (
    DEFINITION,
    IMAGE,
    IMAGES,
    SIZES,
    VERSION,
    Answer,
    AzureClient,
    last,
    part,
)
from vmrunner.providers.azure.galleries import GalleryId
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.common.cache import TtlCache
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.cloud_options import GiB
from vmrunner.providers.common.machine_types import MachineType
from vmrunner.providers.port_images import OWNER, promoted_at

T = TypeVar("T")

#: The controller that every size had once.
SCSI: Final = "SCSI"
#: Of a definition in a gallery: what else its images boot from.
_FEATURE: Final = "DiskControllerTypes"
#: Seconds. A newly promoted image is found that late.
_IMAGES, _SIZES = 300.0, 86_400.0

_MANAGED: Final = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/(?P<group>[^/]+)/providers/Microsoft.Compute"
    r"/images/(?P<name>[^/]+)",
    re.IGNORECASE,
)
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,79}")
_URN: Final = re.compile(r"[^:/\s]+:[^:/\s]+:[^:/\s]+:[^:/\s]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class AzureImage:
    """An image, as far as a launch needs it. `id`: an id, or PUBLISHER:OFFER:SKU:VERSION.
    `controllers`: of the disks that it boots from; `generation`: V1 or V2, of the VM that it boots
    in. What is empty, or 0, it does not say."""

    id: str
    name: str
    architecture: str = ""  # x64, Arm64
    size: int = 0  # bytes
    controllers: frozenset[str] = frozenset()
    generation: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AzureSize(MachineType):
    """A machine type in the location. `zones`: where it is to be had; `local`: the bytes that an
    ephemeral disk may have in each place on its host, the one to take first; `controllers`: that
    its disks can have, of `SCSI` and `NVMe`; `generations`: `V1` and `V2`."""

    family: str  # as quotas name it
    zones: frozenset[str]
    spot: bool
    local: Mapping[str, int]
    controllers: frozenset[str] = frozenset({SCSI})
    generations: frozenset[str] = frozenset({"V1", "V2"})

    @property
    def controller(self) -> str:
        """Return the controller that a VM of it must be ordered with; "": Azure's own choice."""
        return "" if SCSI in self.controllers else next(iter(sorted(self.controllers)), "")

    def refusal(self, image: AzureImage) -> str:
        """Reason why no VM of this size boots an image; "" where none is known."""
        has = " and ".join(sorted(self.controllers))
        if image.controllers and not image.controllers & self.controllers:
            wants = " and ".join(sorted(image.controllers))
            return f"{self.name} has {has} disks, and {image.name} boots from {wants}"
        if image.generation and image.generation not in self.generations:
            return f"{self.name} is not of generation {image.generation}, as {image.name} is"
        return ""

    def is_in(self, zone: str, market: Market) -> bool:
        """True if it can be asked for there. Without a zone it is asked for anywhere."""
        return (not zone or zone in self.zones) and (market is Market.ON_DEMAND or self.spot)


class AzureCatalog:
    """Looks things up. Raises `CallFailed` or `BadOrder`."""

    def __init__(
        self, options: AzureOptions, client: AzureClient, elapsed: Callable[[], float] = boottime
    ) -> None:
        self._options = options
        self._client = client
        self._memory = TtlCache(elapsed)
        self.sizes_by_name: dict[str, AzureSize] = {}  # all sizes that were looked up

    def image(self, name: str | None = None) -> AzureImage:
        """The image of this name or id; None: the configured one, or else the promoted one."""
        chosen = name or self._options.image or ""
        return self._memory.get(("image", chosen), _IMAGES, lambda: self._find(chosen))

    def sizes(self) -> list[AzureSize]:
        """The configured sizes that the location has for this subscription, in their order."""
        return self._memory.get("sizes", _SIZES, self._sizes)

    def size(self, name: str) -> AzureSize | None:
        return next((size for size in self.sizes() if size.name == name), None)

    # --- within ---

    def _find(self, text: str) -> AzureImage:
        field = f"providers.{self._options.name}.image"
        hint = f"`vmrunner image build`, then `image promote`; or name one in {field}"
        if not text:
            return self._promoted(hint)
        found = _MANAGED.fullmatch(text)
        version = self._versioned(text)
        if version is not None:
            return self._defined(text, version)
        if found is None and (text.startswith("/") or _URN.fullmatch(text)):
            return AzureImage(id=text, name=text)  # a gallery's, or Azure's own: it tells no size
        name = found["name"] if found else text
        if found is None and not _NAME.fullmatch(text):
            hint = "a name, an id, or PUBLISHER:OFFER:SKU:VERSION"
            raise BadOrder(f"image {text!r}: no name or id of an image", hint=hint)
        group = found["group"] if found else self._options.group
        try:
            answer = self._client(IMAGE, group=group, image_name=name)
        except CallFailed as failed:
            if failed.code not in error_codes.MISSING:
                raise
            raise BadOrder(f"image {text}: {failed}", hint=hint) from failed
        if (state := part(answer, "properties", "provisioningState")) != "Succeeded":
            raise BadOrder(f"image {text} is {state}", hint=f"name another in {field}")
        return _image(answer)

    @property
    def _account(self) -> str:
        return str(self._options.subscription).lower()

    def _versioned(self, text: str) -> GalleryId | None:
        """Id of an image in a gallery of the subscription; None where it is in none. A name of a
        managed image may look like that of a version, which is looked for first."""
        found = galleries.parsed(text)
        if found is not None and found.subscription.lower() == self._account:
            return found
        image = galleries.image_of(self._options.group, text)
        if image is None:
            return None
        version = _readable(lambda: galleries.version(self._client, self._options.group, image))
        return galleries.parsed(str(version["id"])) if version else None

    def _defined(self, text: str, identifier: GalleryId) -> AzureImage:
        """An image in a gallery of the subscription, as its definition tells of it; without the
        right to read that, nothing is known of it, and Azure decides."""
        image = identifier.image
        try:
            definition = self._client(DEFINITION, group=identifier.group, **image.where)
            version: Answer = {}
            if image.version:
                version = self._client(VERSION, group=identifier.group, **image.named)
        except CallFailed as failed:
            if failed.code in error_codes.DENIED:
                return AzureImage(id=text, name=image.definition)
            if failed.code not in {*error_codes.MISSING, error_codes.NO_GROUP}:
                raise
            field = f"providers.{self._options.name}.image"
            raise BadOrder(f"image {text}: {failed}", hint=f"name another in {field}") from failed
        return defined(text if text.startswith("/") else str(version["id"]), definition, version)

    def _promoted(self, hint: str) -> AzureImage:
        group = self._options.group
        managed = [(image, None) for image in self._client.listed(IMAGES)]
        # A role of a former version may not read galleries, and then made nothing in one.
        pairs = _readable(lambda: list(galleries.versions(self._client, group))) or ()
        candidates = [
            (image, definition)
            for image, definition in (*managed, *((made, above) for above, made in pairs))
            if part(image, "tags", OWNER) == self._options.installation
            and part(image, "properties", "provisioningState") == "Succeeded"
            and promoted_at(part(image, "tags") or {}) > 0
        ]
        if not candidates:
            raise BadOrder(f"{group} has no promoted image", hint=hint)
        image, definition = max(candidates, key=lambda pair: promoted_at(pair[0]["tags"]))
        if definition is None:
            return _image(image)
        return defined(str(image["id"]), definition, image)

    def _sizes(self) -> list[AzureSize]:
        location = str(self._options.location)
        query = {"filter": f"location eq '{location}'"}
        wanted = {name.lower() for name in self._options.machine_types}
        found = {
            str(item["name"]).lower(): item
            for item in self._client.listed(SIZES, **query)
            if item.get("resourceType") == "virtualMachines" and str(item["name"]).lower() in wanted
        }
        sizes = (
            _size(found[name.lower()], location)
            for name in self._options.machine_types
            if name.lower() in found
        )
        available = [item for item in sizes if item is not None]
        self.sizes_by_name |= {item.name: item for item in available}
        return available


def placement(options: AzureOptions, size: AzureSize | None, disk: int) -> str:
    """Place of the disk on the host of a VM of this size, in Azure's word; "": a managed disk.
    Azure chooses none by the room that is there."""
    if options.os_disk != "ephemeral" or size is None or disk <= 0:
        return ""
    return next((place for place, most in size.local.items() if disk <= most), "")


def _image(item: Answer) -> AzureImage:
    size = part(item, "properties", "storageProfile", "osDisk", "diskSizeGB") or 0
    # A managed image cannot be of another architecture.
    return AzureImage(
        id=str(item["id"]),
        name=last(str(item["id"])),
        architecture="x64",
        size=int(size) * GiB,
        controllers=frozenset({SCSI}),  # it has no place for another
        generation=str(part(item, "properties", "hyperVGeneration") or "V1"),
    )


def is_managed(image: str) -> bool:
    """True if an id is a managed image's."""
    return _MANAGED.fullmatch(image) is not None


def into_gallery(options: AzureOptions) -> bool:
    """True if images are made in a gallery. Where `image` names a managed one, and nothing else is
    said, they stay what they were."""
    if options.images is not None:
        return options.images == "gallery"
    named = options.image or ""
    if is_managed(named):
        return False
    return not _NAME.fullmatch(named) or galleries.image_of("", named) is not None


def _readable(read: Callable[[], T]) -> T | None:
    """Result of `read`; None where these credentials may not read. Raises `CallFailed`."""
    try:
        return read()
    except CallFailed as failed:
        if failed.code in error_codes.DENIED:
            return None
        raise


def defined(identifier: str, definition: Answer, version: Answer) -> AzureImage:
    """Return an image of a gallery. `version`: {}: whichever is the latest."""
    features = part(definition, "properties", "features") or ()
    values = {str(feature.get("name")): str(feature.get("value")) for feature in features}
    disk = part(version, "properties", "storageProfile", "osDiskImage", "sizeInGB") or 0
    return AzureImage(
        id=identifier,
        name=last(str(definition["id"])),
        architecture=str(part(definition, "properties", "architecture") or "x64"),
        size=int(disk) * GiB,
        controllers=_listed(values.get(_FEATURE, SCSI)),
        generation=str(part(definition, "properties", "hyperVGeneration") or "V1"),
    )


def _size(item: Answer, location: str) -> AzureSize | None:
    """None: this subscription may not have it there."""
    capabilities = {
        str(entry["name"]): str(entry["value"]) for entry in item.get("capabilities") or ()
    }
    locations = (
        entry for entry in item.get("locationInfo") or () if entry["location"].lower() == location
    )
    zones = frozenset(map(str, part(next(locations, {}), "zones") or ()))
    for entry in item.get("restrictions") or ():
        if entry.get("type") == "Location":
            return None
        zones -= frozenset(map(str, part(entry, "restrictionInfo", "zones") or ()))
    local: dict[str, int] = {}
    if capabilities.get("EphemeralOSDiskSupported") == "True":
        local["CacheDisk"] = _int(capabilities, "CachedDiskBytes")
        local["ResourceDisk"] = _int(capabilities, "MaxResourceVolumeMB") << 20
        local["NvmeDisk"] = _int(capabilities, "NvmeDiskSizeInMiB") << 20
    if (placements := capabilities.get("SupportedEphemeralOSDiskPlacements")) is not None:
        local = {place: most for place, most in local.items() if place in _listed(placements)}
    return AzureSize(
        name=str(item["name"]),
        family=str(item.get("family") or ""),
        cpus=_int(capabilities, "vCPUs"),
        memory=int(float(capabilities.get("MemoryGB") or 0) * GiB),
        architectures=(capabilities.get("CpuArchitectureType", "x64"),),
        zones=zones,
        spot=capabilities.get("LowPriorityCapable") == "True",
        local=local,
        controllers=_listed(capabilities.get(_FEATURE, SCSI)),
        generations=_listed(capabilities.get("HyperVGenerations", "V1,V2")),
    )


def _listed(text: str) -> frozenset[str]:
    """Return the words of a list with commas."""
    return frozenset(word.strip() for word in text.split(",") if word.strip())


def _int(capabilities: Mapping[str, str], name: str) -> int:
    value: Any = capabilities.get(name) or "0"
    return int(value) if str(value).isdigit() else 0
