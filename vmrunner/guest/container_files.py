"""The files of ours that a container sees, at /vmrunner and /run/secrets."""

from __future__ import annotations

import base64
import os
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .state import Place


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
        place.put(name, data)
    for name, data in secrets.items():
        with open(f"{place.secrets}/{name}", "wb") as file:
            file.write(data)
    if not place.has("driver.sh"):  # a container that waits is reading it
        place.put("driver.sh", own("driver.sh"))
    mask = os.umask(0)
    try:
        for name in ("log", "control", "answers"):
            place.make_fifo(name)
    finally:
        os.umask(mask)


def own(name: str) -> bytes:
    """A file that lies beside this one."""
    with open(os.path.join(os.path.dirname(__file__), name), "rb") as file:
        return file.read()


def exports(env: dict[str, bytes]) -> bytes:
    """Shell lines that set an environment, whatever bytes the values hold."""
    lines = []
    for name, value in env.items():
        quoted = b"'" + value.replace(b"'", b"'\\''") + b"'"
        lines.append(b"export " + shlex.quote(name).encode() + b"=" + quoted + b"\n")
    return b"".join(lines)
