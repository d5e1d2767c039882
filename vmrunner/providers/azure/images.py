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
from vmrunner.providers.common.call_failed import CallFailed, edge
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
        calls: AzureClient,
        identity: AzureIdentity,
        waiter: AzureWaiter,
    ) -> None:
        self._options = options
        self._group = options.group
        self._calls = calls
        self._identity = identity
        self._waiter = waiter

    def bench(self, wish: ImageRequest) -> BuilderSpec:
        options = self._options
        options.check_launch()
        with edge():
            group = self._identity.group()
            sizes = AzureCatalog(options, self._calls).sizes()
        gallery = into_gallery(options)
        # Of a builder whose disk is NVMe a managed image boots nowhere.
        sizes = [one for one in sizes if gallery or SCSI in one.controllers]
        # Azure's word for the architecture that images are made for.
        words = {"x64": "x86_64"}
        machine_type = options.builders_type(
            "machine_types",
            {one.name: [words.get(said, said) for said in one.architectures] for one in sizes},
        )
        order = wish.order(Scope("azure", str(options.subscription).lower(), group), machine_type)
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
                one.controller or None for one in sizes if one.name == machine_type
            ),
            "azure_builder_name": wish.builder,
            # The plugin has its own names for a service principal, and no chain to find others.
            "azure_cli_auth": "ARM_CLIENT_ID" not in os.environ,
            "run_tags": {**options.tags, **tags_of(order)},
            "image_tags": {**options.tags, **wish.tags},
        }
        image = galleries.image_of(group, wish.name) if gallery else None
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
            prepare=partial(self._prepare, wish),
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
            told = list(self._calls.listed(IMAGES, group=self._group))
            told += [one for _, one in galleries.versions(self._calls, self._group)]
        found = [_made(one) for one in told]
        return [one for one in found if one.installation == self._options.installation]

    def in_use(self) -> frozenset[str]:
        """Return the images of the VMs: each knows what it was made from. Of one that was made from
        the latest of a definition, those are all of its versions."""
        with edge():
            vms = list(self._calls.listed(VMS, group=self._group))
        told = (part(one, "properties", "storageProfile", "imageReference", "id") for one in vms)
        used = {_id(str(one)) for one in told if one}
        if not any(_is_latest(one) for one in used):
            return frozenset(used)
        return frozenset(used).union(*(_meant(one, self.images()) for one in used))

    def chosen(self, images: Collection[CloudImage], word: str | None = None) -> frozenset[str]:
        try:
            with edge():
                wanted = AzureCatalog(self._options, self._calls).image(word).id
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
        others = [one for one in self.images() if one.promoted and one.ref != made.ref]
        # Later than all of them, even within their second or by a clock that is behind theirs.
        moment = max([int(now), *(promoted_at(other.tags) + 1 for other in others)])
        with edge():
            self._tag(made, {**_without(made.tags, FINISH_BY), PROMOTED: str(moment)})
            for other in others:
                self._tag(other, _without(other.tags, FINISH_BY, PROMOTED))

    def remove(self, made: CloudImage) -> list[str]:
        """Delete an image. It has no snapshots."""
        with edge():
            api, names = _call(made, DELETE_VERSION, DELETE_IMAGE)
            try:
                self._waiter.done(api, self._calls.begin(api, group=self._group, **names))
            except CallFailed as failed:
                if failed.code not in error_codes.MISSING:
                    raise
        return []

    def leftovers(self, images: list[CloudImage], now: float) -> list[str]:  # noqa: ARG002
        """Return no leftovers: there are none."""
        return []

    # --- within ---

    def _version(self, image: GalleryImage) -> CloudImage | None:
        told = galleries.version(self._calls, self._group, image)
        return _made(told) if told is not None else None

    def _managed(self, ref: str) -> CloudImage | None:
        try:
            return _made(self._calls(IMAGE, group=self._group, image_name=last(ref)))
        except CallFailed as failed:
            if failed.code in error_codes.MISSING:
                return None
            raise

    def _tag(self, made: CloudImage, wanted: dict[str, str]) -> None:
        """Set all of its tags: what is not among them goes."""
        api, names = _call(made, TAG_VERSION, TAG_IMAGE)
        body = "gallery_image_version" if api is TAG_VERSION else "parameters"
        change: dict[str, Any] = {body: {"tags": wanted}}
        begun = self._calls.begin(api, group=self._group, **names, **change)
        self._waiter.done(api, begun)

    def _prepare(self, wish: ImageRequest) -> None:
        with edge():
            galleries.prepare(self._calls, self._waiter, self._options, wish)


def _call(
    made: CloudImage, of_version: AzureApi, of_managed: AzureApi
) -> tuple[AzureApi, dict[str, Any]]:
    """Return the call for an image of its kind, and the names in it."""
    named = galleries.parsed(made.ref)
    if named is None:
        return of_managed, {"image_name": last(made.ref)}
    return of_version, named.image.named


def _meant(identifier: str, images: Collection[CloudImage]) -> frozenset[str]:
    """Return those of the images that an id means: of a definition's, all of its versions."""
    within = f"{identifier.removesuffix('/versions/latest')}/versions/"
    latest = _is_latest(identifier)
    return frozenset(
        one.ref for one in images if one.ref == identifier or (latest and within in one.ref)
    )


def _is_latest(identifier: str) -> bool:
    """True if an id is a definition's, of which Azure takes the latest version."""
    named = galleries.parsed(identifier)
    return named is not None and not named.image.version


def _without(said: Mapping[str, str], *names: str) -> dict[str, str]:
    return {key: value for key, value in said.items() if key not in names}


def _id(identifier: str) -> str:
    """Return an image's id in one case: Azure shows it in several."""
    return identifier.lower()


def _made(told: Answer) -> CloudImage:
    said = tags(told)
    created = said.get(CREATED, "")
    ref = _id(str(told["id"]))
    version = galleries.parsed(ref)
    return CloudImage(
        ref=ref,
        name=galleries.name_of(version.image, said) if version else last(str(told["id"])),
        created=float(created) if created.isdigit() and len(created) <= 12 else 0.0,
        tags=said,
        ready=part(told, "properties", "provisioningState") == "Succeeded",
        promoted=promoted_at(said) > 0,
    )
