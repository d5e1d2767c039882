"""A local EC2 with real VMs, for as long as it runs:

    python -m vmrunner.testing.localcloud [--port N] [--region R]

Says on stdout what goes into `vmrunner.toml`, and then serves until Ctrl-C or SIGTERM, which end
all of its VMs."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from typing import Final

from vmrunner.errors import VmrunnerError
from vmrunner.testing.localcloud.cloud import LocalCloud
from vmrunner.testing.localcloud.site import Site
from vmrunner.testing.vms import Vms

PORT: Final = 5000
_MOST: Final = 4  # VMs at once, for a laptop

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


def config(cloud: LocalCloud, site: Site) -> str:
    """A whole `vmrunner.toml` for this cloud; the environment stands in a comment."""
    return _CONFIG.format(
        environment=" ".join(f"{name}={value}" for name, value in ENVIRONMENT.items()),
        url=cloud.url,
        site=site,
        account=cloud.account,
        subnets=", ".join(f'"{subnet}"' for subnet in site.subnets),
        most=_MOST,
    )


def serve(vms: Vms, port: int, region: str) -> None:
    """Until SIGINT or SIGTERM comes. Raises OSError when the port cannot be had."""
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before there are threads: they inherit it
    cloud = LocalCloud(vms=vms)
    cloud.start(port)
    try:
        site = cloud.furnish(region, ssh_from="127.0.0.0/8")
        print(config(cloud, site), end="", flush=True)  # noqa: T201
        print("serving until Ctrl-C; its VMs end with it", file=sys.stderr, flush=True)  # noqa: T201
        signal.sigwait(ends)
    finally:
        cloud.stop()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vmrunner.testing.localcloud",
        description="A local EC2 with real VMs. Says on stdout what goes into vmrunner.toml.",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"{PORT}; 0 takes a free one")
    parser.add_argument("--region", default="eu-west-1", help="eu-west-1")
    asked = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        vms = Vms.open()
        if vms.warning:
            print(vms.warning, file=sys.stderr)  # noqa: T201
        serve(vms, asked.port, asked.region)
    except (VmrunnerError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
