"""Images that this installation made: where their builder runs, which one builds get, what goes.

They are versions in a gallery of the group that launches, and managed images there. The promoted
one has a tag that says when."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Final

from vmrunner.errors import BadOrder, ConfigError
from vmrunner.model import Scope, tags_of
from vmrunner.providers.azure import error_codes, galleries
from vmrunner.providers.azure.catalog import SCSI, AzureCatalog, into_gallery
from vmrunner.providers.azure.client import (
    DELETE_IMAGE,
    DELETE_VERSION,
    IMAGE,
    IMAGES,
    TAG_IMAGE,
    TAG_VERSION,
    VMS,
    Answer,
    AzureApi,
    AzureClient,
    last,
    part,
)
from vmrunner.providers.azure.galleries import GalleryImage
from vmrunner.providers.azure.identity import AzureIdentity
from vmrunner.providers.azure.operations import AzureWaiter
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.azure.resources import tags
from vmrunner.providers.common.call_failed import CallFailed, edge, tolerated
from vmrunner.providers.port_images import (
    CREATED,
    FINISH_BY,
    PROMOTED,
    BuilderSpec,
    CloudImage,
    ImageRequest,
    promoted_at,
)

_SOURCE: Final = "azure-arm.vmrunner"
_STAGES: Final = ("Creating", "Capturing", "Publishing", "Deleting")


class AzureImages:
    """Images in one resource group."""

    def __init__(
        self,
        options: AzureOptions,
        client: AzureClient,
        identity: AzureIdentity,
        waiter: AzureWaiter,
    ) -> None:
        self._options = options
        self._group = options.group
        self._client = client
        self._identity = identity
        self._waiter = waiter

    def bench(self, request: ImageRequest) -> BuilderSpec:
        options = self._options
        options.check_launch()
        with edge():
            group = self._identity.group()
            sizes = AzureCatalog(options, self._client).sizes()
        gallery = into_gallery(options)
        # Of a builder whose disk is NVMe a managed image boots nowhere.
        sizes = [size for size in sizes if gallery or SCSI in size.controllers]
        # Azure's word for the architecture that images are made for.
        architectures = {"x64": "x86_64"}
        machine_type = options.builders_type(
            "machine_types",
            {
                size.name: [
                    architectures.get(architecture, architecture)
                    for architecture in size.architectures
                ]
                for size in sizes
            },
        )
        order = request.order(
            Scope("azure", str(options.subscription).lower(), group), machine_type
        )
        subnet = options.subnet_id.strip("/").split("/")
        variables: dict[str, Any] = {
            "azure_subscription": options.subscription,
            "azure_resource_group": group,
            "azure_vm_size": machine_type,
            "azure_network_resource_group": subnet[3],
            "azure_virtual_network": subnet[7],
            "azure_subnet": subnet[9],
            "azure_internal_address": options.address == "private",
            "azure_disk_controller": next(
                size.controller or None for size in sizes if size.name == machine_type
            ),
            "azure_builder_name": request.builder,
            # The plugin has its own names for a service principal, and no chain to find others.
            "azure_cli_auth": "ARM_CLIENT_ID" not in os.environ,
            "run_tags": {**options.tags, **tags_of(order)},
            "image_tags": {**options.tags, **request.tags},
        }
        image = galleries.image_of(group, request.name) if gallery else None
        if image is None:
            return BuilderSpec(
                source=_SOURCE, offer=order.offer, variables=variables, stages=_STAGES
            )
        variables |= {
            "azure_gallery": image.gallery,
            "azure_gallery_image": image.definition,
            "azure_gallery_version": image.version,
            "azure_gallery_replicas": galleries.REPLICAS,
        }
        return BuilderSpec(
            source=_SOURCE,
            offer=order.offer,
            variables=variables,
            stages=_STAGES,
            prepare=partial(self._prepare, request),
        )

    def find(self, ref: str) -> CloudImage | None:
        """Packer tells the image's id. Of one name a version comes before a managed image."""
        with edge():
            if (named := galleries.parsed(ref)) is not None:
                return self._version(named.image)
            version = galleries.image_of(self._group, ref)
            if version is None:
                return self._managed(ref)
            try:
                return self._version(version) or self._managed(ref)
            except CallFailed as failed:
                # A role of a former version, which read managed images alone.
                if failed.code in error_codes.DENIED and (made := self._managed(ref)) is not None:
                    return made
                raise

    def find_by_name(self, name: str) -> CloudImage | None:
        """Find an image by its name. It is all in one piece."""
        return self.find(name)

    def images(self) -> list[CloudImage]:
        with edge():
            items = list(self._client.listed(IMAGES, group=self._group))
            items += [image for _, image in galleries.versions(self._client, self._group)]
        found = [_made(image) for image in items]
        return [image for image in found if image.installation == self._options.installation]

    def in_use(self) -> frozenset[str]:
        """Return the images of the VMs: each knows what it was made from. Of one that was made from
        the latest of a definition, those are all of its versions."""
        with edge():
            vms = list(self._client.listed(VMS, group=self._group))
        references = (
            part(item, "properties", "storageProfile", "imageReference", "id") for item in vms
        )
        used = {_id(str(item)) for item in references if item}
        if not any(_is_latest(item) for item in used):
            return frozenset(used)
        return frozenset(used).union(*(_meant(item, self.images()) for item in used))

    def chosen(self, images: Collection[CloudImage], word: str | None = None) -> frozenset[str]:
        try:
            with edge():
                wanted = AzureCatalog(self._options, self._client).image(word).id
        except BadOrder:  # it is not there
            return frozenset()
        return _meant(_id(wanted), images)

    def finish(self, made: CloudImage) -> None:
        if FINISH_BY in made.tags:
            with edge():
                self._tag(made, _without(made.tags, FINISH_BY))

    def promote(self, made: CloudImage, now: float) -> None:
        """The tag goes to this one first, then away from the others of ours: what breaks off
        between leaves the later one. Raises `ConfigError` where a build would not take it."""
        if self._options.image:
            raise ConfigError(
                f"providers.{self._options.name}.image: {self._options.image} is one image, "
                "whatever is promoted",
                hint=f"set it to {made.name}, or leave it out",
            )
        others = [image for image in self.images() if image.promoted and image.ref != made.ref]
        # Later than all of them, even within their second or by a clock that is behind theirs.
        moment = max([int(now), *(promoted_at(other.tags) + 1 for other in others)])
        with edge():
            self._tag(made, {**_without(made.tags, FINISH_BY), PROMOTED: str(moment)})
            for other in others:
                self._tag(other, _without(other.tags, FINISH_BY, PROMOTED))

    def remove(self, made: CloudImage) -> list[str]:
        """Delete an image. It has no snapshots."""
        with edge(), tolerated(error_codes.MISSING):
            api, names = _call(made, DELETE_VERSION, DELETE_IMAGE)
            self._waiter.done(api, self._client.begin(api, group=self._group, **names))
        return []

    def leftovers(self, images: list[CloudImage], now: float) -> list[str]:  # noqa: ARG002
        """Return no leftovers: there are none."""
        return []

    # --- within ---

    def _version(self, image: GalleryImage) -> CloudImage | None:
        item = galleries.version(self._client, self._group, image)
        return _made(item) if item is not None else None

    def _managed(self, ref: str) -> CloudImage | None:
        with tolerated(error_codes.MISSING):
            return _made(self._client(IMAGE, group=self._group, image_name=last(ref)))
        return None

    def _tag(self, made: CloudImage, wanted: dict[str, str]) -> None:
        """Set all of its tags: what is not among them goes."""
        api, names = _call(made, TAG_VERSION, TAG_IMAGE)
        body = "gallery_image_version" if api is TAG_VERSION else "parameters"
        change: dict[str, Any] = {body: {"tags": wanted}}
        begun = self._client.begin(api, group=self._group, **names, **change)
        self._waiter.done(api, begun)

    def _prepare(self, request: ImageRequest) -> None:
        with edge():
            galleries.prepare(self._client, self._waiter, self._options, request)


def _call(
    made: CloudImage, of_version: AzureApi, of_managed: AzureApi
) -> tuple[AzureApi, dict[str, Any]]:
    """Return the call for an image of its kind, and the names in it."""
    named = galleries.parsed(made.ref)
    if named is None:
        return of_managed, {"image_name": last(made.ref)}
    return of_version, named.image.named


def _meant(identifier: str, images: Collection[CloudImage]) -> frozenset[str]:
    """References of the images that an id means: of a definition, all of its versions."""
    within = f"{identifier.removesuffix('/versions/latest')}/versions/"
    latest = _is_latest(identifier)
    return frozenset(
        image.ref for image in images if image.ref == identifier or (latest and within in image.ref)
    )


def _is_latest(identifier: str) -> bool:
    """True if an id is a definition's, of which Azure takes the latest version."""
    named = galleries.parsed(identifier)
    return named is not None and not named.image.version


def _without(image_tags: Mapping[str, str], *names: str) -> dict[str, str]:
    return {key: value for key, value in image_tags.items() if key not in names}


def _id(identifier: str) -> str:
    """Return an image's id in one case: Azure shows it in several."""
    return identifier.lower()


def _made(item: Answer) -> CloudImage:
    image_tags = tags(item)
    created = image_tags.get(CREATED, "")
    ref = _id(str(item["id"]))
    version = galleries.parsed(ref)
    return CloudImage(
        ref=ref,
        name=galleries.name_of(version.image, image_tags) if version else last(str(item["id"])),
        created=float(created) if created.isdigit() and len(created) <= 12 else 0.0,
        tags=image_tags,
        ready=part(item, "properties", "provisioningState") == "Succeeded",
        promoted=promoted_at(image_tags) > 0,
    )
