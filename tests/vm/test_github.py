"""A stand-in for GitHub's runner in a real VM: it finds its configuration in its environment, and
nobody finds it elsewhere."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.support.fake_github import TOKEN
from tests.support.github_server import served_github
from tests.vm.home import Home, text, wait_until

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

CONFIG = """
[providers.local]
kind = "qemu"
[github]
url = "{url}"
token = "GITHUB_RUNNERS"
[[github.scale_sets]]
name = "fast"
command = '''
cat >run.sh <<'EOF'
printf %s "$ACTIONS_RUNNER_INPUT_JITCONFIG" | sha256sum
echo "leaked: $ACTIONS_RUNNER_INPUT_JITCONFIG"
echo "up, $#"
while [ ! -e go ]; do sleep 0.2; done
EOF
exec sh ./run.sh
'''
build = {{ container = "debian:trixie", network = "none", timeout = "10m" }}
"""
#: In the VM, as root: command lines, what Docker shows, and what the VM was born with.
LOOK = (
    'cat /proc/[0-9]*/cmdline | tr "\\0" " "; docker inspect vmrunner-build; '
    "cat /var/lib/cloud/instance/user-data.txt 2>/dev/null; "
    "cat /dev/disk/by-label/CIDATA 2>/dev/null | head -c 200000"
)


def test_a_runners_configuration_is_in_its_environment_alone(home: Home) -> None:
    with served_github() as (github, url):
        config = home.root / "config.toml"
        config.write_text(CONFIG.format(url=url))
        env = {"VMRUNNER_CONFIG": str(config), "GITHUB_RUNNERS": TOKEN}
        with (home.root / "github.log").open("wb") as log:
            serve = home.start("github", "serve", stdout=log, stderr=log, **env)
            try:
                wait_until(lambda: github.sessions, seconds=120, what="a session")
                job = github.queue_job()
                wait_until(lambda: _running(home), seconds=400, what="the steps")
                (build,) = home.builds()
                wait_until(
                    lambda: b"up, 0" in home.run("logs", build["id"]).stdout,
                    seconds=60,
                    what="the runner",
                )
                (runner,) = github.runners.values()
                github.comes(runner.name)
                assert job.state == "running"
                seen = home.run("ssh", build["id"], "--", "sh", "-c", LOOK).stdout
                assert b"run.sh" in seen
                assert b'"Id"' in seen
                assert runner.config.encode() not in seen
                github.finish(job)  # its own job tells GitHub, before the runner leaves
                wait_until(lambda: not github.messages, seconds=60, what="the news")
                home.run("ssh", build["id"], "--container", "--", "touch", "/work/go")
                wait_until(lambda: not home.open_builds(), seconds=120, what="its end")
            finally:
                serve.send_signal(signal.SIGTERM)
                assert serve.wait(60) == 0
        out = text(home.run("logs", build["id"]).stdout)
        assert hashlib.sha256(runner.config.encode()).hexdigest() in out
        assert "leaked: ***" in out
        assert runner.config not in out
        assert _files_with(home.root, runner.config.encode()) == []
        assert home.builds()[0]["result"] == "success"


def _running(home: Home) -> bool:
    with contextlib.suppress(sqlite3.OperationalError):  # there is no ledger yet
        return bool(home.read("SELECT 1 FROM builds WHERE state = 'running'"))
    return False


def _files_with(root: Path, secret: bytes) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and secret in path.read_bytes()]
