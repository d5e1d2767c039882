"""Volumes of a pod: `emptyDir` (in memory, on disk) and `secret`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vmrunner_localclouds.pods.bundle import Refused, Secrets
from vmrunner_localclouds.pods.memory import size
from vmrunner_localclouds.pods.node import Node

_PUBLIC: Final = 0o777  # of an emptyDir: a container of any user may write there


@dataclass(frozen=True)
class Volume:
    """A directory that containers of one pod may mount."""

    name: str
    source: str
    readonly: bool = False
    memory_limit: int = 0  # bytes, of one that gVisor keeps in its own memory; 0: a directory


class Volumes:
    """A pod's volumes, by their names."""

    def __init__(
        self, pod: Mapping[str, Any], *, place: str, disk: Path, secrets: Secrets, node: Node
    ) -> None:
        """`place`: a directory in the node's mounts; `disk`: one that it shares with us. Raises
        Refused."""
        self._place = place
        self._disk = disk
        self._node = node
        self._volumes = {
            volume["name"]: self._make(volume, secrets) for volume in pod["spec"].get("volumes", ())
        }

    def _make(self, volume: Mapping[str, Any], secrets: Secrets) -> Volume:
        name = volume["name"]
        if (empty := volume.get("emptyDir")) is not None:
            return self._empty(name, empty)
        if (secret := volume.get("secret")) is not None:
            return self._secret(name, secret, secrets)
        kinds = ", ".join(set(volume) - {"name"})
        raise Refused(f"volume {name}: {kinds} is not to be had here; emptyDir and secret are")

    def _empty(self, name: str, empty: Mapping[str, Any]) -> Volume:
        limit = size(empty.get("sizeLimit", 0))
        if empty.get("medium") == "Memory":
            path = f"{self._place}/{name}"
            options = f"mode={_PUBLIC:o}" + (f",size={limit}" if limit else "")
            words = shlex.join(["mount", "-t", "tmpfs", "-o", options, name, path])
            self._node.shell(f"mkdir -p {shlex.quote(path)}; {words}")
        else:
            directory = self._disk / name
            directory.mkdir(parents=True)
            directory.chmod(_PUBLIC)
            path = str(directory)
        return Volume(name, path, memory_limit=limit or 1 << 30)

    def _secret(self, name: str, secret: Mapping[str, Any], secrets: Secrets) -> Volume:
        values = secrets.get(secret["secretName"])
        if values is None:
            if not secret.get("optional"):
                raise Refused(f"secret {secret['secretName']!r} not found")
            values = {}
        directory = self._disk / name
        directory.mkdir(parents=True)
        items = secret.get("items") or [{"key": key, "path": key} for key in values]
        for item in items:
            if item["key"] not in values:
                raise Refused(f"secret {secret['secretName']!r} has no {item['key']!r}")
            file = directory / item["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(values[item["key"]])
            file.chmod(item.get("mode", secret.get("defaultMode", 0o644)))
        return Volume(name, str(directory), readonly=True)

    def mounts(self, container: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The mounts of a container, as a runtime wants them. Raises Refused."""
        found = []
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in self._volumes:
                raise Refused(f"{container['name']}: there is no volume {mount['name']!r}")
            if unknown := set(mount) - {"name", "mountPath", "readOnly"}:
                raise Refused(f"{container['name']}: {', '.join(unknown)} is not to be had here")
            volume = self._volumes[mount["name"]]
            readonly = volume.readonly or mount.get("readOnly", False)
            found.append(
                {
                    "destination": mount["mountPath"],
                    "type": "bind",
                    "source": volume.source,
                    "options": ["rbind", "ro" if readonly else "rw"],
                }
            )
        return found

    def hints(self) -> dict[str, str]:
        """gVisor's annotations: it keeps these in memory of its own, for all of the pod."""
        found = {}
        for volume in self._volumes.values():
            if volume.memory_limit:
                hint = f"dev.gvisor.spec.mount.{volume.name}"
                found[f"{hint}.source"] = volume.source
                found[f"{hint}.type"] = "tmpfs"
                found[f"{hint}.share"] = "pod"
                found[f"{hint}.options"] = f"rw,mode={_PUBLIC:o},size={volume.memory_limit}"
        return found
