"""Benches that run now and then: what they wrap of ours is still as they know it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_engines_bench_runs() -> None:
    command = [sys.executable, "-m", "bench.engine", "--builds", "4", "--at-once", "4"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "lives" in told.stdout, told.stderr
