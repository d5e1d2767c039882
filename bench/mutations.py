"""Planted bugs: each must make the named tests fail, or the tests prove less than they say.

    python bench/mutations.py [--sample N] [--jobs N] [WORD…]

Every bug (`planted*.py`) is a replacement of source text, applied alone in a copy of the tree.
Prints the table; exit 1 when a bug is not noticed, or when its text is no longer there. First the
named tests run without a bug, together, and alone where that failed: what fails anyway notices
nothing. Each job has a copy of its own; bugs of the same tests go to one job.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.planted import Bug

ROOT = Path(__file__).parents[1]
# Every file of planted bugs counts: a new one needs to be named nowhere.
BUGS: tuple[Bug, ...] = sum(
    (
        importlib.import_module(f"bench.{file.stem}").BUGS
        for file in sorted(Path(__file__).parent.glob("planted*.py"))
    ),
    (),
)

# A test that runs into its timeout notices a bug late, and says less of it than one that fails.
NOTICED = {"failed": "noticed", "hung": "noticed by a timeout"}


def copy_of(root: Path) -> Path:
    """The tree as it is, without what is made from it."""
    parts = ("bench", "cloud-init", "deploy", "docs", "localclouds", "packer", "tests", "vmrunner")
    for name in parts:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def pytest(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A run of pytest with these arguments in that tree."""
    command = [sys.executable, "-m", "pytest", "-q", "--timeout=120", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": f"{root}:{root}/localclouds"}
    return subprocess.run(
        [*command, *arguments], cwd=root, env=environment, capture_output=True, check=False
    )


def outcome(root: Path, tests: str) -> str:
    """The outcome of these tests in that tree, until the first that fails: "passed", "failed" or
    "hung" (it ran into its timeout)."""
    done = pytest(root, "-x", *tests.split())
    if done.returncode not in (0, 1):  # nothing ran: the name is wrong, or the code broken
        raise SystemExit(f"{tests}:\n{done.stdout.decode()[-2000:]}{done.stderr.decode()[-500:]}")
    if done.returncode == 0:
        return "passed"
    return "hung" if b"Timeout (>" in done.stdout or b"+ Timeout +" in done.stderr else "failed"


def verdict(root: Path, bug: Bug) -> str:
    path = root / bug.path
    text = path.read_text()
    if text.count(bug.old) != 1:
        return f"its text is there {text.count(bug.old)} times"
    sound = path.stat()
    path.write_text(text.replace(bug.old, bug.new))
    frozen, away = root / "vmrunner/ledger/compiled", root / "compiled"
    if path.parent == frozen.parent:  # else its statements stay as they are
        frozen.rename(away)
    try:
        return NOTICED.get(outcome(root, bug.tests), "NOT NOTICED")
    finally:
        if away.exists():
            away.rename(frozen)
        path.write_text(text)
        os.utime(path, ns=(sound.st_atime_ns, sound.st_mtime_ns))  # no byte code of the bug is used


def passing(root: Path, names: Iterable[str], jobs: int) -> frozenset[str]:
    """Those of these tests (files, or file::test) that pass in that tree, all run together."""
    plain = {name for name in names if " " not in name}
    done = pytest(root, f"-n{jobs}", "--dist=loadfile", "-rfE", *sorted(plain))
    if done.returncode not in (0, 1):
        raise SystemExit(done.stdout.decode()[-2000:])
    bad = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout.decode(), re.MULTILINE)
    return frozenset(name for name in plain if not any(test.startswith(name) for test in bad))


def verdicts(roots: queue.Queue[Path], sound_tests: frozenset[str], bugs: list[Bug]) -> list[str]:
    """The verdicts on bugs that the same tests must notice, in a copy of their own."""
    root, tests = roots.get(), bugs[0].tests
    try:
        sound = tests in sound_tests or outcome(root, tests) == "passed"
        results = [verdict(root, bug) if sound else "fails without it too" for bug in bugs]
    finally:
        roots.put(root)
    for bug, result in zip(bugs, results, strict=True):
        print(f"{result}: {bug.name}", file=sys.stderr)
    return results


def chosen(words: list[str], sample: int) -> list[Bug]:
    """Those with such a word in their name; of them so many, from all over the list."""
    bugs = [bug for bug in BUGS if not words or any(word in bug.name for word in words)]
    return bugs[:: max(1, len(bugs) // sample)][:sample] if sample else bugs


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=0, help="so many of them")
    parser.add_argument("--jobs", type=int, default=2, help="so many at a time")
    parser.add_argument("words", nargs="*", help="of their names")
    options = parser.parse_args(arguments)
    console = Console(width=150)
    table = Table("planted bug", "in", "tests that must fail", "")
    bugs = chosen(options.words, options.sample)
    by_tests: dict[str, list[Bug]] = {}
    for bug in bugs:
        by_tests.setdefault(bug.tests, []).append(bug)
    fast = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(
            prefix="vmrunner-mutations-", dir=fast if fast.is_dir() else None
        ) as name,
        ThreadPoolExecutor(options.jobs) as jobs,
    ):
        roots: queue.Queue[Path] = queue.Queue()
        for job in range(options.jobs):
            roots.put(copy_of(Path(name) / str(job)))
        sound_tests = passing(roots.queue[0], by_tests, options.jobs)
        judge = functools.partial(verdicts, roots, sound_tests)
        results = list(jobs.map(judge, by_tests.values()))
    for same, outcomes in zip(by_tests.values(), results, strict=True):
        for bug, result in zip(same, outcomes, strict=True):
            table.add_row(bug.name, bug.file, bug.tests.removeprefix("tests/"), result)
    verdict_of = [result for outcomes in results for result in outcomes]
    noticed = sum(result in NOTICED.values() for result in verdict_of)
    console.print(table)
    hung = verdict_of.count(NOTICED["hung"])
    print(f"noticed {noticed} of {len(bugs)} planted bugs, {hung} of them by a timeout alone")
    return int(noticed != len(bugs))


if __name__ == "__main__":
    raise SystemExit(main())
