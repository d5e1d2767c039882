"""AMIs that this installation made: where their builder runs, which one builds get, what goes.

Promoted is a tag with a time on the AMI, and the latest wins over every AMI without one: so a
candidate is not taken by being new, and an older one by being promoted again.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from vmrunner.errors import ConfigError, Uncertain
from vmrunner.model import Scope, tags_of
from vmrunner.providers.common.call_failed import CallFailed, edge
from vmrunner.providers.common.paging import patiently
from vmrunner.providers.ec2.catalog import Ec2Catalog, NoImage
from vmrunner.providers.ec2.client import (
    DELETE_SNAPSHOT,
    DEREGISTER,
    IMAGES,
    INSTANCES,
    SNAPSHOTS,
    TAG_IMAGE,
    UNTAG_IMAGE,
    Answer,
    Ec2Api,
    Ec2Client,
    moment,
)
from vmrunner.providers.ec2.identity import Ec2Identity
from vmrunner.providers.ec2.options import Ec2Options, ImageChoice
from vmrunner.providers.ec2.resources import LIVING, PAGE, snapshots, tags
from vmrunner.providers.port_images import (
    FINISH_BY,
    IMAGE,
    OWNER,
    PROMOTED,
    BuilderSpec,
    CloudImage,
    ImageRequest,
    promoted_at,
)

if TYPE_CHECKING:
    from types_boto3_ec2 import type_defs as ec2

_SOURCE: Final = "amazon-ebs.vmrunner"
_STAGES: Final = ("Launching", "Creating AMI", "Creating the AMI", "Terminating")
_GONE: Final = ("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable", "InvalidSnapshot.NotFound")
#: An image that is being made has no place for its snapshots yet; so long none is left over.
_YOUNG: Final = 3600.0


class Ec2Images:
    """AMIs in the region that launches."""

    def __init__(self, options: Ec2Options, client: Ec2Client, identity: Ec2Identity) -> None:
        self._options = options
        self._client = client
        self._identity = identity

    def bench(self, request: ImageRequest) -> BuilderSpec:
        options = self._options
        with edge():
            scope = Scope("ec2", self._identity.caller().account, options.region)
            machine_type = options.builders_type(
                "instance_types",
                {
                    machine.name: machine.architectures
                    for machine in Ec2Catalog(options, self._client).types()
                },
            )
        order = request.order(scope, machine_type)
        variables: dict[str, Any] = {
            "aws_region": options.region,
            "aws_instance_type": machine_type,
            "run_tags": {**options.tags, **tags_of(order)},
            "image_tags": {**options.tags, **request.tags, "Name": request.name},
            "aws_public_address": options.address == "public",
        }
        if options.subnets:
            variables["aws_subnet_id"] = options.subnets[0]
        if options.security_groups:
            variables["aws_security_group_id"] = options.security_groups[0]
        if options.profile:
            variables["aws_profile"] = options.profile
        url = options.endpoint_url
        return BuilderSpec(
            source=_SOURCE,
            offer=order.offer,
            variables=variables,
            environment={"AWS_ENDPOINT_URL": url} if url else {},
            stages=_STAGES,
        )

    def find(self, ref: str) -> CloudImage | None:
        """Packer tells `REGION:AMI` of each region, with commas."""
        region = f"{self._options.region}:"
        ids = [part.removeprefix(region) for part in ref.split(",") if part.startswith(region)]
        name = (ids or [ref])[0]
        what: Answer = {"ImageIds": [name]}
        if not name.startswith("ami-"):
            what = _named(name)
        with edge():
            try:
                found = self._listed(what)
            except CallFailed as failed:
                if failed.code in _GONE:
                    return None
                raise
        return found[0] if found else None

    def find_by_name(self, name: str) -> CloudImage | None:
        """An AMI that is pending may not tell its snapshots. Their descriptions tell the AMI."""
        with edge():
            found = self._asked(_named(name))
            if not found:
                return None
            made = _made(found[0])
            about = [{"Name": "description", "Values": [f"*{made.ref}*"]}]
            pages = self._pages(SNAPSHOTS, OwnerIds=["self"], Filters=about)
            shown = [snapshot["SnapshotId"] for page in pages for snapshot in page["Snapshots"]]
        if not shown and not made.snapshots and found[0].get("State") == "pending":
            raise Uncertain(f"{made.ref} is pending, and its snapshots do not show yet")
        return replace(made, snapshots=tuple(dict.fromkeys((*made.snapshots, *shown))))

    def images(self) -> list[CloudImage]:
        with edge():
            return self._listed(_mine(self._options))

    def in_use(self) -> frozenset[str]:
        living = [{"Name": "instance-state-name", "Values": list(LIVING)}]
        with edge():
            return frozenset(
                str(vm["ImageId"])
                for answer in self._pages(INSTANCES, Filters=living)
                for reservation in answer["Reservations"]
                for vm in reservation["Instances"]
                if "ImageId" in vm
            )

    def chosen(self, images: Collection[CloudImage], word: str | None = None) -> frozenset[str]:
        """Images that builds choose from. An AMI named by its id is one, even if EC2 knows it no
        more."""
        choice = word or self._options.image
        try:
            if not isinstance(choice, str) or not choice.startswith("ami-"):
                with edge():
                    choice = Ec2Catalog(self._options, self._client).image(word).id
        except NoImage:
            return frozenset()
        return frozenset({choice} & {image.ref for image in images})

    def finish(self, made: CloudImage) -> None:
        if FINISH_BY in made.tags:
            with edge():
                self._untag([made.ref, *made.snapshots], FINISH_BY)

    def promote(self, made: CloudImage, now: float) -> None:
        """The tag goes to this one first, then away from the others that the same choice sees: what
        breaks off between leaves the later one."""
        choice = self._choice(made)
        others = [i for i in self.images() if i.promoted and i.ref != made.ref and _fits(choice, i)]
        # Later than all of them, even within their second or by a clock that is behind theirs.
        moment = max([int(now), *(promoted_at(other.tags) + 1 for other in others)])
        with edge():
            self._client(
                self._options.region,
                TAG_IMAGE,
                Resources=[made.ref],
                Tags=[{"Key": PROMOTED, "Value": str(moment)}],
            )
            # First, since it is promoted no more that is kept by that alone.
            for image in (made, *others):
                self.finish(image)
            if others:
                self._untag([other.ref for other in others], PROMOTED)

    def remove(self, made: CloudImage) -> list[str]:
        with edge():
            self._delete(DEREGISTER, ImageId=made.ref)
        return [text for name in made.snapshots if (text := self._snapshot(name))]

    def leftovers(self, images: list[CloudImage], now: float) -> list[str]:
        """Delete leftovers, found by their own tags, so that no ledger is needed to try again."""
        kept = {name for image in images for name in image.snapshots}
        building = {image.tags.get(IMAGE) for image in images if not image.ready}
        troubles = []
        with edge():
            query = {"OwnerIds": ["self"], **_mine(self._options, owners=False)}
            found = [s for page in self._pages(SNAPSHOTS, **query) for s in page["Snapshots"]]
        for snapshot in found:
            young = now - snapshot["StartTime"].timestamp() < _YOUNG
            if (
                snapshot["SnapshotId"] not in kept
                and tags(snapshot).get(IMAGE) not in building
                and not young
            ):
                troubles.append(self._snapshot(snapshot["SnapshotId"]))
        return [text for text in troubles if text]

    # --- within ---

    def _untag(self, images: list[str], key: str) -> None:
        self._client(self._options.region, UNTAG_IMAGE, Resources=images, Tags=[{"Key": key}])

    def _choice(self, made: CloudImage) -> ImageChoice:
        """Return the images that builds of this provider choose from. Raises `ConfigError` when
        this image is not among it."""
        configured, field = self._options.image, f"providers.{self._options.name}.image"
        if isinstance(configured, str) and configured.startswith("ami-"):
            raise ConfigError(
                f"{field}: {configured} is one image, whatever is promoted",
                hint=f"set it to {made.ref}, or leave it out",
            )
        choice = ImageChoice(name=configured) if isinstance(configured, str) else configured
        with edge():
            owners = ("self", self._identity.caller().account)
        if choice.owner not in owners or not _fits(choice, made):
            raise ConfigError(
                f"{field}: {choice} does not choose {made.ref}, whose name is {made.name}",
                hint="choose by another name or tags",
            )
        return choice

    def _snapshot(self, name: str) -> str:
        """Delete it; why not."""
        try:
            self._delete(DELETE_SNAPSHOT, SnapshotId=name)
        except CallFailed as failed:
            return f"{name}: {failed}"
        return ""

    def _delete(self, call: Ec2Api[Any], **what: Any) -> None:
        try:
            self._client(self._options.region, call, **what)
        except CallFailed as failed:
            if failed.code not in _GONE:
                raise

    def _listed(self, what: Answer) -> list[CloudImage]:
        return [_made(image) for image in self._asked(what)]

    def _asked(self, what: Answer) -> list[ec2.ImageTypeDef]:
        """Ask for images in one call. Only accounts with very many images need pages."""
        answer = patiently(partial(self._client, self._options.region, IMAGES, **what))
        return answer["Images"]

    def _pages(self, call: Ec2Api[Any], **what: Any) -> Iterator[Answer]:
        more: Answer = {}
        while True:
            params = {"MaxResults": PAGE, **what, **more}
            answer = patiently(partial(self._client, self._options.region, call, **params))
            yield answer
            if not answer.get("NextToken"):
                return
            more = {"NextToken": answer["NextToken"]}


def _named(name: str) -> Answer:
    return {"Owners": ["self"], "Filters": [{"Name": "name", "Values": [name]}]}


def _mine(options: Ec2Options, *, owners: bool = True) -> Answer:
    filters = [{"Name": f"tag:{OWNER}", "Values": [options.installation]}]
    return {"Filters": filters, **({"Owners": ["self"]} if owners else {})}


def _fits(choice: ImageChoice, made: CloudImage) -> bool:
    named = choice.name is None or fnmatch.fnmatchcase(made.name, choice.name)
    return named and all(
        fnmatch.fnmatchcase(made.tags.get(key, ""), value) for key, value in choice.tags.items()
    )


def _made(image: ec2.ImageTypeDef) -> CloudImage:
    created = moment(image.get("CreationDate"))
    image_tags = tags(image)
    return CloudImage(
        ref=image["ImageId"],
        name=image.get("Name", ""),
        created=created,
        tags=image_tags,
        ready=image.get("State") == "available",
        promoted=PROMOTED in image_tags,
        snapshots=snapshots(image),
    )
