"""Whole builds in pods of a local Kubernetes, as a newcomer runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from vmrunner_localclouds.kube import LocalKube

_VMRUNNER: Final = Path(sys.executable).with_name("vmrunner")


def settings(home: Path, cluster: LocalKube, unit: str, runtime: str, runs: str = "pod") -> None:
    """Write a configuration with nothing but this provider."""
    config = home / "config/vmrunner/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f'[providers.cluster]\nkind = "kubernetes"\nruns = "{runs}"\nruntime_class = "{runtime}"\n'
        f'kubeconfig = "{cluster.kubeconfig}"\nunit_image = "{unit}"\nsizes = ["1x512MiB"]\n'
        f'disk = "1GiB"\nimage = "{unit}"\n'
    )


def run(
    home: Path, cluster: LocalKube, unit: str, runtime: str, *words: str, runs: str = "pod"
) -> subprocess.CompletedProcess[str]:
    """`vmrunner run`, by such a configuration."""
    with begin(home, cluster, unit, runtime, *words, runs=runs) as running:
        try:
            out, err = running.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            running.kill()
            raise
    return subprocess.CompletedProcess(running.args, running.returncode, out, err)


def begin(
    home: Path, cluster: LocalKube, unit: str, runtime: str, *words: str, runs: str = "pod"
) -> subprocess.Popen[str]:
    """The same, which runs on."""
    settings(home, cluster, unit, runtime, runs)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VMRUNNER_", "XDG_"))}
    dirs = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("DATA", "STATE", "CACHE")}
    (home / "cwd").mkdir(exist_ok=True)
    return subprocess.Popen(
        [_VMRUNNER, "run", "--provider", "cluster", *words],
        env=kept | dirs | {"XDG_CONFIG_HOME": str(home / "config")},
        cwd=home / "cwd",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
