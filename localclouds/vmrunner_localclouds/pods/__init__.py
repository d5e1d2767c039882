"""Pods with real containers, without a daemon: what a node of a cluster does, for tests.

    with Pods(directory) as pods:
        pod = pods.start("a", {"spec": {...}}, secrets={}, on_change=changed)
        pod.status()["phase"]

A pod is a document of Kubernetes', as far as `pod.py` knows it. Its containers are real ones of
Debian's runc, or of runsc (gVisor) where `runtime` says so; their images come from registries on
loopback. They live in namespaces of their own (`node.py`), whose process 1 dies with this process,
and all of them with it. Root is needed.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final

from vmrunner_localclouds.pods import memory
from vmrunner_localclouds.pods.images import Images
from vmrunner_localclouds.pods.node import Node
from vmrunner_localclouds.pods.pod import Execution as Execution
from vmrunner_localclouds.pods.pod import RunningPod as RunningPod
from vmrunner_localclouds.pods.walls import Wall

#: The programs, and the Debian packages that have them.
PROGRAMS: Final = {
    "runc": "runc",
    "runsc": "runsc",
    "skopeo": "skopeo",
    "ip": "iproute2",
    "nft": "nftables",
}
_PREFIX: Final = "vmrunner-pod"
RUNTIMES: Final = ("runc", "runsc")


class Pods:
    """The one parent of all containers. A context manager, or closed by `close`."""

    def __init__(self, directory: Path, *, registries: Mapping[str, str] | None = None) -> None:
        """`registries`: names of registries (`docker.io`) → addresses on loopback that stand for
        them; others are not asked. Raises OSError where a program or a right is missing."""
        for program, package in PROGRAMS.items():
            if shutil.which(program) is None:
                raise OSError(f"missing {program}: apt-get install {package}")
        self._directory = directory
        self.images = Images(directory / "images", registries or {})
        self._pods: list[RunningPod] = []
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._node: Node | None = None

    def start(
        self,
        name: str,
        pod: Mapping[str, Any],
        *,
        secrets: Mapping[str, Mapping[str, bytes]],
        runtime: str = "runc",
        on_change: Callable[[], None] = lambda: None,
    ) -> RunningPod:
        """Start a pod; it is on its way when this returns. `secrets`: name → key → value.
        `on_change` is called, by a thread of the pod's, when its status is another. Raises
        ValueError for a pod that no node here takes."""
        if runtime not in RUNTIMES:
            raise ValueError(f"runtime: {runtime!r} is not known: {' or '.join(RUNTIMES)}")
        with self._lock:
            if self._node is None:
                memory.sweep(_PREFIX)
                self._node = Node().__enter__()
            number = next(self._numbers)
        key = f"{_PREFIX}-{os.getpid()}-{number}"
        started = RunningPod(
            name,
            pod,
            key=key,
            directory=self._directory / f"{number}-{name}",
            node=self._node,
            images=self.images,
            secrets=secrets,
            runtime=runtime,
            on_change=on_change,
        )
        with self._lock:
            self._pods.append(started)
        return started

    def wall_in(self, walls: Mapping[str, Wall]) -> None:
        """Let these walls, by pods' addresses, be all that there are."""
        if self._node is not None:
            self._node.wall_in(walls)

    def close(self) -> None:
        """End all pods, and what they live in."""
        for pod in self._pods:
            pod.close()
        self._pods.clear()
        if self._node is not None:
            self._node.__exit__()
            self._node = None

    def __enter__(self) -> Pods:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
