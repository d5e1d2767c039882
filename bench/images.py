"""How long a local image takes to make, stage by stage, beside what cannot be avoided.

    python bench/images.py [--recipe default] [--templates]

Each stage is measured in wall and CPU seconds, of an empty cache. Floors, in the same run:

- root and containers: the same packages fetched and unpacked once, by mmdebstrap, and nothing more
- disk: as many bytes as the file system has written, and read for its check
- image: as many bytes as the qcow2 has copied, and hashed
- a template (`--templates`): one boot of that image

Goal: 1.5×. Prints the table; exit 1 where the goal is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
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
    """Seconds of wall and of CPU."""

    wall: float
    cpu: float


def cpu() -> float:
    """CPU seconds of this process and of its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@contextmanager
def measured(to: dict[str, Cost], name: str) -> Iterator[None]:
    began, before = time.monotonic(), cpu()
    yield
    to[name] = Cost(time.monotonic() - began, cpu() - before)


def build(recipe: Recipe, cache: Path) -> tuple[dict[str, Cost], images.LocalImage]:
    """Costs of `roots` (the VM's root and containers, side by side), `disk` and `image`."""
    costs: dict[str, Cost] = {}
    since = [time.monotonic(), cpu()]

    def note(progress: Progress) -> None:
        stage = progress.stage if progress.stage in ("disk", "image") else "roots"
        if progress.fraction == 1.0:
            costs[stage] = Cost(time.monotonic() - since[0], cpu() - since[1])
        elif progress.fraction == 0.0 and stage != "roots" and not progress.message:
            since[:] = [time.monotonic(), cpu()]

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
    try:
        figures, image = build(recipe, cache)
        with measured(floors, "roots"):
            unpacked(recipe)
        with measured(floors, "disk"):
            copied(image.disk, place / "copy", then=len)
        with measured(floors, "image"):
            digest = hashlib.sha256()
            copied(image.disk, place / "copy", then=digest.update)
        if options.templates:
            boots(place, image, figures, floors)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return table(figures, floors)


def boots(
    place: Path, image: images.LocalImage, figures: dict[str, Cost], floors: dict[str, Cost]
) -> None:
    """A template by the command that users have, and one boot of the image until SSH answers."""
    from vmrunner.images.verification import trial_vm

    with measured(floors, "template"), trial_vm.vm(image, "auto"):
        pass
    environ = {**os.environ, "XDG_CACHE_HOME": str(place), "XDG_DATA_HOME": str(place / "data")}
    command = [str(Path(sys.executable).with_name("vmrunner")), "image", "template"]
    with measured(figures, "template"):
        subprocess.run(command, env=environ, check=True, cwd=place)


def summed(costs: dict[str, Cost]) -> Cost:
    return Cost(sum(c.wall for c in costs.values()), sum(c.cpu for c in costs.values()))


def table(figures: dict[str, Cost], floors: dict[str, Cost]) -> int:
    shown = Table("stage", "wall s", "CPU s", "floor: wall s", "CPU s", "ratio: wall", "CPU")
    total, least = {"all": summed(figures)}, {"all": summed(floors)}
    for name, cost in (figures | total).items():
        floor = (floors | least)[name]
        ratios = (cost.wall / floor.wall, cost.cpu / max(floor.cpu, 0.01))
        numbers = (cost.wall, cost.cpu, floor.wall, floor.cpu)
        shown.add_row(name, *(f"{n:.1f}" for n in numbers), *(f"{ratio:.2f}×" for ratio in ratios))
    Console().print(shown)
    missed = total["all"].wall > GOAL * least["all"].wall
    print(f"goal: {GOAL}× of the floor: {'missed' if missed else 'met'}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
