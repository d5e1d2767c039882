"""A job as GitLab Runner leads it through a custom executor, written after its documentation
(docs.gitlab.com/runner/executors/custom): which program is called when, with what in its
environment, how often, and what its exit code means."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUILD_FAILURE, SYSTEM_FAILURE = 41, 42  # it may be any: drivers are to read the variables
CONFIG_TRIES = 3
PREPARE_TRIES = 3
BEFORE = ("prepare_script", "get_sources", "restore_cache", "download_artifacts")
WELL = ("archive_cache", "upload_artifacts_on_success")
BADLY = ("archive_cache_on_failure", "upload_artifacts_on_failure")
SERVER = "https://gitlab.example.org"
MASKED = "hunter2-hunter2"  # the value of a variable that GitLab masks in its log

#: Calls `vmrunner gitlab WORDS` with this environment; its exit code and output.
Call = Callable[[list[str], Mapping[str, str]], tuple[int, bytes]]


class RunnerDied(Exception):
    """The runner's host lost power: nothing more is called."""


@dataclass
class Verdict:
    """`status`: success, script_failure, runner_system_failure."""

    status: str = "success"
    exit_code: int | None = None
    trace: bytes = b""
    stages: list[str] = field(default_factory=list)


class GitlabRunnerStandIn:
    """Leads jobs. `scripts` of a job are by stage; a stage without one does nothing."""

    def __init__(self, root: Path, call: Call) -> None:
        self.root = root
        self.call = call

    def environment(self, job: int, variables: Mapping[str, str], **answer: Any) -> dict[str, str]:
        place = self.root / f"job-{job}"
        place.mkdir(exist_ok=True)
        response = place / "response.json"
        repository = f"https://gitlab-ci-token:secret@{SERVER.partition('://')[2]}/acme/app.git"
        response.write_text(
            json.dumps(
                {
                    "id": job,
                    "token": "jobT0ken",
                    "git_info": {"repo_url": repository},
                    "runner_info": {"timeout": 1800},
                    "variables": [
                        {"key": "CI", "value": "true", "masked": False},
                        {"key": "DEPLOY_KEY", "value": MASKED, "masked": True},
                    ],
                    **answer,
                }
            )
        )
        predefined = {
            "CI_SERVER_URL": SERVER,
            "CI_JOB_ID": str(job),
            "CI_PROJECT_PATH": "acme/app",
            "CI_JOB_TOKEN": "jobT0ken",
            "CI_JOB_IMAGE": "debian:trixie",
            **variables,
        }
        return {
            "BUILD_FAILURE_EXIT_CODE": str(BUILD_FAILURE),
            "SYSTEM_FAILURE_EXIT_CODE": str(SYSTEM_FAILURE),
            "BUILD_EXIT_CODE_FILE": str(place / "exit_code"),
            "JOB_RESPONSE_FILE": str(response),
            "TMPDIR": str(place),
            **{f"CUSTOM_ENV_{name}": value for name, value in predefined.items()},
        }

    def lead(
        self,
        job: int,
        scripts: Mapping[str, str],
        *,
        variables: Mapping[str, str] | None = None,
        before: Callable[[str], None] = lambda _: None,
        **answer: Any,
    ) -> Verdict:
        """`before` is told each stage before it is begun, and may raise RunnerDied."""
        verdict = Verdict()
        env = self.environment(job, variables or {}, **answer)
        try:
            self._prepare(env, verdict, before)
            self._stages(env, scripts, verdict, before)
        except _SystemFailure:
            verdict.status = "runner_system_failure"
        except RunnerDied:
            verdict.status = "runner_died"
            return verdict
        before("cleanup")
        verdict.stages.append("cleanup")
        self.call(["cleanup"], env)  # whatever it says
        return verdict

    def _prepare(
        self, env: dict[str, str], verdict: Verdict, before: Callable[[str], None]
    ) -> None:
        for _ in range(CONFIG_TRIES):
            code, out = self.call(["config"], env)
            try:
                config = json.loads(out.splitlines()[0]) if code == 0 else None
            except (ValueError, IndexError):
                config = None
            if config is not None:
                break
        else:
            raise _SystemFailure
        assert isinstance(config["builds_dir"], str)
        env.update({key: str(value) for key, value in config.get("job_env", {}).items()})
        for _ in range(PREPARE_TRIES):  # 3 s apart, there
            before("prepare")
            verdict.stages.append("prepare")
            code, out = self.call(["prepare"], env)
            verdict.trace += out
            if code == 0:
                return
            if code != SYSTEM_FAILURE:
                raise AssertionError(f"prepare left with {code}, which the runner does not know")
        raise _SystemFailure

    def _stages(
        self,
        env: dict[str, str],
        scripts: Mapping[str, str],
        verdict: Verdict,
        before: Callable[[str], None],
    ) -> None:
        well = True
        for stage in BEFORE:
            well = well and self._run(env, stage, scripts, verdict, before)
        if well:
            well = self._run(env, "build_script", scripts, verdict, before)
            self._run(env, "after_script", scripts, Verdict(), before)
        for stage in (*(WELL if well else BADLY), "cleanup_file_variables"):
            self._run(env, stage, scripts, Verdict(), before)

    def _run(
        self,
        env: dict[str, str],
        stage: str,
        scripts: Mapping[str, str],
        verdict: Verdict,
        before: Callable[[str], None],
    ) -> bool:
        if stage not in scripts:
            return True
        tries = int(env.get(f"CUSTOM_ENV_{stage.upper()}_ATTEMPTS", "1"))
        script = Path(env["TMPDIR"]) / "script.sh"
        script.write_text(scripts[stage])
        code_file = Path(env["BUILD_EXIT_CODE_FILE"])
        for _ in range(tries):
            before(stage)
            code_file.unlink(missing_ok=True)
            verdict.stages.append(stage)
            code, out = self.call(["run", str(script), stage], env)
            verdict.trace += out
            if code == 0:
                return True
            if code == BUILD_FAILURE:
                verdict.status = "script_failure"
                verdict.exit_code = int(code_file.read_text()) if code_file.exists() else 1
                return False
            if code != SYSTEM_FAILURE:
                raise AssertionError(f"{stage} left with {code}, which the runner does not know")
        raise _SystemFailure


class _SystemFailure(Exception):
    """The runner's fault, which it may try again."""


def cancelled(
    command: list[str], env: Mapping[str, str], *, until: Callable[[], object], grace: float
) -> int:
    """Call a program, and cancel it as a runner does: SIGTERM to its group, then SIGKILL after
    `grace` seconds, which are 600 unless `graceful_kill_timeout` says otherwise. Returns what it
    left with."""
    program = subprocess.Popen(command, env={**os.environ, **env}, start_new_session=True)
    try:
        until()
        os.killpg(program.pid, signal.SIGTERM)
        try:
            return program.wait(grace)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            return program.wait(10)
    finally:
        program.kill()
        program.wait()
