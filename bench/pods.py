"""Seconds until the first line of a build in a pod of the local Kubernetes, beside `runc run` of
the same image and one SSH connect: what any way of starting a container and reaching it costs.

    .venv/bin/python bench/pods.py [--rounds 7]

Both take turns, as root, with the image there. The build is one of `vmrunner run`, so its process
is in it; the time from its submission is told beside. The pod has three containers one after
another (`lay`, then two), and a probe that looks each second.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from vmrunner_localclouds.kube import LocalKube
from vmrunner_localclouds.pods import Pods

from tests.support.kube_builds import settings
from tests.support.loopback_registry import SHELL, LoopbackRegistry, archive, programs
from tests.support.sshd import Sshd
from tests.support.unit_pods import unit_image
from vmrunner.session.ssh.client import Dialer

VMRUNNER: Final = Path(sys.prefix) / "bin/vmrunner"
GOAL: Final = 1.5


class Start(NamedTuple):
    """Seconds until the first line: of the whole program, and from its build's submission."""

    program: float
    build: float


def build(place: Path, image: str) -> Start:
    env = os.environ | {f"XDG_{name}_HOME": str(place / name.lower()) for name in _HOMES}
    words = ["run", "--provider", "cluster", "--container", image, "--", "echo", "hello"]
    began = time.monotonic()
    with subprocess.Popen(
        [VMRUNNER, *words], env=env, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        line = run.stdout.readline()
        seconds = time.monotonic() - began
        errors = run.stderr.read().decode()
    if line != b"hello\n" or run.returncode:
        raise SystemExit(f"vmrunner: {line!r}, exit {run.returncode}\n{errors}")
    running = re.search(r"\[\s*([\d.]+)s\] running", errors)
    assert running is not None
    return Start(seconds, float(running[1]))


_HOMES: Final = ("DATA", "STATE", "CACHE", "CONFIG")


def floor(bundle: Path, sshd: Sshd) -> tuple[float, float]:
    """Seconds until a container's first line, and of one connection."""
    began = time.monotonic()
    with subprocess.Popen(
        ["runc", "run", "--bundle", str(bundle), f"floor-{os.getpid()}"], stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        if run.stdout.readline() != b"hello\n":
            raise SystemExit("runc run: no hello")
        line = time.monotonic() - began
    began = time.monotonic()
    connection = Dialer(sshd.access, user=sshd.user).connect(sshd.address, timeout=30)
    connected = time.monotonic() - began
    connection.close()
    return line, connected


def bundled(place: Path, root: Path) -> Path:
    """A bundle of runc's own default, whose command says hello."""
    place.mkdir()
    subprocess.run(["runc", "spec"], cwd=place, check=True)
    config = json.loads((place / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/sh", "-c", "echo hello"]}
    config["root"] = {"path": str(root), "readonly": True}
    (place / "config.json").write_text(json.dumps(config))
    return place


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="vmrunner-pods-") as name:
        place = Path(name)
        (place / "sshd").mkdir()
        (place / "registry").mkdir()
        sshd = Sshd(place / "sshd")
        try:
            with (
                LoopbackRegistry(place / "registry") as registry,
                Pods(place / "pods") as pods,
                LocalKube(pods=pods) as cluster,
            ):
                layers = [programs(SHELL.split())]
                image = registry.push("build:1", archive(place / "b.tar", layers))
                unit = unit_image(registry, place)
                settings(place, cluster, unit, "runc")
                build(place, image)  # it is there from now on
                bundle = bundled(place / "bundle", pods.images.get(image).root)
                pairs = [(build(place, image), floor(bundle, sshd)) for _ in range(options.rounds)]
        finally:
            sshd.stop()
    return report([start for start, _ in pairs], [least for _, least in pairs])


def report(starts: list[Start], floors: list[tuple[float, float]]) -> int:
    load = os.getloadavg()[0]
    table = Table("", "median", "least", title=f"{len(starts)} pairs, load {load:.1f}")
    rows = {
        "submit → first line, pod": [start.build for start in starts],
        "… with the program's own start": [start.program for start in starts],
        "`runc run` → first line": [line for line, _ in floors],
        "one SSH connect": [connected for _, connected in floors],
    }
    for title, seconds in rows.items():
        table.add_row(title, f"{statistics.median(seconds):.2f} s", f"{min(seconds):.2f} s")
    ratio = statistics.median(
        start.build / sum(least) for start, least in zip(starts, floors, strict=True)
    )
    Console().print(table)
    print(f"ratio {ratio:.1f}, goal {GOAL}")
    return int(ratio > GOAL)


if __name__ == "__main__":
    sys.exit(main())
