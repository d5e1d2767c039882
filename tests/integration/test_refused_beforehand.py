"""What can be known beforehand is refused beforehand, with and without --dry-run; and whatever is
typed, what comes back is one line with field, value and fix."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_bad_input import CMD, Run, assert_nothing, home, refused, run
from vmrunner import images
from vmrunner.cli.output import Format
from vmrunner.cli.views.findings import show_findings
from vmrunner.model import Finding, Level

__all__ = ["home", "run"]

BIG = "x" * (200 << 10)
both = pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["run", "dry"])


@both
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("-e", f"A={BIG}", *CMD), "env: A has 200.0 KiB, and no process can be given more than"),
        (
            (*(word for n in range(40) for word in ("-e", f"A{n}={'x' * 50_000}")), *CMD),
            "env: 40 variables take 1.9 MiB, and no process can be given more than 1.8 MiB",
        ),
        (("--", "echo", BIG), "command: a word of 200.0 KiB"),
        (("--disk", "100PiB", *CMD), "disk: 100.0 PiB may take 100.1 PiB, and "),
        (("--priority", "99999999999999999999", *CMD), "priority: 99999999999999999999 is too"),
        (("--privileged", *CMD), "privileged: not allowed here (limits.privileged = true"),
        (("--artifacts-to", "a" * 300, *CMD), "artifacts-to: 'aaaa"),
        (
            ("--artifacts-to", "file/sub", *CMD),
            "artifacts-to: 'file/sub' cannot be written: 'file' is",
        ),
        (("--result-file", "file/r.json", *CMD), "result-file: 'file/r.json' cannot be written"),
        (("--env-file", "none", *CMD), "env-file: 'none': No such file"),
        (("--env-file", "vars", *CMD), "env-file: vars:3: '1A' is not a variable's name"),
        (("--step", "make", *CMD), "step: there is a command after -- too (give steps"),
        (("--", "echo", "\udcff"), "command: '\\udcff' is not UTF-8"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_can_never_work(
    run: Run, home: Path, options: tuple[str, ...], argv: tuple[str, ...], message: str
) -> None:
    (home / "file").touch()
    (home / "vars").write_text("# comment\nA=1\n1A=2\n")
    assert refused(run, "run", *options, *argv).startswith(message)
    assert_nothing(home)


@pytest.mark.parametrize(
    "option",
    [
        "--network",
        "--source",
        "--container",
        "--image",
        "--name",
        "--provider",
        "--artifacts-to",
        "--timeout",
    ],
)
def test_an_empty_value_is_never_the_default(run: Run, home: Path, option: str) -> None:
    for argv in ((option, ""), (f"{option}=",)):
        assert (
            refused(run, "run", *argv, *CMD)
            == f"{option}: empty (give it a value, or leave it out)"
        )
    assert_nothing(home)
    assert run("run", "--dry-run", "--", "echo", "")[0] == 0, "a command's words are its own"


@both
def test_a_ledger_that_cannot_be_opened(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    assert run("ps")[0] == 0
    secret = home / "data/vmrunner/secret.key"
    kept = secret.read_text()
    secret.unlink()
    assert "secret.key" in refused(run, "run", *options, *CMD)
    secret.write_text(kept)
    secret.chmod(0o600)
    monkeypatch.setenv("VMRUNNER_SECRET_KEY", "short")
    refused(run, "run", *options, *CMD)
    monkeypatch.setenv("VMRUNNER_SECRET_KEY", "another-secret-another-secret-another-1")
    refused(run, "run", *options, *CMD)


def test_a_configured_disk_that_the_image_does_not_fit(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMRUNNER_PROVIDERS__LOCAL__DISK", "512MiB")
    message = refused(run, "run", "--dry-run", *CMD)
    assert message.startswith("providers.local.disk: 512.0 MiB: image default needs 1.0 GiB")


def test_a_job_file_is_found_by_itself(run: Run, home: Path) -> None:
    file = home / "vmrunner.yml"
    file.write_text(
        "jobs:\n  a:\n    steps: [make, {name: b, run: make b, timeout: 5m}]\n    timeout: 10h\n"
    )
    code, _, err = run("run", "--dry-run")
    assert (code, err.decode().splitlines()[0]) == (125, f"vmrunner: job file {file}")
    assert b"vmrunner.yml:4: timeout: 10h is not below limits.max_ttl 4h" in err
    code, out, err = run("run", "--dry-run", "a", "--timeout", "1h")
    assert code == 0, err
    table = out.decode().splitlines()
    assert [line.split("  ", 1)[-1].strip() for line in table[:2]] == [
        "1. make",
        "2. b: make b  (timeout 5m)",
    ]
    assert any(line.split() == ["timeout", "1h"] for line in table)
    assert b"no job 'b' in vmrunner.yml" in run("run", "b")[2]
    (home / "odd.yml").write_text("jobs: {'a b/ü': {steps: [make]}}")
    text = run("run", "--dry-run", "-f", "odd.yml")[2].decode()
    assert text.startswith("vmrunner: warning: job 'a b/ü' cannot be the build's name: it has none")
    assert run("run", "--dry-run", *CMD)[2] == b"", "a command is no job's"
    file.chmod(0o666)
    assert refused(run, "run").startswith("vmrunner.yml: not taken: others may write")


def test_steps_and_variables_from_files(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "here")
    (home / "one").write_text("# a comment\n\nA=1 and more \nB=1\nMINE\r\n")
    (home / "two").write_text("B=2\nC=2")
    argv = ("--env-file", "one", "--env-file", "two", "-e", "C=3", "--step", "a", "--step", "b")
    code, out, err = run("run", "--dry-run", "-o", "json", "--priority", "7", *argv)
    assert code == 0, err
    (spec,) = json.loads(out)["items"]
    assert spec["env"] == {"A": "1 and more ", "B": "2", "MINE": "here", "C": "3"}
    assert [step["run"] for step in spec["steps"]] == ["a", "b"]
    assert spec["priority"] == 7


def test_small_things(run: Run, home: Path) -> None:
    assert run("version")[:2] == run("--version")[:2]
    assert run("help", "ps")[:2] == run("ps", "--help")[:2]
    assert run("image", "verify", "nope")[0] == 3
    assert "'-5m' is not a duration" in refused(run, "extend", "b-x", "-5m", code=2)
    assert "is not UTF-8" in refused(run, "show", "\udcff", code=2)
    assert images.current()


def test_what_is_used_is_shown(run: Run, home: Path) -> None:
    def shown() -> dict[str, tuple[object, str]]:
        items = json.loads(run("config", "show", "-o", "json")[1])["items"]
        return {item["key"]: (item["value"], item["origin"]) for item in items}

    assert shown()["installation"] == (None, "default"), "it is made when it is first needed"
    assert run("ps")[0] == 0
    file = home / "data/vmrunner/installation"
    after = shown()
    assert after["installation"] == (file.read_text().strip(), str(file))
    assert after["default_provider"] == ("local", "default")
    assert after["providers.local.cpus"] == (2, "default")
    assert after["providers.local.disk"] == (16 << 30, "default")


def test_one_fix_of_several_findings_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        Finding(check=name, level=Level.WARNING, message=name, fix="mend it") for name in ("a", "b")
    ]
    assert show_findings(found, Format.TABLE) == 0
    assert capsys.readouterr().err == "vmrunner: a, b: mend it\n"


def test_a_full_place_for_what_is_printed(home: Path) -> None:
    program = [sys.executable, "-m", "vmrunner"]
    for argv in (["--help"], ["config", "show"], ["config", "schema"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*program, *argv], stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 1
        message = "what was to be printed cannot be written: No space left on device"
        assert done.stderr == f"vmrunner: error: {message}\n"


@pytest.mark.parametrize(("debug", "traceback"), [("0", False), ("false", False), ("1", True)])
def test_tracebacks_only_where_asked_for(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, debug: str, traceback: bool
) -> None:
    monkeypatch.setenv("VMRUNNER_DEBUG", debug)
    assert (b"Traceback" in run("show", "nope")[2]) == traceback


def test_a_directory_that_was_removed_is_named(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "gone").mkdir()
    monkeypatch.chdir(home / "gone")
    (home / "gone").rmdir()
    for argv, code in (("ps",), 2), (("run", *CMD), 125), (("config", "path"), 2):
        assert run(*argv) == (
            code,
            b"",
            b"vmrunner: error: the current directory cannot be read: No such file or directory "
            b"(cd to one that is there)\n",
        )
