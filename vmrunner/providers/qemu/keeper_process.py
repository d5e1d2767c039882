"""Starting a keeper, and hearing whether it holds the VM."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from vmrunner.errors import BadOrder, Uncertain
from vmrunner.providers.qemu import state_dir
from vmrunner.providers.qemu.processes import KEEPER

#: Seconds; more than the keeper gives the parts of a resume, and of the boot after one that failed.
_START_TIMEOUT: Final = 120.0
_KEPT: Final = ("PATH", "HOME", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "TMPDIR")


def start(instance_dir: state_dir.InstanceDir, mark: str) -> bool:
    """Start the VM that lies in `instance_dir`. False: another process did.

    Raises BadOrder when it could not start (its directory is removed then, a tombstone says why),
    `Uncertain` when no answer came."""
    if instance_dir.held or instance_dir.read(state_dir.KEEPER) is not None:
        return False
    answer = _run(instance_dir.path, mark)
    state, _, rest = answer.partition(" ")
    match state:
        case "running":
            return True
        case "held" | "dead":
            return False
        case "error":
            raise BadOrder(f"the VM did not start: {rest}", hint="vmrunner doctor")
        case _:
            if not instance_dir.path.exists():
                return False  # it was deleted meanwhile
            raise Uncertain(f"the keeper gave no answer: {answer or 'none'}")


def _run(directory: Path, mark: str) -> str:
    """The keeper's one line. Its environment is short: nothing of ours is the VM's business."""
    command = [sys.executable, "-P", "-m", KEEPER, str(directory), mark]
    with subprocess.Popen(
        command,
        env={name: os.environ[name] for name in _KEPT if name in os.environ},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        answer = b""
        until = time.monotonic() + _START_TIMEOUT
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        while not answer.endswith(b"\n"):
            remaining = until - time.monotonic()
            ready = poll.poll(max(0.0, remaining) * 1000)
            data = os.read(process.stdout.fileno(), 4096) if ready else b""
            if not data:
                break
            answer += data
    return answer.decode("utf-8", "replace").strip()
