"""Real VMs behind VMIs: QEMU with a disk from the local image, and a disc with the user-data of
their Secret, by which cloud-init's NoCloud begins (kubevirt pkg/cloud-init/cloud-init.go)."""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING, Final

from vmrunner.providers.qemu import seed
from vmrunner_localclouds.kube.api_error import Json
from vmrunner_localclouds.kube.kinds import SECRETS
from vmrunner_localclouds.vms import GuestSpec, MetadataRequest, Reply

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube
    from vmrunner_localclouds.kube.machines import KubeMachine
    from vmrunner_localclouds.vms import VmFleet

GiB: Final = 1024**3
_DISK: Final = 20 * GiB
#: Keys of a Secret: pkg/cloud-init/cloud-init.go, `resolveNoCloudSecrets`.
_KEYS: Final = ("userdata", "userData")


def embody(machine: KubeMachine, bodies: VmFleet) -> None:
    """Give a VMI that is scheduled a VM."""
    name = machine.name
    meta = {"instance-id": f"{name}.{machine.namespace}", "local-hostname": name}
    files = {"meta-data": json.dumps(meta).encode(), "user-data": user_data(machine)}
    guest = GuestSpec(
        name=name,
        address=bodies.address(),
        mac=f"02:{secrets.token_bytes(5).hex(':')}",
        disk=_DISK,
        firmware={
            "manufacturer": "KubeVirt",
            "product": "None",
            "serial": machine.uid,
            "uuid": machine.uid,
        },
        words="ds=nocloud",
        seed=seed.image(files),
    )
    bodies.give(machine, guest, _nobody)


def user_data(machine: KubeMachine) -> bytes:
    """The user-data that its volume names; empty: there is none."""
    for volume in machine.last["spec"].get("volumes") or ():
        source = volume.get("cloudInitNoCloud") or {}
        if source.get("secretRef"):
            return _secret(machine.cloud, machine.namespace, source["secretRef"]["name"])
        if source.get("userDataBase64"):
            return base64.b64decode(source["userDataBase64"])
        if source.get("userData"):
            return str(source["userData"]).encode()
    return b""


def _secret(cloud: LocalKube, namespace: str, name: str) -> bytes:
    found: Json = cloud.store.get(SECRETS, namespace, name) or {}
    data = found.get("data") or {}
    return next((base64.b64decode(data[key]) for key in _KEYS if key in data), b"")


def _nobody(_: MetadataRequest) -> Reply:
    """A cluster has no metadata service for its VMs."""
    return Reply(404)
