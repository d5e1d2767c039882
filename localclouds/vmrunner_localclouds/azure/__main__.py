"""A local Azure with real VMs, for as long as it runs:

python -m vmrunner_localclouds.azure [--port N]
"""

from __future__ import annotations

import sys
from typing import Final

from vmrunner_localclouds.azure.cloud import LocalAzure
from vmrunner_localclouds.vms import program

PORT: Final = 5002

_CONFIG: Final = """\
default_provider = "azure"

[providers.azure]
kind = "azure"
endpoint = "{url}"
subscription = "{site.subscription}"
resource_group = "{site.group}"
location = "{site.location}"
zones = [{zones}]
image = "{site.image}"
subnet = "{site.subnet}"
security_group = "{site.firewall}"
max_instances = {most}
"""


def config(cloud: LocalAzure) -> str:
    """A whole configuration for this cloud, which asks for no credentials."""
    site = cloud.furnish(ssh_from=program.LOOPBACK)
    return _CONFIG.format(
        url=cloud.url,
        site=site,
        zones=", ".join(f'"{zone}"' for zone in site.zones),
        most=program.MOST_VMS,
    )


def main() -> int:
    parser = program.arguments("vmrunner_localclouds.azure", "A local Azure", port=PORT)
    return program.run(parser.parse_args().port, lambda vms: LocalAzure(vms=vms), config)


if __name__ == "__main__":
    sys.exit(main())
