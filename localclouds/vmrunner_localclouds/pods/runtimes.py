"""Command lines of the two runtimes: runc, and runsc (gVisor) for pods of a class that says so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from vmrunner_localclouds.pods.memory import MemoryGroup
from vmrunner_localclouds.pods.node import NETWORKS, PLACE, Node

#: Programs of a process that does nothing, as root of a gVisor sandbox: `pause(2)`, for ever. ELF,
#: by machine: 64 bytes of head, 56 of one program header, then the code.
_PAUSE: Final = bytes.fromhex("b8220000000f05ebf7")
_ELF: Final = bytes.fromhex(
    "7f454c4602010100" "0000000000000000" "02003e0001000000" "7800400000000000"
    "4000000000000000" "0000000000000000" "0000000040003800" "0100000000000000"
    "0100000005000000" "0000000000000000" "0000400000000000" "0000400000000000"
    "8100000000000000" "8100000000000000" "0010000000000000"
)  # fmt: skip
_CRI: Final = "io.kubernetes.cri"


class Runtime(Protocol):
    """One pod's containers, as a runtime starts them."""

    @property
    def options(self) -> Sequence[str]:
        """The words before a command."""

    def begin(self, hints: Mapping[str, str], memory: int) -> None:
        """Do what comes before the first container. `memory`: bytes for all of the pod; 0: no limit
        for it as a whole."""

    def fit(self, config: dict[str, Any], container: str) -> MemoryGroup:
        """Make a container's configuration this runtime's. Returns what minds its memory."""

    def end(self) -> None:
        """Do what comes after the last."""


class Runc:
    """Containers of the node's own kernel."""

    options: Final = ("runc", "--root", f"{PLACE}/runc")

    def __init__(self, pod: str) -> None:
        self._pod = pod

    def begin(self, hints: Mapping[str, str], memory: int) -> None:
        pass

    def fit(self, config: dict[str, Any], container: str) -> MemoryGroup:
        group = MemoryGroup(container, config["linux"]["resources"])
        config["linux"]["cgroupsPath"] = group.path
        for namespace in config["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = f"{NETWORKS}/{self._pod}"
        return group

    def end(self) -> None:
        pass


class Runsc:
    """Containers of one gVisor sandbox, whose first does nothing. It has one memory for all of
    them: who uses up more takes the others along."""

    options: Final = (
        *("runsc", "--root", f"{PLACE}/runsc", "--platform=systrap", "--ignore-cgroups"),
        *("--host-uds=none", "--overlay2=none", "--network=sandbox"),
    )

    def __init__(self, pod: str, directory: Path, node: Node, hostname: str) -> None:
        self._pod = pod
        self._hostname = hostname
        self._directory = directory
        self._node = node
        self._hints: dict[str, str] = {}

    def begin(self, hints: Mapping[str, str], memory: int) -> None:
        self._group = MemoryGroup(self._pod, {"memory": {"limit": memory}} if memory else {})
        root = self._directory / "root"
        root.mkdir(parents=True)
        (root / "pause").write_bytes(_ELF + _PAUSE)
        (root / "pause").chmod(0o755)
        self._hints = dict(hints)
        kinds = ("pid", "network", "ipc", "uts", "mount")
        config = {
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/pause"], "cwd": "/"},
            "root": {"path": str(root), "readonly": True},
            "hostname": self._hostname,  # of all in it
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": kind} for kind in kinds]},
            "annotations": {f"{_CRI}.container-type": "sandbox", **self._hints},
        }
        for namespace in config["linux"]["namespaces"]:  # type: ignore[index]
            if namespace["type"] == "network":
                namespace["path"] = f"{NETWORKS}/{self._pod}"
        (self._directory / "config.json").write_text(json.dumps(config))
        enter = ["sh", "-ec", f'echo $$ >{self._group.processes}; exec "$@"', "sh"]
        words = ["create", "--bundle", str(self._directory), self._pod]
        self._node.run(*enter, *self.options, *words)
        self._node.run(*self.options, "start", self._pod)

    def fit(self, config: dict[str, Any], container: str) -> MemoryGroup:  # noqa: ARG002
        config["annotations"] = {
            f"{_CRI}.container-type": "container",
            f"{_CRI}.sandbox-id": self._pod,
            **self._hints,
        }
        del config["linux"]["resources"]
        return self._group

    def end(self) -> None:
        self._node.run(*self.options, "delete", "--force", self._pod, check=False)
