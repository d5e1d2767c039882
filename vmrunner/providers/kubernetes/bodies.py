"""Bodies of what is created: the Job first, which is the deadline that the cluster keeps, then what
it owns. The same for the same order, but for the seconds that are left. Pure.

What names a Job's uid as its owner dies with it, also when it is born after.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from vmrunner.errors import BadOrder
from vmrunner.lib import units
from vmrunner.model import Identity, Network, NetworkPolicy, Order, Shape
from vmrunner.providers.kubernetes import unit_version
from vmrunner.providers.kubernetes.labels import NETWORK, ORDER, USER_TAGS, digest, labels_of
from vmrunner.providers.kubernetes.options import DISK, KubernetesOptions, Size, quantity, size_of

JSON = dict[str, Any]

#: Bytes that a Secret holds, and the annotations of one object.
SECRET: Final = 1 << 20
ANNOTATIONS: Final = 256 << 10
#: Bytes that vmrunner's own container of a pod may take: a build's memory is none of it. At least
#: so many, and so many beside the log, which waits in a volume of memory.
OUR_MEMORY: Final = 256 << 20
BESIDE_LOG: Final = 188 << 20
#: Of a container that does little: a quota refuses a pod of which one container names no request.
SMALL: Final[JSON] = {
    "requests": {"cpu": "100m", "memory": "64Mi"},
    "limits": {"cpu": "1", "memory": "128Mi"},
}
#: Where the log waits until it is sent, beside what it may hold.
SPOOL: Final = 4 << 20
_SUPERVISOR: Final = "/usr/lib/vmrunner/supervisor"
_DROPPED: Final[JSON] = {"drop": ["ALL"]}
_OURS: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "SYS_CHROOT", "KILL")
_BUILDS: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETUID", "SETGID", "KILL")
#: The key of a login by which a node pulls an image.
_LOGIN: Final = ".dockerconfigjson"
_SECCOMP: Final[JSON] = {"type": "RuntimeDefault"}


def metadata(order: Order, uid: str | None = None) -> JSON:
    """Metadata of each object of an order. `uid`: of its Job; None: it is the Job. Raises
    `BadOrder`."""
    notes = {ORDER: digest(order)}
    if order.tags:
        notes[USER_TAGS] = _dumped(order.tags)
    made: JSON = {
        "name": order.instance,
        "labels": {**labels_of(order), NETWORK: network_label(order.network)},
        "annotations": notes,
    }
    if uid is not None:
        made["ownerReferences"] = [
            {"apiVersion": "batch/v1", "kind": "Job", "name": order.instance, "uid": uid}
        ]
    return made


def network_label(network: NetworkPolicy) -> str:
    """Value of the label by which a network policy selects."""
    return "none" if network is Network.NONE else "open"


def seconds_left(deadline: float, now: float) -> int:
    """Whole seconds to a deadline, rounded down; at least 1, the least that the API takes."""
    return max(1, math.floor(deadline - now))


def job(order: Order, now: float) -> JSON:
    """The Job: no pod ever, gone at the deadline with all it owns. `now`: the cluster's clock."""
    return timer(metadata(order), seconds_left(order.deadline, now))


def timer(meta: Mapping[str, Any], seconds: int) -> JSON:
    """A Job that does nothing but end. Its template, of which no pod is made, asks for so little
    that admission policies let it pass."""
    container = {
        "name": "none",
        "image": "none",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": _DROPPED,
            "privileged": False,
            "readOnlyRootFilesystem": True,
        },
        "resources": {
            "requests": {"cpu": "1m", "memory": "1Mi"},
            "limits": {"cpu": "1m", "memory": "1Mi"},
        },
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": dict(meta),
        "spec": {
            "parallelism": 0,
            "backoffLimit": 0,
            "activeDeadlineSeconds": seconds,
            "ttlSecondsAfterFinished": 0,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65534,
                        "seccompProfile": _SECCOMP,
                    },
                    "containers": [container],
                }
            },
        },
    }


def secret(order: Order, uid: str, options: KubernetesOptions) -> JSON:
    """The secret of an instance: its user-data, or its keys and end. Raises `BadOrder`."""
    if options.runs == "vmi":
        data = {"userdata": order.user_data}
    else:
        data = identity_files(order.identity, order.deadline)
        if order.pull is not None:
            data[_LOGIN] = order.pull.encode()
    size = sum(map(len, data.values()))
    if size > SECRET:
        raise BadOrder(f"user-data: {size} bytes, a Secret takes {SECRET}")
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(order, uid),
        "immutable": True,
        "type": "kubernetes.io/dockerconfigjson" if _LOGIN in data else "Opaque",
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }


def identity_files(identity: Identity | None, deadline: float) -> dict[str, bytes]:
    """Files for the container beside a build: the user's public key, its own host key, its end in
    epoch seconds. Raises `BadOrder`."""
    if identity is None:
        raise BadOrder("bootstrap: a pod has no image of its own to make", hint="use a VM")
    return {
        "authorized_keys": identity.user_key.encode() + b"\n",
        "host_key": identity.host_key.encode(),
        "host_key.pub": identity.host_public.encode() + b"\n",
        "deadline": f"{int(deadline)}\n".encode(),
    }


def claim(order: Order, uid: str, options: KubernetesOptions) -> JSON:
    """The volume that is a VM's disk: a clone, which nobody else has."""
    return claim_of(metadata(order, uid), options)


def claim_of(meta: Mapping[str, Any], options: KubernetesOptions) -> JSON:
    """Such a volume, with this metadata."""
    table = options.volume
    assert table is not None
    spec: JSON = {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Block",
        "resources": {"requests": {"storage": quantity(units.size(table["size"]))}},
        "dataSource": {"kind": "PersistentVolumeClaim", "name": table["claim"]},
    }
    if storage := table.get("storage_class"):
        spec["storageClassName"] = storage
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": dict(meta),
        "spec": spec,
    }


def vmi(order: Order, uid: str, options: KubernetesOptions) -> JSON:
    """The VM: never started again, nothing of the pod network but port 22 gets in."""
    size = size_of(order.offer.machine_type)
    return machine(metadata(order, uid), order.offer.image, size, options)


def machine(meta: Mapping[str, Any], image: str, size: Size, options: KubernetesOptions) -> JSON:
    """Such a VM, with this metadata; its secret and its volume have its name."""
    root: JSON = {"containerDisk": {"image": image}}
    if options.volume is not None:
        root = {"persistentVolumeClaim": {"claimName": meta["name"]}}
    spec: JSON = {
        "terminationGracePeriodSeconds": 0,
        "evictionStrategy": "None",
        "domain": {
            "cpu": {"cores": size.cpus},
            "memory": {"guest": quantity(size.memory)},
            "devices": {
                "rng": {},
                "autoattachGraphicsDevice": False,
                "interfaces": [{"name": "default", "masquerade": {}, "ports": [{"port": 22}]}],
                "disks": [
                    {"name": "root", "disk": {"bus": "virtio"}},
                    {"name": "seed", "disk": {"bus": "virtio"}},
                ],
            },
        },
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [
            {"name": "root", **root},
            {"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": meta["name"]}}},
        ],
        **_placement(options),
    }
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": dict(meta),
        "spec": spec,
    }


def pod(order: Order, uid: str, options: KubernetesOptions, now: float) -> JSON:
    """The pod: the build's image, and vmrunner beside it. They share volumes and the network, never
    processes: root in the build would read what the other holds. Raises `BadOrder`."""
    shape, size = order.shape, size_of(order.offer.machine_type)
    if shape is None:
        raise BadOrder("container: a pod needs an image to start", hint="use a VM")
    spec: JSON = {
        **unit(order.instance, order.offer.image, shape, size, options),
        "activeDeadlineSeconds": seconds_left(order.deadline, now),
    }
    if order.pull is not None:
        spec["imagePullSecrets"] = [{"name": order.instance}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata(order, uid), "spec": spec}


def unit(name: str, image: str, shape: Shape, size: Size, options: KubernetesOptions) -> JSON:
    """Spec of such a pod, but for its end. `name`: that of its secret; `image`: the unit's."""
    spool = _rounded(shape.log_bytes + SPOOL)
    return {
        **pod_base(options),
        "terminationGracePeriodSeconds": 10,
        "hostname": "build",
        "initContainers": [_lay(image)],
        "containers": [
            _beside(image, max(OUR_MEMORY, BESIDE_LOG + spool)),
            _build(shape.container, size, options, read_only=not _opens_no_fifo(options)),
        ],
        "volumes": [
            {"name": "identity", "secret": {"secretName": name, "defaultMode": 0o400}},
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": quantity(spool)}},
            {"name": "box", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            {"name": "secrets", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
            {"name": "work", "emptyDir": {}},
        ],
    }


def room(size: Size, more: Mapping[str, str] = MappingProxyType({})) -> JSON:
    """Resources of a container of this size, and `more`: what it asks for is what it gets."""
    amounts = {"cpu": str(size.cpus), "memory": quantity(size.memory), **more}
    return {"requests": dict(amounts), "limits": dict(amounts)}


def pod_base(options: KubernetesOptions) -> JSON:
    """The part that every pod of ours has, a probe too: no token, no names of services, no shared
    processes, the resolvers of the configuration."""
    made: JSON = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": False,
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": list(options.dns)},
        **_placement(options),
    }
    if options.runtime_class:
        made["runtimeClassName"] = options.runtime_class
    return made


# --- within ---


def _placement(options: KubernetesOptions) -> JSON:
    made: JSON = {}
    if options.node_selector:
        made["nodeSelector"] = dict(options.node_selector)
    if options.tolerations:
        made["tolerations"] = [dict(toleration) for toleration in options.tolerations]
    if options.priority_class:
        made["priorityClassName"] = options.priority_class
    return made


def _opens_no_fifo(options: KubernetesOptions) -> bool:
    """gVisor opens no FIFO for writing on a mount that is read-only: a build can spoil its own."""
    return "gvisor" in (options.runtime_class or "") or "runsc" in (options.runtime_class or "")


def confined(*capabilities: str) -> JSON:
    wanted = {"add": list(capabilities)} if capabilities else {}
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {**_DROPPED, **wanted},
        "seccompProfile": _SECCOMP,
    }


def _lay(image: str) -> JSON:
    return {
        "name": "lay",
        "image": image,
        "command": unit_version.lay_command(),
        "securityContext": confined(),
        "resources": SMALL,
        "volumeMounts": [{"name": "box", "mountPath": "/vmrunner"}],
    }


def _beside(image: str, memory: int) -> JSON:
    # No probe, which would come up to a second late: who connects waits inside (unit_sshd.sh).
    return {
        "name": "vmrunner",
        "image": image,
        "command": [_SUPERVISOR, "beside"],
        "securityContext": confined(*_OURS),
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": quantity(memory)},
        },
        "volumeMounts": [
            {"name": "identity", "mountPath": "/run/identity", "readOnly": True},
            {"name": "run", "mountPath": "/run/vmrunner"},
            {"name": "box", "mountPath": "/vmrunner"},
            {"name": "work", "mountPath": "/work"},
            {"name": "secrets", "mountPath": "/run/build-secrets"},
        ],
    }


def _build(image: str, size: Size, options: KubernetesOptions, *, read_only: bool) -> JSON:
    box: JSON = {"name": "box", "mountPath": "/vmrunner"}
    return {
        "name": "build",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "/vmrunner/driver.sh"],
        "workingDir": "/work",
        "securityContext": {"runAsUser": 0, **confined(*_BUILDS)},
        "resources": room(size, {"ephemeral-storage": quantity(options.disk or DISK)}),
        "volumeMounts": [
            box | ({"readOnly": True} if read_only else {}),
            {"name": "work", "mountPath": "/work"},
            {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True},
        ],
    }


def _rounded(count: int) -> int:
    """Bytes rounded up to whole MiB."""
    return -(-count // (1 << 20)) << 20


def _dumped(tags: Mapping[str, str]) -> str:
    text = json.dumps(dict(tags), sort_keys=True)
    if len(text) > ANNOTATIONS // 2:
        raise BadOrder(f"tags: {len(text)} bytes, annotations take {ANNOTATIONS // 2} of them")
    return text
