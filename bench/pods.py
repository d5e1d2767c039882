"""Seconds until the first line of a build in a pod of the local Kubernetes, beside two floors.

    .venv/bin/python bench/pods.py [--rounds 7] [--serve] [--timeline]

One is `runc run` of the same image and one SSH connect: what any way of starting a container and
reaching it costs. The other is Kubernetes' own: `kubectl apply` of a pod of one container, `kubectl
wait --for=condition=Ready`, `kubectl exec … echo hello`, at the same local cluster. All take turns,
as root, with the images there. The build is one of `vmrunner run`, so its process is in it; the
time from its submission is told beside, in which it loads an engine of its own: with `--serve` the
engine is there. Its pod has three containers one after another (`lay`, then two). `--timeline`
tells of one build what came when.
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
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from vmrunner_localclouds.kube import LocalKube
from vmrunner_localclouds.kube.kinds import PODS
from vmrunner_localclouds.pods import Pods

from tests.support.kube_builds import settings
from tests.support.loopback_registry import SHELL, LoopbackRegistry, archive, programs
from tests.support.sshd import Sshd
from tests.support.unit_pods import unit_image
from vmrunner.session.ssh.client import Dialer

VMRUNNER: Final = Path(sys.prefix) / "bin/vmrunner"
GOAL: Final = 1.5


class Start(NamedTuple):
    """Seconds until the first line: of the whole program, from its build's submission, from the
    first call of its pod's birth."""

    program: float
    build: float
    birth: float


class Floor(NamedTuple):
    """Seconds of `runc run` and of one connection; of kubectl's three commands."""

    line: float
    connection: float
    kubectl: float


def build(
    place: Path,
    image: str,
    requested_at: list[float],
    heard: Callable[[str], None] = lambda _: None,
) -> Start:
    """`requested_at`: when Jobs were asked for. `heard` is called with each line of stderr."""
    words = ["run", "--provider", "cluster", "--container", image, "--", "echo", "hello"]
    began = time.monotonic()
    with subprocess.Popen(
        [VMRUNNER, *words],
        env=environment(place),
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        errors: list[str] = []

        def read(lines: Any) -> None:
            for line in lines:
                heard(line.decode().rstrip())
                errors.append(line.decode())

        reader = threading.Thread(target=read, args=(run.stderr,))
        reader.start()
        line = run.stdout.readline()
        ended = time.monotonic()
        heard("the first line")
        reader.join()
    text = "".join(errors)
    if line != b"hello\n" or run.returncode:
        raise SystemExit(f"vmrunner: {line!r}, exit {run.returncode}\n{text}")
    running = re.search(r"\[\s*([\d.]+)s\] running", text)
    assert running is not None
    return Start(ended - began, float(running[1]), ended - requested_at[-1])


def environment(place: Path) -> dict[str, str]:
    return os.environ | {f"XDG_{name}_HOME": str(place / name.lower()) for name in _HOMES}


_HOMES: Final = ("DATA", "STATE", "CACHE", "CONFIG")


@contextmanager
def served(place: Path) -> Iterator[None]:
    """An engine that is there."""
    with (place / "serve.log").open("wb") as log:
        words = [VMRUNNER, "serve"]
        server = subprocess.Popen(words, env=environment(place), cwd=place, stdout=log, stderr=log)
    try:
        yield
    finally:
        server.terminate()
        server.wait()


def floor(bundle: Path, sshd: Sshd, kubectl: Callable[[], float]) -> Floor:
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
    return Floor(line, connected, kubectl())


def by_hand(cluster: LocalKube, image: str, place: Path) -> Callable[[], float]:
    """A maker of one pod by kubectl, which tells the seconds until its command has said hello."""
    words = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), "--cache-dir", str(place)]
    container = {"name": "build", "image": image, "command": ["sleep", "600"]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "by-hand"},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }

    def run(*rest: str, text: str = "") -> str:
        done = subprocess.run([*words, *rest], input=text, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"kubectl {rest[0]}: {done.stderr}")
        return done.stdout

    def made() -> float:
        began = time.monotonic()
        run("apply", "-f", "-", text=json.dumps(pod))
        run("wait", "--for=condition=Ready", "pod/by-hand", "--timeout=60s")
        if run("exec", "by-hand", "--", "echo", "hello") != "hello\n":
            raise SystemExit("kubectl exec: no hello")
        seconds = time.monotonic() - began
        run("delete", "pod/by-hand", "--grace-period=0", "--force")
        run("wait", "--for=delete", "pod/by-hand", "--timeout=60s")
        return seconds

    return made


class _Stamped(list[Any]):
    """Requests of a cluster, each told as it comes. `requested_at`: when Jobs were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.note: Callable[[str], None] = lambda _: None
        self.requested_at: list[float] = []

    def append(self, request: Any) -> None:
        super().append(request)
        self.note(f"  API: {request.action}")
        if request.action == "jobs.create":
            self.requested_at.append(time.monotonic())


@contextmanager
def timeline(cluster: LocalKube, requests: _Stamped) -> Iterator[Callable[[str], None]]:
    """Print, at its end, what was noted and what the cluster saw: seconds since its begin."""
    began, marks = time.monotonic(), list[tuple[float, str]]()

    def note(text: str) -> None:
        marks.append((time.monotonic() - began, text))

    shown: dict[str, str] = {}

    def changed(change: Any) -> None:
        if change.kind is not PODS:
            return
        status = change.object.get("status") or {}
        for each in (
            *status.get("initContainerStatuses", ()),
            *status.get("containerStatuses", ()),
        ):
            state = f"{next(iter(each['state']))}{', started' if each.get('started') else ''}"
            if shown.get(each["name"]) != state:
                shown[each["name"]] = state
                note(f"    {each['name']}: {state}")

    requests.note = note
    cluster.store.listeners.append(changed)
    try:
        yield note
    finally:
        cluster.store.listeners.remove(changed)
        for at, text in sorted(marks):
            print(f"{at:7.3f}  {text}")


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
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--timeline", action="store_true")
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
                ExitStack() as within,
            ):
                layers = [programs(SHELL.split())]
                image = registry.push("build:1", archive(place / "b.tar", layers))
                unit = unit_image(registry, place)
                settings(place, cluster, unit, "runc")
                requests = cluster.requests = _Stamped()
                requested_at = requests.requested_at
                if options.serve:
                    within.enter_context(served(place))
                build(place, image, requested_at)  # it is there from now on
                if options.timeline:
                    with timeline(cluster, requests) as note:
                        build(place, image, requested_at, note)
                    return 0
                bundle = bundled(place / "bundle", pods.images.get(image).root)
                kubectl = by_hand(cluster, image, place / "kubectl")
                kubectl()
                pairs = [
                    (build(place, image, requested_at), floor(bundle, sshd, kubectl))
                    for _ in range(options.rounds)
                ]
        finally:
            sshd.stop()
    return report([start for start, _ in pairs], [least for _, least in pairs])


def report(starts: list[Start], floors: list[Floor]) -> int:
    load = os.getloadavg()[0]
    table = Table("", "median", "least", title=f"{len(starts)} pairs, load {load:.1f}")
    rows = {
        "submit → first line, pod": [start.build for start in starts],
        "… with the program's own start": [start.program for start in starts],
        "… from the first call of its birth": [start.birth for start in starts],
        "`runc run` → first line": [least.line for least in floors],
        "one SSH connect": [least.connection for least in floors],
        "kubectl apply, wait, exec": [least.kubectl for least in floors],
    }
    for title, seconds in rows.items():
        table.add_row(title, f"{statistics.median(seconds):.2f} s", f"{min(seconds):.2f} s")
    pairs = list(zip(starts, floors, strict=True))
    ratio = statistics.median(
        start.build / (least.line + least.connection) for start, least in pairs
    )
    cluster = statistics.median(start.birth / least.kubectl for start, least in pairs)
    Console().print(table)
    print(f"ratio {ratio:.1f}, goal {GOAL}; birth to kubectl {cluster:.2f}")
    return int(ratio > GOAL)


if __name__ == "__main__":
    sys.exit(main())
