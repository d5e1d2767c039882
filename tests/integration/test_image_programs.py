"""What a builder has started ends with it, even when it is killed and nothing minds a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CHILD = """
from vmrunner.images.local.programs import ChildPrograms
stubborn = "trap '' TERM; (trap '' TERM; exec sleep 300) & echo $$ $!; wait"
say = lambda text: print(text, flush=True)
ChildPrograms().run(["sh", "-c", stubborn], what="x", timeout=300, line=say)
"""


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_killed_builder_leaves_no_program() -> None:
    builder = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    with builder:
        assert builder.stdout is not None
        pids = [int(pid) for pid in builder.stdout.readline().split()]
        assert len(pids) == 2
        os.kill(builder.pid, signal.SIGKILL)
    end = time.monotonic() + 30
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < end, f"{pids} still run"
        time.sleep(0.1)
