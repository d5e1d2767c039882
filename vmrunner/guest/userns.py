"""Docker's user namespace, where the image has one: root in a container is nobody in the VM, and
the work directory must be that nobody's."""

from __future__ import annotations

import json
from typing import Any

DAEMON = "/etc/docker/daemon.json"
RANGES = "/etc/subuid"
USER = "dockremap"  # Docker makes it for the setting "default"


def root(job: dict[str, Any], daemon: str = DAEMON, ranges: str = RANGES) -> int | None:
    """The VM's user id of root in the build's container; None: the VM's own root, as always
    without the setting, and with it for a build that needs Docker's socket or all rights."""
    if shared(job):
        return None
    try:
        with open(daemon) as file:
            remapped = json.load(file).get("userns-remap")
    except FileNotFoundError:
        return None
    if not remapped:
        return None
    with open(ranges) as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name == USER:
                return int(rest.partition(":")[0])
    raise OSError(f"{ranges}: no range for {USER}, though {daemon} has userns-remap")


def shared(job: dict[str, Any]) -> bool:
    """True if the build's container must be in the VM's own user namespace."""
    return bool(job["docker"] or job["privileged"])
