"""Run code that nobody has read, without network, for at most a minute, and look at what it did.

.venv/bin/python examples/untrusted.py
"""

from __future__ import annotations

import sys

import vmrunner

CODE = """
import os, platform
print("a kernel of my own:", platform.release())
print("who am I:", os.getuid(), "in", os.getcwd())
open("answer.txt", "w").write(str(6 * 7))
"""

build = vmrunner.run(
    ["python3", "-c", CODE],
    container="debian:trixie",
    network="none",
    timeout="1m",
    artifacts=["answer.txt"],
    on_log=print,
    check=False,
)
print(f"{build.result}, exit code {build.exit_code}", file=sys.stderr)
for phase in build.phases:
    print(f"  {phase.state:<13}{phase.seconds(build.finished_at or 0):6.1f} s", file=sys.stderr)
sys.exit(build.exit_code or 0)
