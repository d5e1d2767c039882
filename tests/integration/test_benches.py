"""Benches that run now and then: what they wrap of ours is still as they know it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_engines_bench_runs() -> None:
    command = [sys.executable, "-m", "bench.engine", "--builds", "4", "--at-once", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "lives" in done.stdout, done.stderr


def test_a_small_day_keeps_its_promises_twice_alike() -> None:
    """Some ninety builds on three nodes, with a node killed and the database restarted."""
    command = [
        sys.executable, "-m", "bench.day", "--hours", "0.012", "--pace", "100000", "--live", "100",
        "--nodes", "3", "--seed", "7",
    ]  # fmt: skip
    befell = []
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith("survivors=0 murders=0 doubles=0 forgotten=0\n")
        befell.append(done.stdout.partition("┏")[0])
    assert "1 killed nodes" in befell[0]
    assert "1 restarts of the database" in befell[0]
    assert befell[0] == befell[1]
