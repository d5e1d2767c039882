"""A local EC2 with real VMs, for as long as it runs:

python -m vmrunner_localclouds.ec2 [--port N] [--region R]
"""

from __future__ import annotations

import sys
from typing import Final

from vmrunner_localclouds.ec2.cloud import LocalCloud
from vmrunner_localclouds.vms import program

PORT: Final = 5000

_CONFIG: Final = """\
# In the shell that runs vmrunner: export {environment}
default_provider = "aws"

[providers.aws]
kind = "ec2"
endpoint_url = "{url}"
region = "{site.region}"
image = "{site.image}"
subnets = [{subnets}]
security_groups = ["{site.security_group}"]
scheduler_role = "arn:aws:iam::{account}:role/vmrunner-deadline"
max_instances = {most}
"""
#: Credentials that mean nothing, and no look for others.
ENVIRONMENT: Final = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def config(cloud: LocalCloud, region: str) -> str:
    """A whole configuration for this cloud; the environment stands in a comment."""
    site = cloud.furnish(region, ssh_from=program.LOOPBACK)
    return _CONFIG.format(
        environment=" ".join(f"{name}={value}" for name, value in ENVIRONMENT.items()),
        url=cloud.url,
        site=site,
        account=cloud.account,
        subnets=", ".join(f'"{subnet}"' for subnet in site.subnets),
        most=program.MOST_VMS,
    )


def main() -> int:
    parser = program.arguments("vmrunner_localclouds.ec2", "A local EC2", port=PORT)
    parser.add_argument("--region", default="eu-west-1", help="eu-west-1")
    options = parser.parse_args()
    return program.run(
        options.port, lambda vms: LocalCloud(vms=vms), lambda cloud: config(cloud, options.region)
    )


if __name__ == "__main__":
    sys.exit(main())
