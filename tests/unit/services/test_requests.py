"""From what was said to a checked spec: precedence, defaults, and every refusal in one line."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.job_files import chosen
from vmrunner.config import jobfile
from vmrunner.config.build_request import BuildRequest
from vmrunner.config.settings import DefaultSettings, Settings
from vmrunner.errors import ConfigError
from vmrunner.model import ArtifactRule, Network, Step
from vmrunner.services import requests, secrets
from vmrunner.services.host_access import HostAccess

SETTINGS = Settings.model_validate(
    {"providers": {"local": {"kind": "qemu"}}, "limits": {"max_ttl": "2h"}}
)
MAKE = (Step(argv=("make",)),)


def check(**values: Any) -> requests.CheckedRequest:
    return requests.check(BuildRequest(**{"steps": MAKE, **values}), SETTINGS)


def test_defaults() -> None:
    spec = check().spec
    assert (spec.provider, spec.container, spec.runtime) == ("local", "debian:trixie", "runc")
    assert (spec.timeout, spec.ttl) == (1800, 1800 + 900)
    assert spec.network is Network.OPEN
    assert (spec.steps, spec.env, spec.artifacts, spec.name) == (MAKE, {}, (), "")


def test_ttl_defaults_to_timeout_plus_a_quarter_hour_within_limit() -> None:
    assert check(timeout="1h").spec.ttl == 4500
    assert check(timeout="110m").spec.ttl == 7200


def test_little_room_between_timeout_and_ttl_is_a_warning() -> None:
    checked = check(timeout="60s", ttl="100s")
    assert (checked.spec.timeout, checked.spec.ttl) == (60, 100)
    assert checked.warnings == ("ttl: only 40s more than the timeout for boot and collecting",)
    assert check(timeout="60s", ttl="6m").warnings == ()
    (warning,) = check(timeout="60s", ttl="6m", keep_on_failure="7m").warnings
    assert warning == "keep-on-failure: the VM's ttl of 6m ends it before that"


def test_a_secret_too_short_to_mask_is_a_warning() -> None:
    warnings = check(secrets={"PIN": b"123", "TOKEN": b"hunter2"}).warnings
    assert warnings == ("secret: PIN is shorter than 4 bytes: the log will not mask it",)


def test_durations_and_sizes_as_people_give_them() -> None:
    spec = check(timeout=timedelta(minutes=5), ttl=1500, queue_timeout="1h", memory="4GiB").spec
    assert (spec.timeout, spec.ttl, spec.queue_timeout, spec.memory) == (300, 1500, 3600, 4 << 30)


def test_a_command_is_a_shell_line_or_one_command() -> None:
    assert requests.command("make test") == (Step(run="make test"),)
    assert requests.command(["make", "test"]) == (Step(argv=("make", "test")),)
    assert requests.command(" ") == requests.command([]) == ()


WRONG = """\
defaults:
  timeout: 9h
  secrets: [UNSET, "A=b"]
jobs:
  a:
    secrets:
    - X=@none
    - TOKEN
    - Y=@/etc/passwd
    source: missing
    steps: ["x\0"]
    env: {TOKEN: t}
    timeuot: 3m
    privileged: true
    provider: nowhere
    network: no
    bootstrap: true
"""


def test_all_faults_of_a_job_are_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "j.yml"
    path.write_text(WRONG.replace("\0", "\\0"))
    leave = HostAccess(secrets=frozenset({"UNSET", "TOKEN"}))
    request = requests.from_job(jobfile.choose(path, "a"), {"TOKEN": "hunter2"}, allowed=leave)
    with pytest.raises(ConfigError) as caught:
        requests.check(request, SETTINGS)
    lines = [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]
    expected = [
        "2: timeout: 9h is not below limits.max_ttl 2h",
        "3: defaults.secrets[1]: A is given a value here",
        "3: secret: 'UNSET' is not set in the environment",
        "6: secret: TOKEN is set with env too",
        f"7: secret: X=@{tmp_path}/none: No such file or directory",
        "9: secrets: 'Y=@/etc/passwd': it is outside the job file's directory",
        f"10: source: '{tmp_path}/missing' does not exist",
        "11: jobs.a.steps[0]: 'x\\x00' is not a command",
        "13: jobs.a.timeuot: no such key (did you mean 'timeout'?)",
        "14: privileged: not allowed here",
        "15: provider: no provider 'nowhere' is configured",
        "16: jobs.a.network: 'no': neither 'open' nor 'none' nor a table with `allow`",
    ]
    assert len(lines) == len(expected), lines
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start), line
    assert "hunter2" not in str(caught.value)


def test_a_field_that_cannot_be_read_causes_no_other_fault(tmp_path: Path) -> None:
    path = tmp_path / "j.yml"
    path.write_text("jobs: {a: {steps: [x], timeout: soon, ttl: 20m}}")
    chosen = jobfile.choose(path, None)
    with pytest.raises(ConfigError, match="timeout: 'soon': not a duration") as caught:
        requests.check(requests.from_job(chosen, {}), SETTINGS)
    assert caught.value.more == (), "a ttl of 20m is longer than some timeout"
    request = BuildRequest(timeout="30m")
    with pytest.raises(ConfigError) as caught:
        requests.check(request.over(requests.from_job(chosen, {}, request=request)), SETTINGS)
    assert "ttl: 20m is not longer than the timeout 30m" in str(caught.value)


def test_flags_win_over_the_job_and_tables_add_up(tmp_path: Path) -> None:
    path = tmp_path / "vmrunner.yml"
    path.write_text(
        "jobs: {test: {steps: [make], container: 'alpine', timeout: 1m, docker: true, "
        "env: {A: job, B: job}, labels: {x: job}, artifacts: [a], source: sub}}"
    )
    (tmp_path / "sub").mkdir()
    job = requests.from_job(jobfile.choose(path, None), {})
    request = BuildRequest(
        container="debian:sid",
        env={"B": "flag"},
        labels={"y": "flag"},
        artifacts=(ArtifactRule(glob="b"),),
    ).over(job)
    spec = requests.check(request, SETTINGS).spec
    assert spec.steps == (Step(run="make"),)
    assert (spec.container, spec.timeout, spec.docker) == ("debian:sid", 60, True)
    assert spec.env == {"A": "job", "B": "flag"}
    assert spec.labels == {"x": "job", "y": "flag"}
    assert [rule.glob for rule in spec.artifacts] == ["a", "b"]
    assert spec.source == str(tmp_path / "sub"), "relative to the job file"
    assert spec.name == "test"
    command = BuildRequest(steps=(Step(run="other"),)).over(job)
    assert requests.check(command, SETTINGS).spec.steps == (Step(run="other"),)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"registry_secret": "LOGIN"},
            "registry_secret: no secret 'LOGIN' is given (give the secret LOGIN too)",
        ),
        (
            {"registry_secret": "LOGIN", "secrets": {"LOGIN": b"hunter2"}},
            "registry_secret: it is neither user:password nor a Docker configuration with auths",
        ),
        (
            {"caches": [{"key": "k-{hash:*.lock}", "path": "/c"}]},
            "cache: 'k-{hash:*.lock}' names files of a source directory, and there is none",
        ),
        (
            {"caches": [{"key": "k", "path": "/c"}], "container_runtime": "runsc"},
            "caches: runsc (gVisor) keeps the container's files to itself",
        ),
        ({"steps": None}, "command: missing (put it after --, or name a job with -f FILE)"),
        ({"steps": (Step(argv=("a\0b",)),)}, "command: 'a\\x00b' is not a command"),
        ({"steps": (Step(argv=("",)),)}, "command: '' is not a command"),
        ({"steps": (Step(run="x", env={"A-B": ""}),)}, "env: 'A-B' is not a variable's name"),
        ({"timeout": "soon"}, "timeout: 'soon' is not a duration (write it like"),
        ({"timeout": 0}, "timeout: 0s leaves no time (more than 0)"),
        ({"timeout": "2h"}, "timeout: 2h is not below limits.max_ttl 2h (a shorter"),
        ({"timeout": "5m", "ttl": "5m"}, "ttl: 5m is not longer than the timeout 5m (at least 10m"),
        ({"ttl": "3h"}, "ttl: 3h is above limits.max_ttl 2h (a shorter ttl, or a larger"),
        ({"provider": "loca"}, "provider: no provider 'loca' is configured (did you mean 'local'?"),
        ({"container": "debian:trixie:x"}, "container: 'debian:trixie:x' is not a container image"),
        ({"container": "Debian"}, "container: 'Debian' is not a container image's name (such as"),
        ({"container": "-v"}, "container: '-v' is not"),
        ({"container": "a b"}, "container: 'a b' is not"),
        (
            {"network": "some"},
            "network: no policy 'some' (one of: open, none, allow=HOST[:PORT],…)",
        ),
        ({"privileged": True}, "privileged: not allowed here (limits.privileged = true"),
        (
            {"container_runtime": "crun"},
            "container-runtime: no runtime 'crun' (one of: runc, runsc",
        ),
        ({"container_runtime": "runsc", "docker": True}, "docker: runsc (gVisor) cannot give it"),
        (
            {"source": "https://me:pw@github.com/x/y"},
            "source: 'https://github.com/x/y' is not a directory "
            "(a repository: git+https://github.com/x/y@REF)",
        ),
        ({"source": "git@github.com:x/y"}, "source: 'git@github.com:x/y' is not a directory (a"),
        ({"source": "/no/such/place"}, "source: '/no/such/place' does not exist"),
        ({"source": "/etc/hostname"}, "source: '/etc/hostname' is not a directory"),
        ({"source": "git+-x@main"}, "source: 'git+-x@main' is not git+URL@REF"),
        ({"artifacts": (ArtifactRule(glob="/etc/*"),)}, "artifact: '/etc/*' is not below the work"),
        ({"artifacts": (ArtifactRule(glob="a/../../b"),)}, "artifact: 'a/../../b' is not below"),
        ({"artifacts": (ArtifactRule(glob=""),)}, "artifact: '' is not below"),
        ({"labels": {"a b": "c"}}, "label: 'a b' is not a label's name"),
        ({"env": {"1A": "x"}}, "env: '1A' is not a variable's name"),
        ({"name": "a b"}, "name: 'a b' cannot be a build's name"),
        ({"name": "b-x"}, "name: 'b-x' cannot be a build's name"),
        ({"cpus": 0}, "cpus: 0 is too low"),
        ({"memory": "1MiB"}, "memory: 1.0 MiB is too little (at least 256.0 MiB)"),
        ({"disk": "lots"}, "disk: 'lots' is not a size"),
        ({"queue_timeout": "x"}, "queue-timeout: 'x' is not a duration"),
        ({"keep_on_failure": "0s"}, "keep-on-failure: 0s keeps nothing"),
        ({"keep_on_failure": "x"}, "keep-on-failure: 'x' is not a duration"),
        ({"idempotency_key": ""}, "idempotency-key: '' cannot be one"),
        ({"env": {"T": "1"}, "secrets": {"T": b"1"}}, "secret: T is set with env too"),
    ],
)
def test_each_refusal_names_field_value_and_fix(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(**values)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "debian",
        "debian:trixie",
        "docker.io/library/python:3.13-slim",
        "localhost:5000/team/app:v1",
        "registry.example.org/a/b/c@sha256:" + "a" * 64,
        "myhost:5000/app",
        "a/b_c/d-e.f__g",
    ],
)
def test_container_names_that_docker_takes(name: str) -> None:
    assert check(container=name).spec.container == name


def test_secrets_come_from_environment_or_file_never_from_arguments(
    tmp_path: Path,
) -> None:
    (tmp_path / "key").write_bytes(b"line one\nline two\n")
    found = secrets.read(["TOKEN", f"KEY=@{tmp_path}/key"], {"TOKEN": "hunter2"})
    assert found == {"TOKEN": b"hunter2", "KEY": b"line one\nline two"}
    spec = check(secrets=found).spec
    assert spec.secrets == ("KEY", "TOKEN")
    assert "hunter2" not in repr(spec)


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("NOPE", "secret: 'NOPE' is not set in the environment (export it, or give --secret"),
        ("A=value", "secret: the value of 'A' is on the command line, where others can read it"),
        ("A=@none", "secret: A=@none: No such file"),
        ("EMPTY", "secret: EMPTY is empty"),
        ("A=@big", "secret: A is larger than 64 KiB"),
        ("A=@nul", "secret: A is larger than 64 KiB or holds a NUL byte"),
        ("1A", "secret: '1A' is not"),
    ],
)
def test_secrets_that_cannot_be(
    tmp_path: Path, secret: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "big").write_bytes(b"x" * (65 << 10))
    (tmp_path / "nul").write_bytes(b"a\0b")
    with pytest.raises(ConfigError) as caught:
        secrets.read([secret], {"EMPTY": "", "1A": "x"})
    assert str(caught.value).startswith(message)
    assert "value" not in str(caught.value) or secret == "A=value"


def test_the_runtime_is_the_builds_own_word_over_the_installations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gvisor = SETTINGS.model_copy(update={"defaults": DefaultSettings(container_runtime="runsc")})
    assert requests.check(BuildRequest(steps=MAKE), gvisor).spec.runtime == "runsc"
    assert (
        requests.check(BuildRequest(steps=MAKE, container_runtime="runc"), gvisor).spec.runtime
        == "runc"
    )
    text = b"jobs: {test: {steps: [make], container_runtime: runsc}}"
    job = chosen(text)
    assert requests.check(requests.from_job(job, {}), SETTINGS).spec.runtime == "runsc"


def test_what_widens_the_container_cannot_be_had_under_gvisor() -> None:
    wide = Settings.model_validate(
        {
            "providers": {"local": {"kind": "qemu"}},
            "limits": {"privileged": True},
            "defaults": {"container_runtime": "runsc"},
        }
    )
    for options in ({"docker": True}, {"privileged": True}):
        with pytest.raises(ConfigError, match=r"runsc \(gVisor\) .*the container runtime runc"):
            requests.check(BuildRequest(steps=MAKE, **options), wide)
        request = BuildRequest(steps=MAKE, container_runtime="runc", **options)
        assert requests.check(request, wide).spec.runtime == "runc"


def test_a_bootstrap_needs_a_network() -> None:
    assert check(image="ami-1", bootstrap=True).spec.bootstrap
    with pytest.raises(ConfigError, match=r"bootstrap: .* network is none"):
        check(image="ami-1", bootstrap=True, network="none")
