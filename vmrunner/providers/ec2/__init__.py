"""Amazon's EC2.

- port and configuration: `provider.py`, `options.py`, `doctor.py`
- the SDK, narrowed to what is called: `client.py`; its errors in our words: `error_codes.py`
- a launch: `catalog.py` (image, subnets, groups, types), `create_request.py`, `create.py`
- what is shown: `describe.py`, `describe_instances.py` (zone by zone in an outage), `sweep.py`,
  `resources.py` (in our words)
- the end: `delete.py`, `deadline_schedules.py`, and `guard/`, which needs nothing of ours
- safety: `identity.py` (whose account), `permissions.py` (the right to delete), `isolation.py`
  (builds do not reach each other), `metadata_service.py`
- AMIs of ours: `images.py`

boto3 is imported only when a provider is opened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vmrunner.errors import ConfigError

if TYPE_CHECKING:
    from vmrunner.providers.ec2.provider import Ec2Provider


def open(  # noqa: A001 - the name that the registry of providers calls
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

    said = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    said = said or region_of(options.get("profile")) or next(iter(used), None)
    if said is None:
        raise ConfigError(
            f"providers.{name}.region: none", hint="set it, or AWS_REGION, such as eu-west-1"
        )
    if image is not None:
        options["image"] = image if isinstance(image, str) else ImageChoice(**image)
    for field in ("subnets", "security_groups", "instance_types"):
        if field in options:
            options[field] = tuple(options[field])
    return Ec2Provider(
        Ec2Options(name=name, installation=installation, region=said, used=tuple(used), **options)
    )
