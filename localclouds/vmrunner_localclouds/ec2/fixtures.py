"""Fixtures that a launch needs: an image, subnets, a security group."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from moto.ec2.models.amis import Ami

if TYPE_CHECKING:
    from moto.ec2.models import EC2Backend


@dataclass(frozen=True, kw_only=True, slots=True)
class Mapping:
    """A disk of an image."""

    device: str
    size: int = 8  # GiB
    delete_on_termination: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Ec2Site:
    """One region's furniture, by id."""

    region: str
    image: str
    subnets: tuple[str, ...]
    security_group: str
    vpc: str


class FixtureAmi(Ami):
    """An image with the mappings that it was given."""

    mappings: Sequence[Mapping] = ()

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        root: dict[str, Any] = {"SnapshotId": self.ebs_snapshot.id}
        return [
            {
                "DeviceName": mapping.device,
                "Ebs": {
                    **(root if mapping.device == self.root_device_name else {}),
                    "VolumeSize": mapping.size,
                    "DeleteOnTermination": mapping.delete_on_termination,
                    "VolumeType": "gp3",
                    "Encrypted": False,
                },
            }
            for mapping in self.mappings
        ]


def add_image(
    backend: EC2Backend, name: str, now: float, mappings: Sequence[Mapping], tags: dict[str, str]
) -> str:
    """The id of a new image of our own."""
    image = FixtureAmi(
        backend,
        f"ami-{secrets.token_hex(8)}0",
        name=name,
        description=name,
        owner_id=backend.account_id,
        virtualization_type="hvm",
        architecture="x86_64",
        creation_date=datetime.fromtimestamp(now, UTC),
        root_device_type="ebs",
        root_device_name="/dev/xvda",
        region_name=f"{backend.region_name}a",
        tags=tags,
    )
    image.mappings = tuple(mappings)
    backend.amis[image.id] = image
    return image.id


def furnish(backend: EC2Backend, image: str, *, ssh_from: str) -> Ec2Site:
    """A region's default network, and a security group through which builds do not reach each
    other: SSH from `ssh_from` alone."""
    vpc = backend.default_vpc.id
    group = backend.create_security_group("vmrunner", "SSH from vmrunner", vpc_id=vpc)
    backend.authorize_security_group_ingress(
        group.id, "tcp", "22", "22", [{"CidrIp": ssh_from}], vpc_id=vpc
    )
    subnets = sorted(backend.describe_subnets(), key=lambda s: str(s.availability_zone))
    return Ec2Site(
        region=backend.region_name,
        image=image,
        subnets=tuple(subnet.id for subnet in subnets),
        security_group=group.id,
        vpc=vpc,
    )
