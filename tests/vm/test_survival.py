"""One build that talks at full speed, while its network is cut and its engine is killed, by turns.
For `make soak`; `test_take_over` has one cut and one kill."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from textwrap import dedent

import pytest

from tests.vm.home import Home, processes_with, wait_until
from tests.vm.serving import Serving, in_vm, log_of, network_cut, row_of, submitted, times_lost
from tests.vm.serving import serving as serving  # the fixture

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(3600)]

SECRET = "a-secret-that-is-long-enough-to-straddle-whatever-is-cut"
# A line in sixteen carries the secret; without the pauses it would be past its cap in no time.
BUILD = dedent(
    """
    echo started >>starts
    awk -v secret="$TOKEN" 'BEGIN {
        while (system("test -e stop && exit 1; sleep 0.3") == 0) {
            for (i = 0; i < 2000; i++) { n++; print n, n % 16 ? "" : secret }
            fflush()
        }
    }' | tee copy
    exit 9
    """
)


def test_cuts_and_kills_cost_no_byte_and_show_no_secret(
    home: Home, serving: Serving, request: pytest.FixtureRequest
) -> None:
    turns, seconds = (request.config.getoption(f"--survive-{name}") for name in ("turns", "cut"))
    wanted = [{"path": name, "always": True} for name in ("copy", "starts")]
    job = {
        "steps": [BUILD],
        "network": "none",
        "secrets": ["TOKEN"],
        "artifacts": wanted,
        "timeout": "1h",
        "ttl": "70m",
    }
    (home.root / "cwd/vmrunner.yml").write_text(json.dumps({"version": 1, "jobs": {"job": job}}))
    build = submitted(home, "-f", "vmrunner.yml", "job", "--secret", "TOKEN", TOKEN=SECRET)
    more_comes(home, build, seconds=300)
    for _ in range(turns):
        with network_cut(home):
            time.sleep(seconds)  # what is cut for so long
        more_comes(home, build)
        serving.kill()
        serving.again()
        more_comes(home, build)
    in_vm(home, build, "touch /work/stop")
    assert home.run("watch", build, timeout=300).returncode == 9

    copy = home.run("artifacts", "get", build, "copy", "--to", "-").stdout
    assert copy.count(SECRET.encode()) > turns
    assert log_of(home, build) == copy.replace(SECRET.encode(), b"***")
    assert home.run("artifacts", "get", build, "starts", "--to", "-").stdout == b"started\n"
    ended = row_of(home, build)
    assert (ended["result"], ended["reason"], ended["attempt"]) == ("failure", "exit_code", 1)
    assert len(home.instances()) == 1
    lost = times_lost(home, build)
    print(f"{len(copy)} bytes; {lost} times lost, {turns} times killed")
    assert lost >= turns
    assert serving.end() == 0
    assert places_of(SECRET, home.root) == []


def more_comes(home: Home, build: str, *, seconds: float = 120) -> None:
    before = len(log_of(home, build))
    wait_until(lambda: len(log_of(home, build)) > before, seconds=seconds, what="more of its log")


def places_of(secret: str, root: Path) -> list[str]:
    """Files that hold it in clear or encoded, and processes that show it. What the build itself
    put into an artifact is its own doing."""
    forms = [secret.encode(), base64.b64encode(secret.encode())[:-4]]
    found = [
        str(path)
        for path in root.rglob("*")
        if path.is_file()
        and "artifacts" not in path.parts
        and any(form in path.read_bytes() for form in forms)
    ]
    return found + list(processes_with([secret]))
