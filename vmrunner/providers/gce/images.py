"""Images that this installation made: where their builder runs, which one builds get, what goes.

The promoted one is in the family that builds choose from, alone among ours; candidates and what was
promoted before are in another, so that being new promotes none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any, Final

from vmrunner.errors import ConfigError, Uncertain
from vmrunner.lib import resources
from vmrunner.model import Scope
from vmrunner.providers.common.call_failed import edge, tolerated
from vmrunner.providers.common.paging import patiently
from vmrunner.providers.gce import error_codes
from vmrunner.providers.gce.catalog import GceCatalog, named
from vmrunner.providers.gce.client import (
    DELETE_IMAGE,
    DISKS,
    IMAGE,
    IMAGES,
    PATCH_IMAGE,
    WAIT_GLOBAL,
    Answer,
    GceApi,
    GceClient,
    pb,
)
from vmrunner.providers.gce.create_request import disk_type_of
from vmrunner.providers.gce.describe import PAGE, listed
from vmrunner.providers.gce.identity import GceIdentity
from vmrunner.providers.gce.labels import label, labels, labels_of, tags
from vmrunner.providers.gce.operations import OperationWaiter
from vmrunner.providers.gce.options import FAMILY as OURS
from vmrunner.providers.gce.options import GceOptions
from vmrunner.providers.gce.resources import UNFINISHED, last, when
from vmrunner.providers.gce.sweep import holes
from vmrunner.providers.port_images import OWNER, BuilderSpec, CloudImage, ImageRequest

_SOURCE: Final = "googlecompute.vmrunner"
_STAGES: Final = ("Creating instance", "Creating image", "Deleting instance")
#: Suffix of images not promoted, after the family that they could be promoted to.
CANDIDATES: Final = "-candidates"


class GceImages:
    """Images in one project; they have no zone."""

    def __init__(
        self, options: GceOptions, client: GceClient, identity: GceIdentity, waiter: OperationWaiter
    ) -> None:
        self._options = options
        self._client = client
        self._identity = identity
        self._waiter = waiter

    def bench(self, request: ImageRequest) -> BuilderSpec:
        options = self._options
        options.check_launch()
        with edge():
            scope = Scope("gce", self._identity.project(), options.zones[0])
            types = GceCatalog(options, self._client).types(scope.place)
        machine_type = options.builders_type(
            "machine_types",
            {
                machine.name: [architecture.lower() for architecture in machine.architectures]
                for machine in types
            },
        )
        order = request.order(scope, machine_type)
        variables: dict[str, Any] = {
            "gce_project": scope.account,
            "gce_zone": scope.place,
            "gce_machine_type": machine_type,
            "gce_disk_type": options.disk_type or disk_type_of(machine_type),
            "gce_instance_name": request.builder,
            "gce_disk_name": request.builder,
            "gce_image_family": self._family() + UNFINISHED,
            "gce_network_tags": list(options.network_tags),
            "gce_internal_address": options.address == "private",
            "run_tags": {**options.labels, **labels_of(order)},
            "image_tags": {**options.labels, **labels(request.tags)},
        }
        if options.subnetwork:  # which is of one network alone
            variables["gce_subnetwork"] = options.subnetwork
        else:
            variables["gce_network"] = options.network
        if options.api_endpoint is not None:
            variables["gce_endpoint"] = f"{options.api_endpoint.rstrip('/')}/compute/v1/"
        if options.plain:  # no credentials go there
            variables["gce_access_token"] = "none"  # noqa: S105
        return BuilderSpec(
            source=_SOURCE, offer=order.offer, variables=variables, stages=_STAGES, died=_died()
        )

    def find(self, ref: str) -> CloudImage | None:
        """Packer tells the image's name."""
        with edge():
            with tolerated(error_codes.MISSING):
                return self._made(self._client(IMAGE, image=last(ref)))
            return None

    def find_by_name(self, name: str) -> CloudImage | None:
        """Find an image by its name. It is all in one piece, with labels from its creation on."""
        return self.find(name)

    def images(self) -> list[CloudImage]:
        own_label = f'labels.{label(OWNER.partition(":")[2])}="{self._options.installation}"'
        with edge():
            return [self._made(image) for image in listed(self._client, IMAGES, filter=own_label)]

    def in_use(self) -> frozenset[str]:
        """Return the images in use by the disks: each knows what it was made from. Raises
        `Uncertain` where some could not be read."""
        with edge():
            return frozenset(_relative(disk.source_image) for disk in self._disks())

    def chosen(self, images: Collection[CloudImage], word: str | None = None) -> frozenset[str]:
        """Return the images that builds choose from: of a family all that are in it, since any of
        them was promoted. The cloud is not asked, and the project is not compared, which may be
        told by its number."""
        choice = named(word or self._options.image or f"family/{OURS}")
        if choice is None:
            return frozenset()
        return frozenset(
            i.ref for i in images if choice.name == (i.family if choice.family else i.name)
        )

    def finish(self, made: CloudImage) -> None:
        if made.family.endswith(UNFINISHED):
            with edge():
                self._move(made, made.family.removesuffix(UNFINISHED) + CANDIDATES)

    def promote(self, made: CloudImage, now: float) -> None:  # noqa: ARG002 - a family has no times
        """Into the family first, then the others of ours out of it: what breaks off between leaves
        the newest of them. One that is not ours stays, and must not be newer."""
        family = self._family()
        self._check_choice(made, family)
        others = [i for i in self.images() if i.promoted and i.ref != made.ref]
        with edge():
            self._check_foreign(made, family, {other.ref for other in others})
            self._move(made, family)
            for other in others:
                self._move(other, family + CANDIDATES)

    def remove(self, made: CloudImage) -> list[str]:
        """Delete an image. It has no snapshots."""
        with edge(), tolerated(error_codes.MISSING):
            self._change(DELETE_IMAGE, image=last(made.ref))
        return []

    def leftovers(self, images: list[CloudImage], now: float) -> list[str]:  # noqa: ARG002
        """Return no leftovers: there are none."""
        return []

    # --- within ---

    def _family(self) -> str:
        """Return the family that builds of this provider choose from, or would without another
        image."""
        choice = self._options.image or ""
        return last(choice) if "family/" in choice else OURS

    def _check_choice(self, made: CloudImage, family: str) -> None:
        """Raises `ConfigError` where a build would not take the newest of this family, or where
        that would not last."""
        if family.endswith(UNFINISHED):
            raise ConfigError(
                f"providers.{self._options.name}.image: the family {family} is for what no build "
                "finished, which ends",
                hint="name another family",
            )
        choice = self._options.image or f"family/{family}"
        own_family = (f"projects/{self._options.project}/global/images/family/{family}",)
        if choice == f"family/{family}" or choice.endswith(own_family):
            return
        raise ConfigError(
            f"providers.{self._options.name}.image: {choice} is no family of this project, "
            "whatever is promoted",
            hint=f"set it to {made.ref}, or leave it out",
        )

    def _check_foreign(self, made: CloudImage, family: str, own_refs: set[str]) -> None:
        """Raises `ConfigError` when another owner's image would still be taken before this one."""
        for image in map(self._made, listed(self._client, IMAGES, filter=f'family="{family}"')):
            if image.ref not in {made.ref, *own_refs} and image.created > made.created:
                field = f"providers.{self._options.name}.image"
                raise ConfigError(
                    f"image {image.ref}, which this installation did not make, is newer in the "
                    f"family {family}",
                    hint=f"take it out, or name another family in {field}",
                )

    def _move(self, made: CloudImage, family: str) -> None:
        self._change(PATCH_IMAGE, image=last(made.ref), image_resource={"family": family})

    def _change(self, api: GceApi, **what: Any) -> None:
        """Change something and wait until it is done. Raises `CallFailed`, or `Uncertain` when it
        goes on."""
        operation = self._waiter.done(self._client(api, **what), WAIT_GLOBAL)
        failed = error_codes.of_operation(
            operation, action=api.action, where=str(self._options.project)
        )
        if failed is not None:
            raise failed

    def _disks(self) -> Iterator[Answer]:
        token = ""
        while True:
            params: dict[str, Any] = {
                "max_results": PAGE,
                **({"page_token": token} if token else {}),
            }
            answer = pb(patiently(partial(self._client, DISKS, **params)))
            for _, why in holes(answer):
                raise Uncertain(f"{DISKS.action} in {self._options.project}: {why}")
            for scoped in answer.items.values():
                yield from scoped.disks
            token = answer.next_page_token
            if not token:
                return

    def _made(self, image: Answer) -> CloudImage:
        return CloudImage(
            ref=_relative(image.self_link),
            name=image.name,
            created=when(image.creation_timestamp) or 0.0,
            tags=tags(image.labels),
            ready=image.status == "READY",
            promoted=image.family == self._family(),
            family=image.family,
        )


def _relative(link: str) -> str:
    """Return a link without the host."""
    return link.partition("/compute/v1/")[2] or link


def _died() -> str:
    """Hint for when Packer's plugin dies, as it does when it may not set the state of the image
    that it made."""
    return (
        "packer's plugin died; if its image was made, allow compute.images.deprecate"
        f" ({resources.path('packer')}/README.md)"
    )
