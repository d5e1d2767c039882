"""A checkout's configuration and job file, as the command line meets them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import CONFIG, Cli, cli, home

__all__ = ["cli", "home"]

CMD = ("run", "--dry-run", "--", "true")


def test_a_projects_file_is_trusted_by_a_command(cli: Cli, home: Path) -> None:
    file = home / "vmrunner.toml"
    file.write_text(CONFIG.replace("[limits]", "[limits]\nprivileged = true"))
    done = cli(*CMD)
    assert done.code == 125
    refusal = f"{file}: limits.privileged: only a project's file that you trust may say that"
    assert refusal in done.err.decode()
    assert cli("ps").code == 2
    shown = cli("config", "show", "-o", "json")
    assert (shown.code, refusal in shown.err.decode()) == (0, True)
    origins = {item["key"]: item["origin"] for item in shown.items}
    assert origins["limits.privileged"] == f"{file} (not trusted)"
    assert origins["limits.max_ttl"] == str(file)

    assert cli("config", "trust", "--list").err == b"vmrunner: no project's file is trusted\n"
    assert cli("config", "trust").code == 0
    assert cli(*CMD).code == 0
    (item,) = cli("config", "trust", "--list", "-o", "json").items
    assert (item["path"], item["state"], len(item["sha256"])) == (str(file), "trusted", 64)
    file.write_text(file.read_text() + "# changed\n")
    assert b"changed" in cli("config", "trust", "--list").out
    assert cli(*CMD).code == 125
    assert cli("config", "trust", str(home)).code == 0
    assert cli(*CMD).code == 0
    assert cli("config", "trust", "--revoke").code == 0
    assert cli(*CMD).code == 125
    assert cli("config", "trust", "--revoke").code == 3
    assert cli("config", "trust", "none.toml").code == 3


def test_a_file_that_others_may_write_is_told_once(cli: Cli, home: Path) -> None:
    (home / "vmrunner.toml").chmod(0o666)
    shown = cli("config", "show")
    assert shown.code == 0
    lines = [line for line in shown.err.decode().splitlines() if "is not obeyed" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"vmrunner: warning: {home}/vmrunner.toml is not obeyed: others may")
    assert cli("config", "trust").code == 2


def test_all_faults_of_a_job_file_are_told_at_once(cli: Cli, home: Path) -> None:
    job = home / "j.yml"
    job.write_text(
        "jobs:\n  a:\n    steps: [make]\n    secrets: [TOKEN, K=@none]\n    timeout: 9h\n"
        "    source: none\n    cpus: many\n"
    )
    done = cli("run", "--dry-run", "-f", "j.yml", "--allow-secret", "TOKEN")
    assert done.code == 125
    assert [line.split(": ")[2:4] for line in done.err.decode().splitlines()] == [
        ["j.yml:4", "secret"],
        ["j.yml:4", "secret"],
        ["j.yml:5", "timeout"],
        ["j.yml:6", "source"],
        ["j.yml:7", "jobs.a.cpus"],
    ]
    job.write_text(f"jobs:\n  a:\n    steps: [make]\n    source: git+file://{home}/none@main\n")
    for options in (["--dry-run"], []):
        output = cli("run", *options, "-f", "j.yml", "--allow-host-files").err.decode()
        assert f"vmrunner: error: j.yml:4: source: file://{home}/none cannot be fetched" in output


def test_what_a_job_file_asks_for_is_refused_or_told(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    (home / "checkout").mkdir()
    (home / "key").write_text("s3cret")
    (home / "checkout/j.yml").write_text(
        "jobs: {a: {steps: [make], secrets: [TOKEN]}, b: {steps: [make], secrets: ['K=@../key']}}"
    )
    job = ("run", "--dry-run", "-f", "checkout/j.yml")
    assert cli(*job, "a").code == 125
    assert b"--allow-secret TOKEN" in cli(*job, "a").err
    assert cli(*job, "a", "--secret", "TOKEN").code == 0
    done = cli(*job, "a", "--allow-secret", "TOKEN")
    assert done.code == 0
    assert done.err.startswith(b"vmrunner: the job file takes the variable TOKEN\n")
    assert cli(*job, "b", "--allow-secret", "K").code == 125
    done = cli(*job, "b", "--allow-host-files")
    assert done.err.startswith(b"vmrunner: the job file takes the file K=@../key\n")
    assert b"hunter2" not in done.err + done.out
