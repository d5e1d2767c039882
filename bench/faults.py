"""Builds in a hostile world: crashes, lost answers, dead guests, wrong clocks, failing stores.

    python bench/faults.py --builds 100000 --seed 1 [--state FILE] [--episode N] [--cloud DRIVER]

Each episode is a world of its own (`tests/faults/world.py`): the real ledger on SQLite, engine and
reaper, against the fake cloud and played sessions, on a virtual clock and with the numbers of
production (a pass over the ledger every 30 s, a sweep every 300 s, G = 60 s). All promises are
checked at every step. Prints how long what passed its deadline lived on, and as its last line
`survivors=0 murders=0 doubles=0 forgotten=0`; exit 1 unless all are 0. `--state` makes it
resumable; an episode is a function of the seed and its number, so `--episode` shows one again.
`--cloud` plays over HTTP against that local cloud, with the real driver: `kubernetes` has VMs,
`pods` pods.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.faults.azure_side import AzureSide
from tests.faults.broken import Broken
from tests.faults.chaos import EACH, Episode
from tests.faults.ec2_side import Ec2Side
from tests.faults.gce_side import GceSide
from tests.faults.http_chaos import HttpEpisode
from tests.faults.http_side import HttpSide
from tests.faults.kube_side import KubeSide, PodSide
from tests.faults.world import make_template

#: What a broken promise counts as.
KINDS = {"1": "survivors", "2": "murders", "3": "doubles"}
NAMES = ("survivors", "murders", "doubles", "forgotten")
BOUNDS = (5, 10, 20, 30, 45, 60)
SIDES = {side.driver: side for side in (Ec2Side, GceSide, AzureSide, KubeSide, PodSide)}


@dataclass
class Tally:
    """The findings of all episodes so far."""

    seed: int
    episodes: int = 0
    builds: int = 0
    cpu: float = 0.0
    broken: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    episodes_broken: list[int] = field(default_factory=list)
    overruns: dict[str, int] = field(default_factory=dict)  # seconds past E → VMs
    happened: dict[str, int] = field(default_factory=dict)

    def add(self, other: Counter[str], overruns: Counter[int]) -> None:
        for name, count in other.items():
            self.happened[name] = self.happened.get(name, 0) + count
        for seconds, count in overruns.items():
            key = str(seconds)
            self.overruns[key] = self.overruns.get(key, 0) + count

    def save(self, path: Path) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self)))
        fresh.replace(path)


class FailingOver(Episode):
    """Its ledger's server fails over."""

    failovers = 1.0


class Hosted(Episode):
    """It has hosts with local VMs."""

    forges = failovers = 0.0
    hosts = 1.0


def over_http(side: type[HttpSide], template: Path, root: Path, seed: str, builds: int) -> Episode:
    """An episode at a local cloud."""
    return HttpEpisode(template, root, seed, builds, side)


def play(
    tally: Tally,
    template: Path,
    number: int,
    builds: int,
    kind: Callable[[Path, Path, str, int], Episode] = Episode,
) -> None:
    """One episode, into the tally."""
    root = Path(tempfile.mkdtemp(prefix="episode-", dir=template.parent))
    began = time.process_time()
    episode = kind(template, root, f"{tally.seed}:{number}", builds)
    try:
        episode.play()
    except Broken as error:
        kind = KINDS.get(str(error)[:1], "forgotten")
        tally.broken[kind] += 1
        tally.episodes_broken.append(number)
        print(f"episode {number}: {error}", file=sys.stderr)
    except Exception:  # noqa: BLE001 - it counts, and the others are played
        tally.broken["forgotten"] += 1
        tally.episodes_broken.append(number)
        print(f"episode {number}:", file=sys.stderr)
        traceback.print_exc()
    finally:
        episode.world.close()
        shutil.rmtree(root)
    tally.episodes = number + 1
    tally.builds += builds
    tally.cpu += time.process_time() - began
    tally.add(episode.happened, Counter(int(s) for s in episode.world.overrun.values()))


def report(tally: Tally, console: Console) -> None:
    """The distribution, what happened, and the verdict as the last line."""
    overruns = sorted((int(s), n) for s, n in tally.overruns.items())
    count = sum(n for _, n in overruns)
    happened = ", ".join(f"{n} {name}" for name, n in sorted(tally.happened.items()))
    console.print(f"{tally.builds} builds in {tally.episodes} episodes, seed {tally.seed}")
    console.print(f"what befell them: {happened}", soft_wrap=True)
    console.print(f"VMs that reached their deadline: {count}")
    if count:
        low = 0
        for high in (*BOUNDS, 1 << 62):
            inside = sum(n for s, n in overruns if low <= s < high)
            label = f"{low:3}–{high} s" if high in BOUNDS else f"over {low} s"
            console.print(f"  alive {label:<10} past it  {inside:7}  {100 * inside / count:5.1f} %")
            low = high
        for share in (0.5, 0.9, 0.99, 0.999):
            console.print(f"  {100 * share:g} % within {_quantile(overruns, share * count)} s")
        console.print(f"  the longest: {overruns[-1][0]} s")
    rate = tally.builds / tally.cpu if tally.cpu else 0.0
    console.print(f"{tally.cpu:.0f} CPU-seconds, {rate:.1f} builds per CPU-second")
    if tally.episodes_broken:
        console.print(f"broken episodes: {tally.episodes_broken[:50]}")
    print(" ".join(f"{name}={tally.broken[name]}" for name in NAMES), flush=True)


def _quantile(overruns: list[tuple[int, int]], rank: float) -> int:
    seen = 0
    for seconds, count in overruns:
        seen += count
        if seen >= rank:
            return seconds
    return overruns[-1][0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--builds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", type=Path, help="go on from this file, and keep it up to date")
    parser.add_argument("--episode", type=int, help="only this one, with what the engine logs")
    parser.add_argument("--failovers", action="store_true", help="of the ledger, in every episode")
    parser.add_argument("--hosts", action="store_true", help="with local VMs, in every episode")
    parser.add_argument("--cloud", choices=SIDES, help="over HTTP, against this local cloud")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long")
    chosen = parser.parse_args(arguments)
    console = Console(soft_wrap=True)
    tally = Tally(chosen.seed)
    kind: Callable[[Path, Path, str, int], Episode] = (
        FailingOver if chosen.failovers else Hosted if chosen.hosts else Episode
    )
    if chosen.cloud:
        kind = partial(over_http, SIDES[chosen.cloud])
    if chosen.state and chosen.state.exists():
        tally = Tally(**json.loads(chosen.state.read_text()))
        if tally.seed != chosen.seed:
            parser.error(f"{chosen.state} was made with --seed {tally.seed}")
    if chosen.episode is None:
        logging.getLogger("vmrunner").setLevel(logging.CRITICAL + 1)
    fast = Path("/dev/shm")
    end = time.monotonic() + 60 * chosen.minutes
    with (
        tempfile.TemporaryDirectory(
            prefix="vmrunner-faults-", dir=fast if fast.is_dir() else None
        ) as name,
        Progress(
            TextColumn("fault-injected builds"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        ) as progress,
    ):
        template = make_template(Path(name) / "template")
        if chosen.episode is not None:
            play(tally, template, chosen.episode, EACH, kind)
        else:
            bar = progress.add_task("", total=chosen.builds, completed=tally.builds)
            while tally.builds < chosen.builds and time.monotonic() < end:
                builds = min(EACH, chosen.builds - tally.builds)
                play(tally, template, tally.episodes, builds, kind)
                progress.update(bar, completed=tally.builds)
                if chosen.state:
                    tally.save(chosen.state)
    report(tally, console)
    return int(any(tally.broken.values()))


if __name__ == "__main__":
    raise SystemExit(main())
