"""Options of EC2, checked as far as that needs no network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from vmrunner.model import TAG, Network, NetworkPolicy
from vmrunner.providers.common.capacity_pools import Spot
from vmrunner.providers.common.cloud_options import CloudOptions

#: Of an installation's schedules, which carry no tags: `vmrunner-INSTALLATION`.
GROUP: Final = "vmrunner-"

#: What EC2 takes: tags of one resource, characters of a key, of a value.
TAGS, KEY, VALUE = 50, 128, 256
#: vmrunner's own tags.
OURS: Final = 8
_ROLE: Final = re.compile(r"arn:[\w-]+:iam::\d{12}:role/.+")
_REGION: Final = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+-\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageChoice:
    """The image of an owner with such a name, and such tags, that was promoted last; where none
    was, the newest."""

    owner: str = "self"
    name: str | None = None  # may have * and ?
    tags: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        words = [f"owner {self.owner}", f"name {self.name}" if self.name else ""]
        words += [f"tag {key}={value}" for key, value in self.tags.items()]
        return ", ".join(word for word in words if word)


#: What `packer/` and `vmrunner image build` name their images.
DEFAULT_IMAGE: Final = ImageChoice(name="vmrunner-*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ec2Options(CloudOptions):
    """Options of one provider. Without subnets and security groups it launches nothing, but looks,
    sweeps and deletes."""

    region: str
    used: tuple[str, ...] = ()  # other regions in which it ever launched: swept too
    profile: str | None = None
    image: str | ImageChoice = DEFAULT_IMAGE
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    subnets_none: tuple[str, ...] = ()  # for `network: none`; default: the others
    security_groups_none: tuple[str, ...] = ()  # the same; without them nothing closes the VM
    instance_types: tuple[str, ...] = ("m7i.large", "m6i.large", "m5.large")
    spot: Spot | None = None
    address: Literal["public", "private"] = "public"
    tags: Mapping[str, str] = field(default_factory=dict)
    instance_profile: str | None = None
    scheduler_role: str | None = None
    endpoint_url: str | None = None

    def groups_for(self, network: NetworkPolicy) -> tuple[str, ...]:
        """Return the security groups of a VM of this network."""
        closed = network is Network.NONE and self.security_groups_none
        return closed or self.security_groups

    def subnets_for(self, network: NetworkPolicy) -> tuple[str, ...]:
        """Return the subnets of a VM of this network."""
        closed = network is Network.NONE and self.security_groups_none
        return (closed and self.subnets_none) or self.subnets

    @property
    def schedule_group(self) -> str:
        return GROUP + self.installation

    @property
    def regions(self) -> tuple[str, ...]:
        """Return all regions that are swept, the one that launches first."""
        return tuple(dict.fromkeys((self.region, *self.used)))

    def check(self) -> None:
        """Raises `ConfigError` with the field, its value and the fix."""
        for region in self.regions:
            if not _REGION.fullmatch(region):
                raise self._wrong("region", repr(region), "one such as eu-west-1")
        if not self.instance_types:
            raise self._wrong("instance_types", "[]", "name at least one, such as m7i.large")
        role = self.scheduler_role
        if role is not None and not _ROLE.fullmatch(role):
            fix = "the ARN of a role, such as `vmrunner guard install` makes"
            raise self._wrong("scheduler_role", repr(role), fix)
        self._check_tags()

    def check_launch(self) -> None:
        """Check what only a launch needs. Raises ConfigError."""
        if not self.subnets:
            raise self._wrong("subnets", "none", "name at least one; their order is the fallback's")
        if not self.security_groups:
            fix = "name one that lets in SSH from where vmrunner runs, and nothing else"
            raise self._wrong("security_groups", "none", fix)
        if self.subnets_none and not self.security_groups_none:
            fix = "name a security group of that network that lets SSH in, and nothing out"
            raise self._wrong("security_groups_none", "none", fix)

    def _check_tags(self) -> None:
        most = TAGS - OURS
        if len(self.tags) > most:
            raise self._wrong("tags", f"{len(self.tags)} of them", f"EC2 has room for {most}")
        for key, value in self.tags.items():
            if key == "Name" or key.startswith(TAG):
                raise self._wrong("tags", repr(key), "vmrunner sets this one itself")
            if key.lower().startswith("aws:"):
                raise self._wrong("tags", repr(key), "keys that begin with aws: are Amazon's")
            if not 0 < len(key) <= KEY:
                raise self._wrong("tags", repr(key[:40]), f"a key has 1 to {KEY} characters")
            if len(value) > VALUE:
                raise self._wrong(f"tags.{key}", f"{len(value)} characters", f"at most {VALUE}")
