"""Builds that are large in one way each, in real VMs: a log of 1 GiB, a source of 1 GiB, 100,000
small files there and back. How long each phase took, and the peak memory of vmrunner.

    python bench/big.py [--mib 1024] [--files 100000]

Each is a `vmrunner run` in a process of its own, which is its own engine. The goals: time that
grows as the size does, memory that does not (within 16 MiB of a build that does nothing).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.vm.home import Home

MIB = 1 << 20
LINES = "[12345] compiling src/module.c: nothing to see here, move along please"


@dataclass(frozen=True)
class Ran:
    """One build: its phases in seconds, the peak memory in bytes, and its output's size."""

    phases: Mapping[str, float]
    peak: int
    size: int
    last: bytes


def ran(home: Home, *words: str) -> Ran:
    with (home.root / "out").open("wb") as out, (home.root / "err").open("wb") as err:
        process = home.start("run", "--network", "none", *words, stdout=out, stderr=err)
        peak = 0
        while process.poll() is None:
            peak = max(peak, high_water(process.pid))
            time.sleep(0.05)
    errors = (home.root / "err").read_text()
    if process.returncode:
        raise SystemExit(f"{words}: exit code {process.returncode}\n{errors}")
    build = errors.rpartition("build=")[2].strip()
    document = home.items("show", build)[0]
    phases = {phase["state"]: phase["seconds"] for phase in document["phases"]}
    with (home.root / "out").open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 200))
        return Ran(phases, peak, size, file.read())


def high_water(pid: int) -> int:
    """Peak resident memory in bytes; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 if "VmHWM:" in status else 0


def configure(home: Home, **limits: str) -> None:
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in limits.items())
    (home.root / "cwd/vmrunner.toml").write_text(f"[limits]\n{text}")


def printing(size: int) -> tuple[str, ...]:
    return ("--", "sh", "-c", f"yes '{LINES}' | head -c {size}")


def many(root: Path, count: int) -> Path:
    source = root / "many"
    for n in range(count):
        path = source / f"{n // 1000:03}" / f"{n}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"file {n}\n")
    return source


def one_large_file(root: Path, size: int) -> Path:
    source = root / "one"
    source.mkdir()
    with (source / "blob").open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    return source


class Rows(list[tuple[str, Ran]]):
    """Findings, printed as they come: the whole takes half an hour under emulation."""

    def append(self, row: tuple[str, Ran]) -> None:
        super().append(row)
        what, found = row
        print(f"{what}: {dict(found.phases)}, peak {found.peak / MIB:.1f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=100_000)
    options = parser.parse_args()
    whole, quarter = options.mib * MIB, options.mib * MIB // 4
    rows = Rows()
    with tempfile.TemporaryDirectory() as name:
        home = Home.make(Path(name) / "home")
        configure(home, log_bytes="4GiB", artifact_bytes="4GiB")
        rows.append(("nothing", ran(home, "--", "true")))
        for size in (quarter, whole):
            found = ran(home, *printing(size))
            assert found.size == size, (found.size, size)
            rows.append((f"log of {size // MIB} MiB", found))
        configure(home, log_bytes="64MiB", artifact_bytes="4GiB")
        found = ran(home, *printing(whole))
        print(f"capped at 64 MiB: {found.size} bytes, the last: {found.last[-120:]!r}")
        rows.append(("the same, cap of 64 MiB", found))
        back = ("-a", "**", "--artifacts-to", str(home.root / "back"), "--", "true")
        for size in (quarter, whole):
            source = one_large_file(home.root, size)
            found = ran(home, "--source", str(source), *back)
            rows.append((f"source of {size // MIB} MiB, there and back", found))
            subprocess.run(["rm", "-r", source, home.root / "back"], check=True)
        for count in (options.files // 4, options.files):
            source = many(home.root, count)
            found = ran(home, "--source", str(source), *back)
            rows.append((f"{count} small files, there and back", found))
            subprocess.run(["rm", "-r", source, home.root / "back"], check=True)
        home.assert_nothing_left()
    show(rows)


def show(rows: Rows) -> None:
    states = ("preparing", "running", "collecting")
    table = Table(title="one build each, in a real VM")
    for column in ("", *(f"{state}, s" for state in states), "peak MiB", "over nothing"):
        table.add_column(column, justify="right" if column else "left")
    base = rows[0][1].peak
    for what, found in rows:
        times = [f"{found.phases.get(state, 0.0):.1f}" for state in states]
        more = f"{(found.peak - base) / MIB:+.1f}"
        table.add_row(what, *times, f"{found.peak / MIB:.1f}", more)
    console = Console()
    console.print(table)
    console.print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
