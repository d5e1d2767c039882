"""The programs of a custom executor of GitLab Runner, led as the runner leads them: over a real
ledger and a cloud in a file, with sandboxes that are directories."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import gitlab_app
from tests.support.blackbox import CONFIG, ROOT, data_of, until
from tests.support.command_line import isolated
from tests.support.file_cloud import FileCloud
from tests.support.gitlab_runner import (
    MASKED,
    SYSTEM_FAILURE,
    GitlabRunnerStandIn,
    RunnerDied,
    cancelled,
)
from vmrunner.api.local_service import LocalService
from vmrunner.cli import main
from vmrunner.errors import ConfigError
from vmrunner.integrations.gitlab import executor
from vmrunner.integrations.gitlab import job as jobs
from vmrunner.ledger import Ledger
from vmrunner.lib import units
from vmrunner.model import BuildRecord, Reason

SCRIPTS = {
    "prepare_script": "echo on $(hostname)",
    "get_sources": "mkdir -p builds && echo code >builds/a",
    "build_script": "echo $ cat >&2; cat builds/a; echo err >&2",
    "after_script": "echo after",
    "upload_artifacts_on_success": "echo uploaded >builds/up",
}


class Gitlab(GitlabRunnerStandIn):
    """A runner's host, whose programs share a ledger and an engine. `extra` is in the environment
    of the next calls."""

    def __init__(self, home: Path, cloud: FileCloud) -> None:
        super().__init__(home, self._call)
        self.home = home
        self.cloud = cloud
        self.extra: dict[str, str] = {}
        self.captured: Any = None

    def _call(self, words: list[str], env: Mapping[str, str]) -> tuple[int, bytes]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**env, **self.extra}.items():
                patch.setenv(name, value)
            code = main(["gitlab", *words], join=gitlab_app.join)
        captured = self.captured.readouterr()
        return code, captured.out + captured.err

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        data = data_of(self.home)
        ledger = Ledger.open(f"sqlite:///{data}/ledger.db", data_dir=data)
        try:
            yield ledger
        finally:
            ledger.close()

    def builds(self, job: int) -> list[BuildRecord]:
        with self.ledger() as ledger:
            return list(ledger.builds.list(labels={executor.JOB: str(job)}))

    def vms(self, job: int) -> list[dict[str, Any]]:
        mine = {build.id for build in self.builds(job)}
        return [vm for vm in self.cloud.vms().values() if vm["tags"]["vmrunner:build"] in mine]

    def nothing_left(self, job: int) -> BuildRecord:
        """The job's one build, when its VM is gone."""
        until(lambda: all(vm["died"] for vm in self.vms(job)), what="the VM's end")
        until(lambda: all(build.finished for build in self.builds(job)))
        (build,) = self.builds(job)
        return build


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gitlab]:
    home = tmp_path_factory.mktemp("gitlab")
    with pytest.MonkeyPatch.context() as patch:
        isolated(home, patch)
        (home / "vmrunner.toml").write_text(CONFIG)
        patch.setenv("CLOUD_FILE", str(home / "cloud.json"))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setattr(LocalService, "sandbox", LocalService.sandbox)  # `join` sets another
        yield Gitlab(home, FileCloud(home / "cloud.json"))


@pytest.fixture
def gitlab(host: Gitlab, capfdbinary: Any) -> Gitlab:
    host.captured, host.extra = capfdbinary, {}
    return host


def test_a_job_succeeds_in_one_vm_of_its_own(gitlab: Gitlab) -> None:
    verdict = gitlab.lead(7, SCRIPTS)
    assert verdict.status == "success", verdict.trace
    assert b"$ cat\ncode\nerr\n" in verdict.trace, "in the order in which it was written"
    assert verdict.stages == ["prepare", *list(SCRIPTS)[:3], "cleanup"]
    build = gitlab.nothing_left(7)
    assert build.spec.labels == {
        executor.SERVER: "gitlab.example.org",
        executor.JOB: "7",
        executor.PROJECT: "acme/app",
        executor.PROOF: build.spec.labels[executor.PROOF],
    }
    assert (build.spec.container, build.spec.sandbox_ttl) == ("debian:trixie", 1800 + executor.ROOM)
    assert (gitlab.home / "boxes" / build.id / "work/builds/up").exists()
    assert len(gitlab.vms(7)) == 1


def test_a_script_that_fails_gives_its_own_exit_code(gitlab: Gitlab) -> None:
    scripts = {
        **SCRIPTS,
        "build_script": "exit 99",
        "upload_artifacts_on_failure": "touch builds/failed",
    }
    verdict = gitlab.lead(8, scripts)
    assert (verdict.status, verdict.exit_code) == ("script_failure", 99)
    build = gitlab.nothing_left(8)
    assert (gitlab.home / "boxes" / build.id / "work/builds/failed").exists()


def test_a_vm_that_is_lost_is_the_systems_failure(gitlab: Gitlab) -> None:
    def before(stage: str) -> None:
        if stage == "build_script":
            (gitlab.home / "lose").touch()
            until(lambda: all(build.finished for build in gitlab.builds(9)))

    verdict = gitlab.lead(9, SCRIPTS, before=before)
    assert (verdict.status, verdict.exit_code) == ("runner_system_failure", None)
    assert gitlab.nothing_left(9).reason is Reason.VM_LOST


def test_a_prepare_that_fails_is_tried_again(gitlab: Gitlab) -> None:
    def before(stage: str) -> None:
        if stage == "prepare":
            tries.append(stage)
            gitlab.extra = {"VMRUNNER_DEFAULT_PROVIDER": "nonsense"} if len(tries) == 1 else {}

    tries: list[str] = []
    verdict = gitlab.lead(10, SCRIPTS, before=before)
    assert verdict.status == "success", verdict.trace
    assert verdict.stages[:3] == ["prepare", "prepare", "prepare_script"]
    gitlab.nothing_left(10)


def test_a_prepare_again_finds_the_same_vm(gitlab: Gitlab) -> None:
    """The runner was killed while it waited for the first."""
    env = gitlab.environment(11, {})
    for _ in range(2):
        assert gitlab.call(["prepare"], env)[0] == 0
    assert len(gitlab.builds(11)) == 1
    for _ in range(2):
        assert gitlab.call(["cleanup"], env)[0] == 0
    gitlab.nothing_left(11)
    script = gitlab.home / "s"
    script.write_text("true")
    code, out = gitlab.call(["run", str(script), "build_script"], env)
    assert (code, b"no sandbox any more" in out) == (SYSTEM_FAILURE, True)


def test_two_servers_on_one_host_have_jobs_of_one_number(gitlab: Gitlab) -> None:
    """As https://example.org/a and https://example.org/b have: a repository's URL tells no more."""
    first = gitlab.environment(21, {})
    assert gitlab.call(["prepare"], first)[0] == 0
    second = gitlab.environment(21, {}, token="anotherT0ken")
    assert gitlab.call(["prepare"], second)[0] == 0
    assert gitlab.call(["cleanup"], second)[0] == 0
    assert sorted(build.cancel is None for build in gitlab.builds(21)) == [False, True]
    first = gitlab.environment(21, {})
    assert gitlab.call(["cleanup"], first)[0] == 0
    until(lambda: all(vm["died"] for vm in gitlab.vms(21)), what="the end of both")


@pytest.mark.parametrize("deaf", [False, True], ids=["SIGTERM", "SIGKILL"])
def test_a_cancelled_job_leaves_no_vm(gitlab: Gitlab, deaf: bool) -> None:
    job = 13 if deaf else 12
    env = gitlab.environment(job, {})
    assert gitlab.call(["prepare"], env)[0] == 0
    script, began = gitlab.home / f"script-{job}", gitlab.home / f"began-{job}"
    script.write_text(f"echo $$ >{began}.new; mv {began}.new {began}; exec sleep 600")
    words = [sys.executable, "-m", "tests.support.gitlab_app", "gitlab", "run"]
    start = ["sh", "-c", 'trap "" TERM; "$@"', "sh"] if deaf else []
    code = cancelled(
        [*start, *words, str(script), "build_script"],
        env,
        until=lambda: until(began.exists, what="the script"),
        grace=1.0 if deaf else 60.0,
    )
    pid = int(began.read_text())
    if deaf:
        assert code == -signal.SIGKILL
        os.kill(pid, signal.SIGKILL)  # its VM's end would do so
    else:
        assert code == SYSTEM_FAILURE, "nobody calls it the script's failure"
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)  # `after_script` runs beside nothing of it
    assert gitlab.call(["cleanup"], env)[0] == 0
    assert gitlab.nothing_left(job).reason is Reason.USER


def test_a_jobs_author_cannot_pass_for_another_job(gitlab: Gitlab) -> None:
    """Variables are the author's; the file with GitLab's answer is not."""
    mine = gitlab.environment(14, {})
    assert gitlab.call(["prepare"], mine)[0] == 0
    for changes in (
        {"CI_JOB_ID": "14"},
        {"CI_JOB_ID": "14", "CI_SERVER_URL": "https://evil.example"},
    ):
        theirs = gitlab.environment(15, changes)
        assert gitlab.call(["cleanup"], theirs)[0] == 0
    (build,) = gitlab.builds(14)
    assert build.cancel is None
    assert gitlab.call(["cleanup"], mine)[0] == 0
    gitlab.nothing_left(14)


def test_a_sandbox_of_somebody_else_gets_no_script(gitlab: Gitlab) -> None:
    """Job ids can be guessed, and labels be said by whoever may submit."""
    planted = ["sandbox", "create"]
    for name, value in ((executor.SERVER, "gitlab.example.org"), (executor.JOB, "17")):
        planted += ["--label", f"{name}={value}"]

    def before(stage: str) -> None:
        if stage == "build_script":
            assert main(planted, join=gitlab_app.join) == 0

    verdict = gitlab.lead(17, SCRIPTS, before=before)
    assert verdict.status == "success", verdict.trace
    theirs, ours = gitlab.builds(17)
    assert not list((gitlab.home / "boxes").glob(f"{theirs.id}/**/*"))
    assert executor.PROOF in ours.spec.labels
    assert (theirs.cancel, theirs.finished) == (None, False)
    assert main(["sandbox", "rm", theirs.id], join=gitlab_app.join) == 0


def test_what_gitlab_masks_our_log_masks_too(gitlab: Gitlab) -> None:
    env = gitlab.environment(18, {})
    assert gitlab.call(["prepare"], env)[0] == 0
    (build,) = gitlab.builds(18)
    with gitlab.ledger() as ledger:
        assert ledger.builds.secrets(build.id) == {"GITLAB_MASKED_0": MASKED.encode()}
    assert gitlab.call(["cleanup"], env)[0] == 0
    gitlab.nothing_left(18)


def test_an_engine_that_is_started_keeps_nothing_of_the_job(gitlab: Gitlab) -> None:
    """It serves other jobs after it, when the directory of this one is removed."""
    env = gitlab.environment(19, {"DEPLOY_KEY": MASKED})
    assert gitlab.call(["prepare"], env)[0] == 0
    with gitlab.ledger() as ledger:
        engines = {member.process.pid for member in ledger.engines.list()}
    for pid in engines:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"CLOUD_FILE" in environ
        for word in (MASKED, "CUSTOM_ENV_", "JOB_RESPONSE_FILE", "TMPDIR"):
            assert word.encode() not in environ
    assert gitlab.call(["cleanup"], env)[0] == 0
    gitlab.nothing_left(19)


def test_a_job_that_fails_without_a_place_for_its_code(gitlab: Gitlab) -> None:
    """A full disk is the system's failure: without its code `allow_failure` would judge wrongly."""
    env = gitlab.environment(20, {}) | {"BUILD_EXIT_CODE_FILE": str(gitlab.home / "no/such")}
    assert gitlab.call(["prepare"], env)[0] == 0
    script = gitlab.home / "fails"
    script.write_text("exit 3")
    assert gitlab.call(["run", str(script), "build_script"], env)[0] == SYSTEM_FAILURE
    assert gitlab.call(["cleanup"], env)[0] == 0
    gitlab.nothing_left(20)


def test_a_runner_that_dies_leaves_its_vm_to_the_deadline(gitlab: Gitlab) -> None:
    def before(stage: str) -> None:
        if stage == "build_script":
            raise RunnerDied

    assert gitlab.lead(16, SCRIPTS, before=before).status == "runner_died"
    (vm,) = gitlab.vms(16)
    assert vm["died"] is None
    gitlab.cloud.advance(1800 + executor.ROOM + 3600)
    gitlab.nothing_left(16)


@pytest.mark.parametrize("words", [["prepare"], ["run", "x", "y"], ["cleanup"]])
def test_without_a_job_it_is_the_systems_failure(gitlab: Gitlab, words: list[str]) -> None:
    code, out = gitlab.call(words, {"SYSTEM_FAILURE_EXIT_CODE": "42"})
    assert (code, b"no job" in out) == (42, True)


@pytest.mark.parametrize(
    ("words", "out", "code"),
    [(["run", "x", "y"], "/dev/full", 42), (["run", "x"], "/dev/null", 125)],
    ids=["nothing can be written", "usage"],
)
def test_what_is_ours_is_never_code_one(
    gitlab: Gitlab, words: list[str], out: str, code: int
) -> None:
    """To a runner 1 is the job's own failure."""
    program = [sys.executable, "-m", "tests.support.gitlab_app", "gitlab", *words]
    env = {**os.environ, "SYSTEM_FAILURE_EXIT_CODE": "42"}
    with Path(out).open("wb") as file:
        done = subprocess.run(program, env=env, stdout=file, stderr=file, check=False)
    assert done.returncode == code


def test_a_private_image_is_pulled_by_the_jobs_login(gitlab: Gitlab) -> None:
    """GitLab's own for its registry; the author's, where there is one, before it."""
    own = {"auths": {"registry.example.org": {"username": "me", "password": "0wn-login"}}}
    given = [
        {"type": "registry", "url": place, "username": "gitlab-ci-token", "password": "j0b-login"}
        for place in ("registry.example.org", "registry2.example.org")
    ]
    for number, (image, login) in enumerate(
        [("registry.example.org/a", "0wn-login"), ("registry2.example.org/a", "j0b-login"),
         ("evil.example.org/a", ""), ("", "")]
    ):  # fmt: skip
        variables = {"CI_JOB_IMAGE": image, "DOCKER_AUTH_CONFIG": json.dumps(own)}
        env = gitlab.environment(190 + number, variables, credentials=given)
        assert gitlab.call(["prepare"], env)[0] == 0
        (build,) = gitlab.builds(190 + number)
        with gitlab.ledger() as ledger:
            found = ledger.builds.secrets(build.id)
        assert (build.spec.registry_secret is not None) == bool(login)
        assert login in str(found.get(build.spec.registry_secret or "", ""))
        assert gitlab.call(["cleanup"], env)[0] == 0


def test_a_job_is_what_gitlab_answered(tmp_path: Path) -> None:
    stand_in = GitlabRunnerStandIn(tmp_path, lambda *_: (0, b""))
    values = {"CI_JOB_ID": "6", "CI_JOB_TIMEOUT": "99999", "CI_PROJECT_PATH": "other/team"}
    env = stand_in.environment(5, values)
    found = jobs.read(env)
    assert (found.id, found.server, found.timeout) == ("5", "gitlab.example.org", 1800.0)
    assert (found.project, found.masked) == ("acme/app", (MASKED,))
    deep = {"git_info": {"repo_url": f"https://gitlab.example.org/{'group/' * 99}app\n.git"}}
    found = jobs.read(stand_in.environment(5, {}, **deep))
    units.check_label("gitlab.project", found.project)
    assert found.project.startswith("group/group/")
    del env["JOB_RESPONSE_FILE"]  # a runner of before 16.11 or so
    found = jobs.read(env)
    assert (found.id, found.server, found.timeout) == ("6", "gitlab.example.org", 99999.0)


@pytest.mark.parametrize(
    "changed",
    [
        {"id": None},
        {"id": -1},
        {"id": "²"},
        {"token": None},
        {"git_info": None},
        {"git_info": [1]},
        {"git_info": {"repo_url": ""}},
        {"git_info": {"repo_url": "https://u:s3cret@[::1/x"}},
        {"runner_info": 5},
        {"variables": ["s3cret"]},
        {"variables": {"s3cret": 1}},
        "[1]",
        "[" * 100_000,
        "{",
    ],
)
def test_an_answer_that_is_none_names_no_job(tmp_path: Path, changed: Any) -> None:
    """Variables would name one: another's, if the author likes."""
    stand_in = GitlabRunnerStandIn(tmp_path, lambda *_: (0, b""))
    values = {"CI_JOB_ID": "6", "CI_SERVER_URL": "https://other.example"}
    env = stand_in.environment(5, values)
    file = Path(env["JOB_RESPONSE_FILE"])
    if isinstance(changed, dict):
        changed = json.dumps(json.loads(file.read_text()) | changed)
    file.write_text(changed)
    with pytest.raises(ConfigError, match="JOB_RESPONSE_FILE") as caught:
        jobs.read(env)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("timeout", ["inf", "nan", "-1", "1e999", "soon", ""])
def test_a_timeout_that_is_none_is_not_taken(timeout: str) -> None:
    values = {"CI_JOB_ID": "6", "CI_SERVER_URL": "https://x.example", "CI_JOB_TIMEOUT": timeout}
    assert (
        jobs.read({f"CUSTOM_ENV_{name}": value for name, value in values.items()}).timeout is None
    )
