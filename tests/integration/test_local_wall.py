"""The wall round a local VM's network keeps it from the metadata services of whatever cloud its
host is in, with stand-ins for all of them: no VM is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support import wall_probe

#: Where a cloud tells its VMs about themselves, by the vendors' own pages (each read in a stored
#: copy, 2026-12-01).
METADATA: Final = {
    # docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html; those of most
    # others are at the same address, by their pages that were not read
    "169.254.169.254": "EC2 and most others",
    # docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
    "169.254.170.2": "ECS",
    # docs.aws.amazon.com/vpc/latest/userguide/VPC_DHCP_Options.html#AmazonDNS
    "169.254.169.253": "Amazon's resolver",
    # learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
    "168.63.129.16": "Azure's WireServer and resolver",
    # www.alibabacloud.com/help/doc-detail/141788.htm
    "100.100.100.200": "Alibaba",
    # docs.oracle.com/en/cloud/cloud-at-customer/occ-get-started/
    # retrieve-predefined-instance-metadata.html
    "192.0.0.192": "Oracle's classic kind",
}
INTERNET: Final = "44.44.44.44"


def test_no_clouds_metadata_service_is_reached() -> None:
    words = ["unshare", "--user", "--map-root-user", "--net"]
    words += [sys.executable, "-m", wall_probe.__name__, INTERNET, *METADATA]
    root = Path(__file__).parents[2]
    done = subprocess.run(words, cwd=root, stdout=subprocess.PIPE, timeout=120, check=True)
    reached = json.loads(done.stdout)
    assert set(reached["before"]) == {INTERNET, *METADATA}  # so that each could be
    assert reached["after"] == [INTERNET]
