"""One insert: everything that makes the VM end, and ours, is in this very call."""

from __future__ import annotations

import base64
import math
import uuid
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from vmrunner.errors import BadOrder
from vmrunner.model import Market, Order
from vmrunner.providers.common.cloud_options import GiB
from vmrunner.providers.gce.labels import labels_of
from vmrunner.providers.gce.options import GceOptions

#: The least that Compute Engine takes as a life, in seconds.
SHORTEST: Final = 30.0
USER_DATA: Final = 256 * 1024  # bytes: what one metadata value holds
#: Families that take persistent disks; those that came later take Hyperdisk alone.
_PERSISTENT: Final = frozenset(
    "a2 c2 c2d c3 c3d custom e2 f1 g1 g2 h3 m1 m2 m3 n1 n2 n2d t2a t2d z3".split()  # noqa: SIM905
)
NAMESPACE: Final = uuid.UUID("b8f1f2a6-6f0e-5c5e-9a38-2f6a8f1f4d10")


class RequestVariant(NamedTuple):
    """A way to ask for the same VM. `duration`: seconds to its deadline, where that may not be a
    time. `migrates`: it moves when its host is maintained, which not every type can, and E2 must;
    a spot VM never does."""

    duration: float | None = None
    migrates: bool = True


#: As almost all are asked for.
USUAL: Final = RequestVariant()


def request_id(instance: str, way: RequestVariant = USUAL) -> str:
    """The idempotency key of this VM's insert: the same for ever."""
    suffix = "/relative" * (way.duration is not None) + "/stays" * (not way.migrates)
    return str(uuid.uuid5(NAMESPACE, instance + suffix))


def instance(order: Order, options: GceOptions, way: RequestVariant = USUAL) -> dict[str, Any]:
    """The `Instance` to insert: the same for the same order. Raises `BadOrder`."""
    offer = order.offer
    labels = {**options.labels, **labels_of(order)}
    initial: dict[str, Any] = {"source_image": offer.image, "labels": labels}
    if offer.disk:
        initial["disk_size_gb"] = math.ceil(offer.disk / GiB)
    disk_type = options.disk_type or disk_type_of(offer.machine_type)
    initial["disk_type"] = f"zones/{offer.place}/diskTypes/{disk_type}"
    interface: dict[str, Any] = {"network": options.network}
    if options.subnetwork:
        interface = {"subnetwork": options.subnetwork}
    if options.address == "public":
        interface["access_configs"] = [{"name": "External NAT", "type_": "ONE_TO_ONE_NAT"}]
    made: dict[str, Any] = {
        "name": order.instance,
        "machine_type": f"zones/{offer.place}/machineTypes/{offer.machine_type}",
        "labels": labels,
        "disks": [{"boot": True, "auto_delete": True, "initialize_params": initial}],
        "network_interfaces": [interface],
        "metadata": {
            "items": [
                *_user_data(order.user_data),
                {"key": "block-project-ssh-keys", "value": "TRUE"},
            ]
        },
        "scheduling": _scheduling(order, way),
        "shielded_instance_config": {
            "enable_vtpm": True,
            "enable_integrity_monitoring": True,
        },
        "can_ip_forward": False,
    }
    if network_tags := options.tags_for(order.network):
        made["tags"] = {"items": list(network_tags)}
    if options.service_account:
        scope = "https://www.googleapis.com/auth/cloud-platform"
        made["service_accounts"] = [{"email": options.service_account, "scopes": [scope]}]
    return made


def disk_type_of(machine_type: str) -> str:
    """Return the type of the boot disk where nothing else is said. Google's own default is a disk
    that turns for some types, and none that it can have for others."""
    family = machine_type.partition("-")[0]
    return "pd-balanced" if family in _PERSISTENT else "hyperdisk-balanced"


def _user_data(data: bytes) -> list[dict[str, str]]:
    """Metadata takes text; cloud-init is told where it is another's. Raises `BadOrder`."""
    try:
        items = [{"key": "user-data", "value": data.decode()}]
    except UnicodeDecodeError:
        coded = base64.b64encode(data).decode()
        items = [
            {"key": "user-data", "value": coded},
            {"key": "user-data-encoding", "value": "base64"},
        ]
    size = len(items[0]["value"].encode())
    if size > USER_DATA:
        raise BadOrder(f"user-data: {size} bytes, a value takes {USER_DATA}")
    return items


def _scheduling(order: Order, way: RequestVariant) -> dict[str, Any]:
    """The cloud's own deadline, that deletes; nothing starts the VM again."""
    spot = order.offer.market is Market.SPOT
    when = datetime.fromtimestamp(int(order.deadline), UTC)
    ends: dict[str, Any] = {"termination_time": f"{when:%Y-%m-%dT%H:%M:%SZ}"}
    if way.duration is not None:
        ends = {"max_run_duration": {"seconds": math.ceil(way.duration)}}
    return {
        **ends,
        "automatic_restart": False,
        "on_host_maintenance": "MIGRATE" if way.migrates and not spot else "TERMINATE",
        "provisioning_model": "SPOT" if spot else "STANDARD",
        "instance_termination_action": "DELETE",
        # An end from outside is none that the guest may draw out, at the cloud's prices.
        "skip_guest_os_shutdown": True,
    }
