"""A local GCE with real VMs, for as long as it runs:

python -m vmrunner_localclouds.gce [--port N]
"""

from __future__ import annotations

import sys
from typing import Final

from vmrunner_localclouds.gce.cloud import LocalGce
from vmrunner_localclouds.vms import program

PORT: Final = 5001

_CONFIG: Final = """\
default_provider = "gce"

[providers.gce]
kind = "gce"
api_endpoint = "{url}"
project = "{site.project}"
zones = [{zones}]
image = "{site.family}"
network = "{site.network}"
subnetwork = "{site.subnetwork}"
max_instances = {most}
"""


def config(cloud: LocalGce) -> str:
    """A whole configuration for this cloud, which asks for no credentials."""
    site = cloud.furnish(ssh_from=program.LOOPBACK)
    return _CONFIG.format(
        url=cloud.url,
        site=site,
        zones=", ".join(f'"{zone}"' for zone in site.zones),
        most=program.MOST_VMS,
    )


def main() -> int:
    options = program.arguments("vmrunner_localclouds.gce", "A local GCE", port=PORT).parse_args()
    return program.run(options.port, lambda vms: LocalGce(vms=vms), config)


if __name__ == "__main__":
    sys.exit(main())
