"""How long a local image takes to make, stage by stage, beside what cannot be avoided.

    python bench/images.py [--recipe default] [--templates]

Each stage is measured in wall and CPU seconds, of an empty cache. Floors, in the same run:

- root and containers: the same packages fetched and unpacked once, by mmdebstrap, and nothing more
- disk: as many bytes as the file system has written, and read for its check
- image: as many bytes as the qcow2 has copied, and hashed
- a template (`--templates`): one boot of that image

Beside seconds, each has the bytes that it fetched over HTTP (by a proxy of the bench's own, whose
CPU does not count) and those that it wrote to a disk.

Goal: 1.5×. Prints the table, with the machine's load; exit 1 where the goal is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from vmrunner import images
from vmrunner.images import Progress, Recipe
from vmrunner.images import recipe as recipes
from vmrunner.images.local.programs import environment

GOAL: Final = 1.5
_BLOCK: Final = 1 << 20


@dataclass(frozen=True)
class Cost:
    """Seconds of wall and of CPU; MiB fetched and written."""

    wall: float
    cpu: float
    fetched: float
    written: float

    def since(self, before: Cost) -> Cost:
        return Cost(*(now - then for now, then in zip(self, before, strict=True)))

    def __iter__(self) -> Iterator[float]:
        return iter((self.wall, self.cpu, self.fetched, self.written))


class Counting(BaseHTTPRequestHandler):
    """A proxy for plain GET that counts the bytes of bodies."""

    counted = Path()  # a byte for each KiB

    def do_GET(self) -> None:
        names = ("If-Modified-Since", "Range", "If-Range", "User-Agent")
        headers = {name: value for name in names if (value := self.headers.get(name))}
        try:
            answer = urllib.request.urlopen(urllib.request.Request(self.path, headers=headers))
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            self.send_response(answer.status)
            for name in ("Content-Length", "Content-Type", "Last-Modified", "Content-Range"):
                if value := answer.headers.get(name):
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            while block := answer.read(_BLOCK):
                self.wfile.write(block)
                os.truncate(self.counted, self.counted.stat().st_size + len(block))

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def counting(place: Path) -> Iterator[None]:
    """A proxy in a process of its own, by which mmdebstrap fetches."""
    Counting.counted = place / "fetched"
    Counting.counted.touch()
    server = HTTPServer(("127.0.0.1", 0), Counting)
    if (pid := os.fork()) == 0:
        os.environ.pop("http_proxy", None)
        server.serve_forever()
    server.server_close()
    os.environ["http_proxy"] = f"http://127.0.0.1:{server.server_port}"
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def used() -> Cost:
    """What this process and its children that ended used until now."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Cost(
        time.monotonic(),
        sum(usage.ru_utime + usage.ru_stime for usage in both),
        Counting.counted.stat().st_size / _BLOCK,
        sum(usage.ru_oublock for usage in both) * 512 / _BLOCK,
    )


@contextmanager
def measured(to: dict[str, Cost], name: str) -> Iterator[None]:
    before = used()
    yield
    to[name] = used().since(before)


def build(recipe: Recipe, cache: Path) -> tuple[dict[str, Cost], images.LocalImage]:
    """Costs of `roots` (the VM's root and containers, side by side), `disk` and `image`."""
    costs: dict[str, Cost] = {}
    since = [used()]

    def note(progress: Progress) -> None:
        stage = progress.stage if progress.stage in ("disk", "image") else "roots"
        if progress.fraction == 1.0:
            costs[stage] = used().since(since[0])
        elif progress.fraction == 0.0 and stage != "roots" and not progress.message:
            since[:] = [used()]

    return costs, images.build(recipe, cache=cache, progress=note)


def unpacked(recipe: Recipe) -> None:
    """Fetch and unpack what roots are made of, side by side."""
    inputs = recipes.Inputs.read()
    wanted = [(recipe.suite, recipes.vm_packages(recipe, inputs))]
    wanted += [(c.suite, list(c.packages)) for c in recipe.containers if c.pull is None]

    def run(suite: str, packages: list[str]) -> None:
        argv = ["mmdebstrap", "--variant=extract", "--format=null", "--quiet", suite, "/dev/null"]
        essential = "--include=" + ",".join(["apt", *packages])
        subprocess.run([*argv[:1], essential, *argv[1:]], check=True, env=environment())

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(run, *root) for root in wanted]:
            done.result()


def copied(source: Path, to: Path, *, then: Callable[[bytes], object]) -> None:
    """Copy a file's bytes and pass each block on."""
    with source.open("rb") as old, to.open("wb") as new:
        while block := old.read(_BLOCK):
            new.write(block)
            then(block)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--templates", action="store_true", help="boots VMs")
    options = parser.parse_args()
    recipe = images.find(options.recipe)
    place = Path(tempfile.mkdtemp(prefix="images-", dir="/var/tmp"))
    cache = place / "vmrunner"
    cache.mkdir(mode=0o700)
    floors: dict[str, Cost] = {}
    loads = [os.getloadavg()[0]]
    try:
        with counting(place):
            figures, image = build(recipe, cache)
            loads.append(os.getloadavg()[0])
            with measured(floors, "roots"):
                unpacked(recipe)
            with measured(floors, "disk"):
                copied(image.disk, place / "copy", then=len)
            with measured(floors, "image"):
                digest = hashlib.sha256()
                copied(image.disk, place / "copy", then=digest.update)
            loads.append(os.getloadavg()[0])
            if options.templates:
                boots(place, image, figures, floors)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(f"load before, between and after: {', '.join(f'{load:.1f}' for load in loads)}")
    return table(figures, floors)


def boots(
    place: Path, image: images.LocalImage, figures: dict[str, Cost], floors: dict[str, Cost]
) -> None:
    """A template by the command that users have, and one boot of the image until SSH answers."""
    from vmrunner.images.verification import trial_vm

    with measured(floors, "template"), trial_vm.vm(image):
        pass
    environ = {**os.environ, "XDG_CACHE_HOME": str(place), "XDG_DATA_HOME": str(place / "data")}
    command = [str(Path(sys.executable).with_name("vmrunner")), "image", "template"]
    with measured(figures, "template"):
        subprocess.run(command, env=environ, check=True, cwd=place)


def summed(costs: dict[str, Cost]) -> Cost:
    return Cost(*map(sum, zip(*costs.values(), strict=True)))


def table(figures: dict[str, Cost], floors: dict[str, Cost]) -> int:
    columns = ("wall s", "CPU s", "MiB fetched", "written")
    shown = Table("stage", *(f"{name}: ours, floor, ratio" for name in columns))
    total, least = {"all": summed(figures)}, {"all": summed(floors)}
    for name, cost in (figures | total).items():
        floor = (floors | least)[name]
        shown.add_row(
            name,
            *(
                f"{ours:.1f}, {bare:.1f}" + (f", {ours / bare:.2f}×" if bare >= 1 else "")
                for ours, bare in zip(cost, floor, strict=True)
            ),
        )
    Console().print(shown)
    missed = total["all"].wall > GOAL * least["all"].wall
    print(f"goal: {GOAL}× of the floor: {'missed' if missed else 'met'}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
