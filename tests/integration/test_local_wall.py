"""The wall round a local VM's network keeps it from the metadata services of whatever cloud its
host is in, with stand-ins for all of them: no VM is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support import wall_probe

#: Where a cloud tells its VMs about themselves, by the vendors' own pages (read in November 2026).
METADATA: Final = {
    # docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html; Google's,
    # Azure's, Oracle's, DigitalOcean's and Hetzner's are at the same address
    "169.254.169.254": "EC2 and most others",
    # docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4.html
    "169.254.170.2": "ECS",
    # docs.aws.amazon.com/vpc/latest/userguide/AmazonDNS-concepts.html
    "169.254.169.253": "Amazon's resolver",
    # learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
    "168.63.129.16": "Azure's WireServer and resolver",
    # www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata
    "100.100.100.200": "Alibaba",
    # docs.oracle.com/iaas/Content/Compute/Tasks/gettingmetadata.htm, of the classic kind
    "192.0.0.192": "Oracle",
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
