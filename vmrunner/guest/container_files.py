"""Preparation of a container: Docker, firewall and spool, and the files of ours that it sees, at
/vmrunner and /run/secrets."""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import socket
from typing import TYPE_CHECKING, Any

from . import docker

if TYPE_CHECKING:
    from .state import Place


NO_METADATA = "metadata.nft"  # loaded before any step starts


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
    """Let dockerd start beside what comes first: it takes seconds."""
    try:
        with socket.socket(socket.AF_UNIX) as waking:
            waking.connect(docker.SOCKET)  # systemd listens there, and no program starts for it
    except OSError:
        run("systemctl", "start", "--no-block", "docker.service", check=False)


def run(*argv: str, check: bool = True) -> None:
    """A program that must succeed; its complaint is ours."""
    import subprocess

    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise OSError(f"{argv[0]}: {done.stderr.strip()}")


def fill_box(place: Place, job: dict[str, Any]) -> None:
    """Write all that the container sees: the driver, FIFOs, steps, environment, secrets."""
    secrets = {name: base64.b64decode(value) for name, value in job["secrets"].items()}
    plain = {name: value.encode() for name, value in job["env"].items()}
    files = {"env": exports({**plain, **secrets})}
    for number, step in enumerate(job["steps"]):
        env = {name: value.encode() for name, value in step["env"].items()}
        files[f"{number}.env"] = exports(env)
        files[f"{number}.sh"] = step["script"].encode()
    for name, data in files.items():
        with open(f"{place.box}/{name}", "wb") as file:
            file.write(data)
    for name, data in secrets.items():
        with open(f"{place.secrets}/{name}", "wb") as file:
            file.write(data)
    driver = f"{place.box}/driver.sh"
    if not os.path.exists(driver):  # a container that waits is reading it
        shutil.copyfile(os.path.join(os.path.dirname(__file__), "driver.sh"), driver)
    mask = os.umask(0)
    try:
        for name in ("log", "control", "answers"):
            if not os.path.exists(f"{place.box}/{name}"):
                os.mkfifo(f"{place.box}/{name}", 0o666)
    finally:
        os.umask(mask)


def exports(env: dict[str, bytes]) -> bytes:
    """Shell lines that set an environment, whatever bytes the values hold."""
    lines = []
    for name, value in env.items():
        quoted = b"'" + value.replace(b"'", b"'\\''") + b"'"
        lines.append(b"export " + shlex.quote(name).encode() + b"=" + quoted + b"\n")
    return b"".join(lines)
