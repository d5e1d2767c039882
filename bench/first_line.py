"""Seconds until the first line of a build, in a vmrunner with a ledger of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

VMRUNNER = Path(sys.prefix) / "bin" / "vmrunner"


def first_line(place: Path, *options: str, templates: bool) -> float:
    """`place`: an empty directory of its own; `templates`: may it start from one?"""
    env = os.environ | {
        "XDG_DATA_HOME": str(place / "data"),
        "XDG_CONFIG_HOME": str(place / "config"),
        "VMRUNNER_PROVIDERS__LOCAL__TEMPLATES": str(templates).lower(),
    }
    argv = [VMRUNNER, "run", "--network", "none", *options, "--", "echo", "hello"]
    began = time.monotonic()
    with subprocess.Popen(
        argv, env=env, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        line = run.stdout.readline()
        seconds = time.monotonic() - began
        errors = run.stderr.read().decode()
    if line != b"hello\n" or run.returncode:
        raise SystemExit(f"vmrunner: {line!r}, exit {run.returncode}\n{errors}")
    return seconds
