"""Preparation of this VM for a container: Docker, firewall and spool."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

from . import docker
from .state import Place

# Loaded before any step starts.
NO_METADATA = "metadata.nft"


def lay_out(place: Place, job: dict[str, Any], work: str) -> None:
    """Prepare what a container of this shape needs, whatever is to run in it."""
    wake_docker()
    run("nft", "-f", os.path.join(os.path.dirname(__file__), NO_METADATA))
    os.makedirs(work, 0o755, exist_ok=True)
    size = int(str(job["log_bytes"])) + (4 << 20)
    if not os.path.ismount(place.spool):
        run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "vmrunner", place.spool)
    if job["runtime"] != "runc" and not os.path.ismount(place.shown):
        run("mount", "-o", "bind,ro", place.box, place.shown)


def wake_docker() -> None:
    """dockerd takes seconds to start: let it do so beside what comes first."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as asking:
        asking.connect(docker.SOCKET)  # systemd listens there, and no program starts for it
        return
    run("systemctl", "start", "--no-block", "docker.service", check=False)


def run(*argv: str, check: bool = True) -> None:
    """A program that must succeed; its complaint is ours."""
    import subprocess

    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise OSError(f"{argv[0]}: {done.stderr.strip()}")
