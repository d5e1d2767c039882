"""EC2's instance metadata service, as one instance sees it: tokens, its metadata, its user-data and
its identity."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.vms import MetadataRequest, Reply

if TYPE_CHECKING:
    from vmrunner_localclouds.ec2.machines import Ec2Machine

#: One of each: the first and the last that cloud-init asks for. All versions say the same here.
_VERSIONS: Final = ("1.0", "2009-04-04", "2018-09-24", "2021-03-23", "latest")
_VERSION: Final = re.compile(r"latest|1\.0|\d{4}-\d\d-\d\d")
_TOKEN: Final = "x-aws-ec2-metadata-token"  # noqa: S105 - a header's name
_TTL: Final = f"{_TOKEN}-ttl-seconds"
_LONGEST: Final = 21_600  # seconds

#: A directory of names, or the text of a leaf.
Tree = Mapping[str, Any]


class Ec2Metadata:
    """Answers each request from the machine's present state."""

    def __init__(self, machine: Ec2Machine) -> None:
        self._machine = machine
        self._tokens: dict[str, float] = {}  # → when it ends

    def __call__(self, request: MetadataRequest) -> Reply:
        with self._machine.world.lock:
            return self._answer(request)

    def _answer(self, request: MetadataRequest) -> Reply:
        if not self._machine.metadata:
            return _error(403, "Forbidden")
        if request.path == "/latest/api/token":
            return self._token(request)
        if request.method not in ("GET", "HEAD"):
            return _error(405, "Method Not Allowed")
        if not self._allowed(request.headers.get(_TOKEN)):
            return _error(401, "Unauthorized")
        found = self._find([part for part in request.path.split("/") if part])
        return _error(404, "Not Found") if found is None else _text(found)

    # --- who may ask ---

    def _token(self, request: MetadataRequest) -> Reply:
        if request.method != "PUT":
            return _error(405, "Method Not Allowed")
        if "x-forwarded-for" in request.headers:  # through a proxy
            return _error(403, "Forbidden")
        ttl = request.headers.get(_TTL, "")
        if not (ttl.isdecimal() and 1 <= int(ttl) <= _LONGEST):
            return _error(400, "Bad Request")
        token = secrets.token_urlsafe(32)
        self._tokens[token] = self._machine.world.now() + int(ttl)
        return Reply(200, token.encode(), {"Content-Type": "text/plain", _TTL: ttl})

    def _allowed(self, token: str | None) -> bool:
        if token is None:
            return str(self._machine.moto.metadata_options.http_tokens) != "required"
        return self._machine.world.now() < self._tokens.get(token, 0.0)

    # --- what there is ---

    def _find(self, path: list[str]) -> bytes | None:
        if not path:
            return _listing(dict.fromkeys(_VERSIONS, ""))
        version, *rest = path
        if not _VERSION.fullmatch(version):
            return None
        node: Any = self._tree()
        for name in rest:
            if not isinstance(node, Mapping) or name not in node:
                return None
            node = node[name]
        if isinstance(node, Mapping):
            return _listing(node)
        return node if isinstance(node, bytes) else str(node).encode()

    def _tree(self) -> Tree:
        sent = base64.b64decode(str(self._machine.moto.user_data or ""))
        return {
            "dynamic": {"instance-identity": {"document": self._document()}},
            "meta-data": self._metadata(),
            **({"user-data": sent} if sent else {}),
        }

    def _metadata(self) -> Tree:
        moto = self._machine.moto
        nic = moto.nics[0]
        zone = str(moto.placement.availability_zone)
        public = {"public-ipv4": nic.public_ip} if nic.public_ip else {}
        groups = "\n".join(sorted(group.name for group in nic.group_set))
        name = moto.private_dns_name
        interface = {
            "device-number": nic.device_index,
            "interface-id": nic.id,
            "local-hostname": name,
            "local-ipv4s": nic.private_ip_address,
            "mac": nic.mac_address,
            "owner-id": moto.owner_id,
            **({"public-ipv4s": nic.public_ip} if nic.public_ip else {}),
            "security-group-ids": "\n".join(sorted(group.id for group in nic.group_set)),
            "security-groups": groups,
            "subnet-id": nic.subnet.id,
            "subnet-ipv4-cidr-block": nic.subnet.cidr_block,
            "vpc-id": nic.subnet.vpc_id,
        }
        return {
            "ami-id": moto.image_id,
            "ami-launch-index": moto.ami_launch_index,
            "block-device-mapping": {"ami": moto.root_device_name, "root": moto.root_device_name},
            "hostname": name,
            "instance-id": moto.id,
            "instance-life-cycle": moto.lifecycle or "on-demand",
            "instance-type": moto.instance_type,
            "local-hostname": name,
            "local-ipv4": nic.private_ip_address,
            "mac": nic.mac_address,
            "network": {"interfaces": {"macs": {nic.mac_address: interface}}},
            "placement": {"availability-zone": zone, "region": moto.region_name},
            **public,
            "security-groups": groups,
            "services": {"domain": "amazonaws.com", "partition": "aws"},
        }

    def _document(self) -> str:
        moto = self._machine.moto
        document = {
            "accountId": moto.owner_id,
            "architecture": moto.architecture,
            "availabilityZone": str(moto.placement.availability_zone),
            "imageId": moto.image_id,
            "instanceId": moto.id,
            "instanceType": moto.instance_type,
            "pendingTime": f"{moto.launch_time:%Y-%m-%dT%H:%M:%SZ}",
            "privateIp": moto.nics[0].private_ip_address,
            "region": moto.region_name,
            "version": "2017-09-30",
        }
        return json.dumps(document, indent=2)


def _listing(tree: Tree) -> bytes:
    """A directory's names; those of directories end in a slash."""
    names = (f"{n}/" if isinstance(tree[n], Mapping) else n for n in sorted(tree))
    return "\n".join(names).encode()


def _text(body: bytes) -> Reply:
    return Reply(200, body, {"Content-Type": "text/plain", "Server": "EC2ws"})


def _error(status: int, reason: str) -> Reply:
    return Reply(status, f"{status} - {reason}\n".encode(), {"Content-Type": "text/plain"})
