"""A build's network is cut, then its engine dies, and another one goes on with it."""

from __future__ import annotations

import json
import re
from textwrap import dedent

import pytest

from tests.vm.home import Home, text, wait_until
from tests.vm.serving import Serving, in_vm, log_of, network_cut, row_of, submitted, times_lost
from tests.vm.serving import serving as serving  # the fixture

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

# It goes on talking while nobody listens, and says so in the middle of it.
BUILD = dedent(
    """
    n=0
    talk() { while [ ! -e $1 ]; do n=$((n+1)); echo "line $n"; sleep 0.05; done; rm $1; echo $1; }
    echo started | tee -a starts
    talk alone
    touch heard
    talk go
    exit 9
    """
)
LOG = re.compile(rb"started\n((?:line \d+\n)+)alone\n((?:line \d+\n)*)go\n")


def test_another_engine_takes_over_a_running_build_after_drain(
    home: Home, serving: Serving
) -> None:
    job = {"steps": [BUILD], "network": "none", "artifacts": [{"path": "starts", "always": True}]}
    (home.root / "cwd/vmrunner.yml").write_text(json.dumps({"version": 1, "jobs": {"job": job}}))
    build = submitted(home, "-f", "vmrunner.yml", "job")
    wait_until(lambda: b"line 20\n" in log_of(home, build), seconds=300, what="its 20th line")
    (vm,) = home.instances()

    with network_cut(home):
        wait_until(lambda: times_lost(home, build), seconds=120, what="the cut to be noticed")
    before = len(log_of(home, build))
    wait_until(lambda: len(log_of(home, build)) > before, seconds=120, what="more of its log")

    serving.kill()
    in_vm(home, build, "cd /work; touch alone; until [ -e heard ]; do sleep 0.1; done")
    assert b"alone" not in log_of(home, build), "nobody drives it"
    assert row_of(home, build)["state"] == "running"

    assert home.run("drain").returncode == 0
    serving.again()
    wait_until(lambda: b"alone\n" in log_of(home, build), seconds=60, what="the next engine")
    second = submitted(home, "--network", "none", "--", "true")
    in_vm(home, build, "touch /work/go")
    assert home.run("watch", build, timeout=120).returncode == 9

    log = LOG.fullmatch(log_of(home, build))
    assert log, text(log_of(home, build))
    lines = (log[1] + log[2]).splitlines()
    assert lines == [b"line %d" % n for n in range(1, len(lines) + 1)]
    artifact = home.run("artifacts", "get", build, "starts", "--to", "-")
    assert artifact.stdout == b"started\n", "its steps ran once"
    ended = row_of(home, build)
    assert (ended["result"], ended["reason"], ended["attempt"]) == ("failure", "exit_code", 1)
    assert [row["id"] for row in home.instances()] == [vm["id"]], "no other VM for anybody"
    wait_until(lambda: home.instances()[0]["state"] == "gone", seconds=60, what="its VM to be gone")

    assert row_of(home, second)["state"] == "queued", "launching is stopped"
    assert home.run("cancel", second).returncode == 0
    wait_until(lambda: row_of(home, second)["state"] == "finished", seconds=60, what="the cancel")
    assert home.run("drain", "--off").returncode == 0
    assert serving.end() == 0
