"""The local Kubernetes of a process of its own, with pods of real containers; a registry that has
their images; and what a test asks of it, by `kubectl`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from tests.support.loopback_registry import LoopbackRegistry, archive, packed, programs
from tests.support.unit_pods import unit_image
from tests.vm.local_cloud import Local
from vmrunner.lib import resources

#: Of debian:trixie, as far as a scenario needs it: this machine's own, which is one.
_DEBIAN: Final = (
    "sh bash cat env gzip head hostname id ls mkdir printf pwd rm seq sha256sum sleep tail tar tee "
    "timeout true"
)
_KINDS: Final = "jobs,pods,secrets"


@dataclass(frozen=True)
class LocalKube(Local):
    """Pods of runc. Its policies are those of `deploy/kubernetes/`."""

    MODULE: ClassVar[str] = "vmrunner_localclouds.kube"
    NAME: ClassVar[str] = "cluster"
    RUNTIME: ClassVar[str] = "runc"

    registry: LoopbackRegistry
    kubeconfig: Path

    @classmethod
    def start(cls, place: Path) -> Self:
        place.mkdir()
        home = place.with_name(f"registry-of-{place.name}")
        home.mkdir()
        registry = LoopbackRegistry(home).__enter__()
        layers = [programs(_DEBIAN.split()), _root()]
        image = archive(home / "debian.tar", layers, Env=["PATH=/bin"])
        registry.push("library/debian:trixie", image)
        unit = unit_image(registry, home)
        mirror = f"docker.io={registry.address}"
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", cls.MODULE, "--port", "0"),
                *("--behind", "pods", "--mirror", mirror),
            ],
            env=os.environ | {"TMPDIR": str(place)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        kubeconfig = Path(line.strip().partition("=")[2])
        config = (
            f'[providers.{cls.NAME}]\nkind = "kubernetes"\nruns = "pod"\n'
            f'runtime_class = "{cls.RUNTIME}"\nkubeconfig = "{kubeconfig}"\n'
            f'unit_image = "{unit}"\nsizes = ["1x512MiB"]\ndisk = "1GiB"\n'
        )
        made = cls(process, place, config, registry, kubeconfig)
        made.kubectl("apply", "-f", str(resources.path("deploy") / "kubernetes/network.yaml"))
        return made

    def end(self) -> None:
        super().end()
        self.registry.__exit__()

    def kubectl(self, *words: str) -> str:
        done = subprocess.run(
            ["kubectl", "--kubeconfig", str(self.kubeconfig), "-n", "vmrunner", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def all_of(self, build: str) -> list[str]:
        """Those that are there: the API knows no others."""
        words = ("get", "pods", "-l", f"vmrunner/build={build}", "-o", "json")
        items: list[dict[str, Any]] = json.loads(self.kubectl(*words))["items"]
        return [str(item["metadata"]["name"]) for item in items]

    def objects(self) -> list[str]:
        """All that is there of ours, or of the probe's."""
        return self.kubectl("get", _KINDS, "-l", "vmrunner/installation", "-o", "name").split()


@dataclass(frozen=True)
class LocalGvisor(LocalKube):
    """Pods of gVisor."""

    NAME: ClassVar[str] = "gvisor"
    RUNTIME: ClassVar[str] = "gvisor"


def _root() -> bytes:
    return packed({"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n", "etc/group": b"root:x:0:\n"})
