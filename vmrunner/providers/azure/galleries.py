"""The gallery of one resource group, in which images are versions: of the definition
`vmrunner-RECIPE`, numbered by the time and the id of their build.

Gallery and definitions last, and bill nothing: versions do."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from vmrunner.providers.azure import error_codes
from vmrunner.providers.azure.client import (
    DEFINITION,
    DEFINITIONS,
    GALLERY,
    PUT_DEFINITION,
    PUT_GALLERY,
    VERSION,
    VERSIONS,
    Answer,
    AzureClient,
    last,
)
from vmrunner.providers.azure.operations import AzureWaiter
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.common.call_failed import CallFailed, tolerated
from vmrunner.providers.port_images import HASH, OWNER, RECIPE, ImageRequest

#: Of a version, each of which serves fifty starts at once (see `boots`): for several processes.
REPLICAS: Final = 4
#: Of a definition: sizes of the sixth and seventh generation have NVMe disks alone; and its
#: versions boot with Trusted Launch and without it, as the vendor's bases do.
FEATURES: Final = (
    ("DiskControllerTypes", "SCSI, NVMe"),
    ("SecurityType", "TrustedLaunchSupported"),
)

_ID: Final = re.compile(
    r"(?:/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)/providers"
    r"/Microsoft.Compute/)?galleries/(?P<gallery>[^/]+)/images/(?P<definition>[^/]+)"
    r"(?:/versions/(?P<version>[^/]+))?",
    re.IGNORECASE,
)
#: `ImageRequest.name`: its definition, its recipe's hash, its time and the end of its row's id.
_NAME: Final = re.compile(
    r"(?P<definition>vmrunner-.+)-(?P<hash>[0-9a-f]{8})-(?P<day>\d{8})(?P<time>\d{6})"
    r"-(?P<id>[0-9a-hjkmnp-tv-z]{6})"
)
_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # of ids: five bits each
_OTHER: Final = re.compile(r"[^A-Za-z0-9]+")


class GalleryImage(NamedTuple):
    """A definition in a gallery, and a version of it. `version`: "": the latest."""

    gallery: str
    definition: str
    version: str = ""

    @property
    def where(self) -> dict[str, Any]:
        """Return the parameters of calls about the definition."""
        return {"gallery_name": self.gallery, "gallery_image_name": self.definition}

    @property
    def named(self) -> dict[str, Any]:
        """Return the parameters of calls about the version."""
        return {**self.where, "gallery_image_version_name": self.version}


class GalleryId(NamedTuple):
    """An id of something in a gallery. Group and subscription are empty in one that begins with
    `galleries/`."""

    subscription: str
    group: str
    image: GalleryImage


def parsed(identifier: str) -> GalleryId | None:
    """Parts of the id of a definition or of a version; None: it is no such id."""
    found = _ID.fullmatch(identifier)
    if found is None:
        return None
    version = found["version"] or ""
    image = GalleryImage(
        found["gallery"], found["definition"], "" if version.lower() == "latest" else version
    )
    return GalleryId(found["subscription"] or "", found["group"] or "", image)


def gallery_of(group: str) -> str:
    """Return the name of a group's gallery. It is the only one of that name in the subscription,
    and has no hyphens: Azure takes none."""
    group = group.lower()
    stem = _OTHER.sub("_", group).strip("_")[:40]
    return f"vmrunner_{stem}_{hashlib.sha256(group.encode()).hexdigest()[:8]}"


def image_of(group: str, name: str) -> GalleryImage | None:
    """Place of the image of a request's name, made or not; None: no request has such a name.
    The same name is always the same version: `20261201.93000.ID`, each a number of 32 bits."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    number = 0
    for digit in found["id"]:
        number = number * 32 + _DIGITS.index(digit)
    version = f"{int(found['day'])}.{int(found['time'])}.{number}"
    return GalleryImage(gallery_of(group), found["definition"], version)


def name_of(image: GalleryImage, tags: Mapping[str, str]) -> str:
    """Return the request's name of a version, or `DEFINITION/VERSION` of one that none has."""
    day, _, rest = image.version.partition(".")
    time, _, number = rest.partition(".")
    if all(text.isascii() and text.isdigit() for text in (day, time, number)):
        digits, remaining = "", int(number)
        for _ in range(6):
            remaining, digit = divmod(remaining, 32)
            digits = _DIGITS[digit] + digits
        name = f"{image.definition}-{tags.get(HASH, '')[:8]}-{day}{int(time):06d}-{digits}"
        if image_of("", name) == image._replace(gallery=gallery_of("")):
            return name
    return f"{image.definition}/{image.version}"


def versions(client: AzureClient, group: str) -> Iterator[tuple[Answer, Answer]]:
    """Yield each version in a group's gallery, after its definition. Raises `CallFailed`, but not
    where there is no such gallery."""
    gallery = gallery_of(group)
    definitions: list[Answer] = []
    with tolerated(error_codes.MISSING):
        definitions = list(client.listed(DEFINITIONS, group=group, gallery_name=gallery))
    for definition in definitions:
        image = GalleryImage(gallery, last(str(definition["id"])))
        found: list[Answer] = []
        with tolerated(error_codes.MISSING):  # it was deleted since
            found = list(client.listed(VERSIONS, group=group, **image.where))
        yield from ((definition, version) for version in found)


def version(client: AzureClient, group: str, image: GalleryImage) -> Answer | None:
    """Return a version; None: it is not there. Raises `CallFailed`."""
    with tolerated(error_codes.MISSING):
        return client(VERSION, group=group, **image.named)
    return None


def prepare(
    client: AzureClient, waiter: AzureWaiter, options: AzureOptions, request: ImageRequest
) -> None:
    """Make the gallery and the definition that a request's version is to be of, where they are
    missing. Raises `CallFailed`, or `Uncertain` while one is still being made."""
    image = image_of(options.group, request.name)
    if image is None:
        raise ValueError(request.name)
    own = {**options.tags, OWNER: request.installation}
    gallery = {"location": options.location, "tags": own, "properties": {}}
    definition = {
        "location": options.location,
        "tags": {**own, RECIPE: request.recipe},
        "properties": {
            "osType": "Linux",
            "osState": "Generalized",
            "hyperVGeneration": "V2",
            "architecture": "x64",
            "identifier": {"publisher": "vmrunner", "offer": image.definition, "sku": "x64"},
            "features": [{"name": name, "value": value} for name, value in FEATURES],
        },
    }
    named: dict[str, Any] = {"gallery_name": image.gallery}
    for look, make, names, body in (
        (GALLERY, PUT_GALLERY, named, {"gallery": gallery}),
        (DEFINITION, PUT_DEFINITION, image.where, {"gallery_image": definition}),
    ):
        try:
            client(look, group=options.group, **names)
        except CallFailed as failed:
            if failed.code not in error_codes.MISSING:
                raise
            waiter.done(make, client.begin(make, group=options.group, **names, **body))
