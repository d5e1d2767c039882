"""A host that has no more of something: what is past its deadline dies all the same, no build is
lost, and all goes on once there is more again. Each limit is the system's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.limited_host import BUILDS

NOBODY = 64_000  # a user of its own, so that nobody else's threads count
MOUNT = 'mount -t tmpfs -o size=16m disk "$1" && shift && exec "$@"'


def as_another_user(directory: Path) -> list[str]:
    """Root may have as many threads as it likes. Who is not root is counted anew in a namespace."""
    if os.geteuid():
        return ["unshare", "--user"]
    user = NOBODY + os.getpid() % 1000
    os.chown(directory, user, user)
    return ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"]


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that another user may get to."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.mark.parametrize("thing", ["threads", "files", "memory", "disk", "connections"])
def test_a_host_out_of_something_goes_on_killing(thing: str, home: Path) -> None:
    words = [sys.executable, "-B", "-m", "tests.support.limited_host", thing, str(home / "data")]
    if thing == "threads":
        words = [*as_another_user(home), *words]
    if thing == "disk":
        words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh",
                 str(home), *words]  # fmt: skip
    if thing == "connections":
        with postgres.running(connections=20) as server:
            done = run([*words, server.new()])
    else:
        done = run(words)
    assert done.pop("troubles")
    assert done == {
        "bitten": True,
        "killed": True,
        "killed again": True,
        "running": True,
        "finished": True,
        "results": {"success": BUILDS},
        "gone": True,
        "alive": 0,
        "stopped": True,
    }


def run(words: list[str]) -> dict[str, object]:
    ended = subprocess.run(
        words, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2]
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    answer: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
    return answer
