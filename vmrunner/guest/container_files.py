"""Files of ours that the container sees, at /vmrunner and /run/secrets."""

from __future__ import annotations

import base64
import os
import shlex
import shutil
from typing import Any

from .state import Place


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
