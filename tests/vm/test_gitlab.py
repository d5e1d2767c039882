"""Jobs of GitLab in real VMs, led as its runner leads them: one that succeeds, one that fails while
its runner dies, and one that is cancelled and then loses its VM."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.gitlab_runner import MASKED, SYSTEM_FAILURE, GitlabRunnerStandIn, RunnerDied
from tests.vm.home import Home, text, wait_until

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

CONFIG = """
[providers.local]
kind = "qemu"
[gitlab]
build = {{ network = "none", ttl = "{ttl}" }}
"""
SCRIPTS = {
    "prepare_script": 'echo "in bash ${BASH_VERSION%%.*} on $(uname -s)"',
    "get_sources": "mkdir -p /work/builds/app && cd /work/builds/app && git init -q && echo 6 >a",
    "build_script": f'cd /work/builds/app && echo $((7 * $(cat a))); echo "key {MASKED}" >&2',
    "after_script": "cat /work/builds/app/a",
}


class RealRunner(GitlabRunnerStandIn):
    """A runner whose programs are the real ones."""

    def __init__(self, home: Home) -> None:
        root = home.root / "runner"
        root.mkdir()
        super().__init__(root, self._call)
        self.home = home

    def _call(self, words: list[str], env: Mapping[str, str]) -> tuple[int, bytes]:
        program = self.home.start("gitlab", *words, **env, **self._own)
        out, err = program.communicate(timeout=400)
        return program.returncode, out + err

    @property
    def _own(self) -> dict[str, str]:
        return {"VMRUNNER_CONFIG": str(self.home.root / "config.toml")}

    def configure(self, ttl: str) -> None:
        (self.home.root / "config.toml").write_text(CONFIG.format(ttl=ttl))

    def begun(self, job: int, seconds: int) -> subprocess.Popen[bytes]:
        """A script of so many seconds that is under way."""
        script, log = self.root / "script", self.root / "log"
        script.write_text(f"echo began; sleep {seconds}")
        env = self.environment(job, {}) | self._own
        with log.open("wb") as file:
            words = ("gitlab", "run", str(script), "build_script")
            program = self.home.start(*words, stdout=file, stderr=file, **env)
        wait_until(lambda: b"began" in log.read_bytes(), seconds=120, what="the script")
        return program

    def dies(self, job: int) -> None:
        """Its host loses power, with a script under way: program and engine are killed."""
        program = self.begun(job, 600)
        program.kill()
        program.wait()
        engines = [line for line in self.home.processes() if "serve --until-idle" in line]
        assert engines
        for line in engines:
            os.kill(int(line.split()[0]), signal.SIGKILL)
        raise RunnerDied

    def build(self, job: int) -> dict[str, str]:
        (found,) = self.home.items("ps", "-a", "-l", f"gitlab.job={job}")
        return found


def test_jobs_have_a_vm_each_that_outlives_no_runner(home: Home) -> None:
    gitlab = RealRunner(home)
    gitlab.configure(ttl="20m")
    verdict = gitlab.lead(7, SCRIPTS)
    assert verdict.status == "success", text(verdict.trace)
    trace = text(verdict.trace)
    assert "in bash 5 on Linux\n" in trace
    assert "42\n" in trace
    wait_until(lambda: not home.open_vms(), seconds=120, what="the end of its VM")
    build = gitlab.build(7)
    assert (build["result"], build["reason"]) == ("success", "user")
    logged = text(home.run("logs", build["id"]).stdout)
    assert "42\n" in logged
    assert "key ***\n" in logged
    assert _files_with(home.data, MASKED.encode()) == []

    def before(stage: str) -> None:
        if stage == "after_script":
            gitlab.dies(8)

    gitlab.configure(ttl="1m")
    verdict = gitlab.lead(8, {**SCRIPTS, "build_script": "exit 99"}, before=before)
    assert (verdict.status, verdict.exit_code) == ("runner_died", 99), text(verdict.trace)
    assert len(home.items("vm", "ls")) == 1  # nobody ends it yet
    config = {"VMRUNNER_CONFIG": str(home.root / "config.toml")}
    done = home.run("serve", "--until-idle", timeout=300, **config)
    assert done.returncode == 0, text(done.stderr)
    build = gitlab.build(8)
    assert (build["result"], build["reason"]) == ("success", "deadline")
    assert len(home.instances()) == 2


def test_a_cancelled_script_ends_and_a_lost_vm_is_reported(home: Home) -> None:
    gitlab = RealRunner(home)
    gitlab.configure(ttl="20m")
    env = gitlab.environment(9, {})
    assert gitlab.call(["prepare"], env)[0] == 0
    program = gitlab.begun(9, 4242)
    program.send_signal(signal.SIGTERM)
    assert program.wait(60) == SYSTEM_FAILURE, "nobody calls it the script's failure"
    script = gitlab.root / "script"
    script.write_text("grep -aqs '424[2]' /proc/[0-9]*/cmdline && exit 3; echo quiet")
    code, out = gitlab.call(["run", str(script), "after_script"], env)
    assert (code, b"quiet" in out) == (0, True), "the script runs on beside it"
    program = gitlab.begun(9, 600)
    (vm,) = [line for line in home.processes() if " qemu-system" in line or "/qemu-system" in line]
    os.kill(int(vm.split()[0]), signal.SIGKILL)
    assert program.wait(120) == SYSTEM_FAILURE
    assert gitlab.call(["cleanup"], env)[0] == 0
    wait_until(lambda: not home.open_vms(), seconds=120, what="the end of its VM")
    assert gitlab.build(9)["reason"] == "vm_lost"


def _files_with(root: Path, secret: bytes) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and secret in path.read_bytes()]
