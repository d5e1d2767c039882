"""Preconditions of a launch: the image, the subnets, the security groups, the types. Looked up
before anything is launched, and remembered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmrunner.errors import BadOrder
from vmrunner.model import Network, NetworkPolicy, Spec
from vmrunner.providers.common.cache import TtlCache
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.cloud_options import GiB
from vmrunner.providers.common.machine_types import MachineType, fitting
from vmrunner.providers.ec2.client import (
    GROUPS,
    IMAGES,
    SUBNETS,
    TYPES,
    Answer,
    AnswerT,
    Ec2Api,
    Ec2Client,
)
from vmrunner.providers.ec2.options import Ec2Options, ImageChoice
from vmrunner.providers.ec2.resources import tags
from vmrunner.providers.port_images import is_unfinished, promoted_at

if TYPE_CHECKING:
    from types_boto3_ec2 import type_defs as ec2

log = logging.getLogger(__name__)

#: Seconds. A new image under an old name is found that late.
IMAGE, NETWORK, FOR_EVER = 300.0, 600.0, 86_400.0

_NO_IMAGE: Final = "build one, or name another in providers.{name}.image"


class NoImage(BadOrder):
    """EC2 answered, and none that can be launched is among it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ami:
    """An AMI, as far as a launch needs it."""

    id: str
    name: str
    architecture: str
    root: str  # the root device's name
    mappings: tuple[ec2.BlockDeviceMappingTypeDef, ...]

    @property
    def size(self) -> int:
        """Return the size of its root disk, in bytes; 0 when it does not say."""
        for mapping in self.mappings:
            if mapping.get("DeviceName") == self.root:
                return int(mapping.get("Ebs", {}).get("VolumeSize") or 0) * GiB
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ec2InstanceType(MachineType):
    family: str  # as its quota counts it: "standard", or the first letters


class Ec2Catalog:
    """Looks things up in the region that launches. Raises `CallFailed` or `BadOrder`."""

    def __init__(
        self, options: Ec2Options, client: Ec2Client, elapsed: Callable[[], float] = boottime
    ) -> None:
        self._options = options
        self._client = client
        self._memory = TtlCache(elapsed)

    def image(self, name: str | None = None) -> Ami:
        """The AMI of this id or name; None: the configured one. Of several, the one that was
        promoted last, else the newest."""
        choice: str | ImageChoice = name or self._options.image
        if isinstance(choice, str) and not choice.startswith("ami-"):
            choice = ImageChoice(name=choice)
        return self._memory.get(("image", str(choice)), IMAGE, lambda: self._find(choice))

    def subnets(self, network: NetworkPolicy = Network.OPEN) -> dict[str, ec2.SubnetTypeDef]:
        """The configured subnets for this network by id, in their order."""
        ids = self._options.subnets_for(network)
        key = "subnets" if ids == self._options.subnets else "subnets_none"

        def ask() -> dict[str, ec2.SubnetTypeDef]:
            found = self._named(SUBNETS, "SubnetIds", ids, key)["Subnets"]
            by_id: dict[str, ec2.SubnetTypeDef] = {subnet["SubnetId"]: subnet for subnet in found}
            return {name: by_id[name] for name in ids}

        return self._memory.get(key, NETWORK, ask)

    def groups(self, network: NetworkPolicy = Network.OPEN) -> list[ec2.SecurityGroupTypeDef]:
        """The configured security groups for this network, which must be of the subnets' VPC."""
        ids = self._options.groups_for(network)
        key = "security_groups" if ids == self._options.security_groups else "security_groups_none"

        def ask() -> list[ec2.SecurityGroupTypeDef]:
            found = self._named(GROUPS, "GroupIds", ids, key)["SecurityGroups"]
            networks = {subnet["VpcId"] for subnet in self.subnets(network).values()}
            for group in found:
                if {group["VpcId"]} != networks:
                    raise BadOrder(
                        f"providers.{self._options.name}.{key}: {group['GroupId']} is "
                        f"in {group['VpcId']}, the subnets are in {', '.join(sorted(networks))}",
                        hint="all must be of one VPC",
                    )
            return list(found)

        return self._memory.get(key, NETWORK, ask)

    def types(self) -> list[Ec2InstanceType]:
        """Configured types that the region has, in their order. Asked for by a filter: a list is
        refused whole for one unknown type."""
        names, region = self._options.instance_types, self._options.region

        def ask() -> list[Ec2InstanceType]:
            filters = [{"Name": "instance-type", "Values": list(names)}]
            items = self._client(region, TYPES, Filters=filters)["InstanceTypes"]
            by_name = {item["InstanceType"]: _type(item) for item in items}
            missing = [name for name in names if name not in by_name]
            text = f"providers.{self._options.name}.instance_types: {', '.join(missing)}: {region}"
            if not by_name:
                raise BadOrder(f"{text} has none of these", hint="name types that it has")
            if missing:
                log.warning("%s has none of these", text)
            return [by_name[name] for name in names if name in by_name]

        return self._memory.get("types", FOR_EVER, ask)

    # --- within ---

    def _named(self, api: Ec2Api[AnswerT], field: str, ids: Sequence[str], key: str) -> AnswerT:
        """Items that these ids name. Raises the error of the id that names nothing."""
        params: Answer = {field: list(ids)}
        try:
            return self._client(self._options.region, api, **params)
        except CallFailed as failed:
            if not isinstance(failed.error, BadOrder):
                raise
            field = f"providers.{self._options.name}.{key}"
            raise BadOrder(f"{field}: {failed}", hint=f"correct {field}") from failed

    def _find(self, choice: str | ImageChoice) -> Ami:
        name, region = self._options.name, self._options.region
        try:
            found = self._client(region, IMAGES, **_question(choice))["Images"]
        except CallFailed as failed:
            if not isinstance(failed.error, BadOrder):
                raise
            raise BadOrder(
                f"image {choice}: {failed}", hint=_NO_IMAGE.format(name=name)
            ) from failed
        if not isinstance(choice, str):  # what no build finished may go at any moment
            found = [image for image in found if not is_unfinished(tags(image))]
        usable = [image for image in found if image.get("State") == "available"]
        if not usable:
            state = f" is {found[0].get('State')}" if found else ": there is none"
            hint = _NO_IMAGE.format(name=name)
            raise NoImage(f"image {choice}{state} in {region}", hint=hint)
        newest = max(usable, key=_rank)
        return Ami(
            id=newest["ImageId"],
            name=newest.get("Name", ""),
            architecture=newest.get("Architecture", ""),
            root=newest.get("RootDeviceName", ""),
            mappings=tuple(newest.get("BlockDeviceMappings", ())),
        )


def _question(choice: str | ImageChoice) -> Answer:
    if isinstance(choice, str):
        return {"ImageIds": [choice]}
    filters = [("state", "available")]
    filters += [("name", choice.name)] if choice.name else []
    filters += [(f"tag:{key}", value) for key, value in choice.tags.items()]
    return {
        "Owners": [choice.owner],
        "Filters": [{"Name": key, "Values": [value]} for key, value in filters],
    }


def _rank(image: ec2.ImageTypeDef) -> tuple[int, str, str]:
    """Sort key of an AMI. Tags on it are this account's own, also on another account's AMI."""
    return promoted_at(tags(image)), image.get("CreationDate", ""), image["ImageId"]


def _type(item: ec2.InstanceTypeInfoTypeDef) -> Ec2InstanceType:
    name = item["InstanceType"]
    return Ec2InstanceType(
        name=name,
        cpus=int(item.get("VCpuInfo", {}).get("DefaultVCpus", 0)),
        memory=int(item.get("MemoryInfo", {}).get("SizeInMiB", 0)) * 1024**2,
        architectures=tuple(item.get("ProcessorInfo", {}).get("SupportedArchitectures", ())),
        family=name.rstrip("0123456789").partition(".")[0],
    )


def some_fitting(
    every: Sequence[Ec2InstanceType], image: Ami, spec: Spec
) -> dict[str, Ec2InstanceType]:
    """Return the types that are large enough and run this image. Raises `BadOrder` when none is."""
    fit = fitting(every, spec, image.architecture)
    if not fit:
        sizes = ", ".join(f"{t.name} ({t.cpus} CPUs, {t.memory / GiB:g} GiB)" for t in every)
        wanted = [f"cpus = {spec.cpus}" if spec.cpus else ""]
        wanted.append(f"memory = {spec.memory}" if spec.memory else "")
        wanted.append(f"an image for {image.architecture}" if image.architecture else "")
        raise BadOrder(
            f"no instance type has {', '.join(word for word in wanted if word)}",
            hint=f"instance_types: {sizes}",
        )
    return fit
