"""The fixed seed that every change must pass; `bench/faults.py` plays the hundred thousand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_two_thousand_builds_in_a_hostile_world() -> None:
    command = [sys.executable, "bench/faults.py", "--builds", "2000", "--seed", "20261125"]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert played.returncode == 0, played.stdout[-3000:] + played.stderr[-3000:]
    last = played.stdout.splitlines()[-1]
    assert last == "survivors=0 murders=0 doubles=0 forgotten=0"
