"""Amazon's EC2.

boto3 is imported only when a provider is opened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vmrunner.errors import ConfigError
from vmrunner.providers.port import Driver

if TYPE_CHECKING:
    from vmrunner.providers.ec2.provider import Ec2Provider


def open(  # noqa: A001 - as `Driver` calls it
    name: str,
    *,
    installation: str,
    used: Sequence[str] = (),
    region: str | None = None,
    image: str | Mapping[str, Any] | None = None,
    **options: Any,
) -> Ec2Provider:
    """The provider called `name`. `used`: regions in which it ever launched. `region`: default the
    SDK's own. `image`: an AMI's id or name, or the fields of `ImageChoice`. The other `options`
    are the fields of `options.Options`. Nothing is asked of AWS yet."""
    from vmrunner.providers.ec2.client import region_of
    from vmrunner.providers.ec2.options import Ec2Options, ImageChoice
    from vmrunner.providers.ec2.provider import Ec2Provider

    home_region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    home_region = home_region or region_of(options.get("profile")) or next(iter(used), None)
    if home_region is None:
        raise ConfigError(
            f"providers.{name}.region: none", hint="set it, or AWS_REGION, such as eu-west-1"
        )
    if image is not None:
        options["image"] = image if isinstance(image, str) else ImageChoice(**image)
    for field in (
        "subnets", "subnets_none", "security_groups", "security_groups_none", "instance_types",
    ):  # fmt: skip
        if field in options:
            options[field] = tuple(options[field])
    return Ec2Provider(
        Ec2Options(
            name=name, installation=installation, region=home_region, used=tuple(used), **options
        )
    )


DRIVER = Driver(
    kind="ec2",
    settings="vmrunner.providers.ec2.settings:Ec2Settings",
    open=open,
    needs=frozenset({"installation", "used"}),
    options="vmrunner.providers.ec2.options:Ec2Options",
    extra="vmrunner[aws]",
    platform="ec2",
    prices="vmrunner.providers.ec2.prices:USD_HOUR",
    priced_on="2025-01-01",
    told={"region": "place"},
    parks=True,
    machine_types="instance_types",
    guard="vmrunner",
)
