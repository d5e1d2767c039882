"""Bad input, row by row: one line with field, value and fix, the right exit code, nothing started,
nothing left."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.command_line import isolated
from vmrunner import images
from vmrunner.cli import main
from vmrunner.config.sources import load
from vmrunner.errors import BadOrder
from vmrunner.providers.qemu import launch_plan
from vmrunner.runtime import app

Run = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    isolated(tmp_path, monkeypatch)
    # Should a check fail to refuse, then no VM is started, no image made, and nothing is open.
    monkeypatch.setenv("VMRUNNER_DEFAULTS__NETWORK", "none")
    monkeypatch.setattr("vmrunner.providers.qemu.provider.QemuProvider.create", _never)
    monkeypatch.setattr("vmrunner.images.build", _never)
    image(tmp_path / "cache/vmrunner", identity=images.current())
    return tmp_path


def _never(*_: object, **__: object) -> None:
    raise BadOrder("something was started that should have been refused")


def image(
    cache: Path,
    name: str = "default",
    identity: str = "0123456789abcdef0123",
    packages: Sequence[str] = ("docker.io",),
) -> Path:
    """What passes for a complete local image until it is booted."""
    directory = cache / "images" / identity
    directory.mkdir(parents=True)
    files = {}
    for file in ("disk.qcow2", "vmlinuz", "initrd.img"):
        (directory / file).write_bytes(b"x" * 10)
        files[file] = {"size": 10, "sha256": "0" * 64}
    manifest = {
        "hash": identity,
        "name": name,
        "cmdline": "",
        "containers": ["debian:trixie"],
        "packages": list(packages),
        "created": 1_700_000_000.0,
        "virtual_size": 1 << 30,
        "files": files,
    }
    (directory / "image.json").write_text(json.dumps(manifest))
    return directory


@pytest.fixture
def run(home: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    def run(*argv: str) -> tuple[int, bytes, bytes]:
        code = main(argv)
        return (code, *capfdbinary.readouterr())

    return run


def refused(run: Run, *argv: str, code: int = 125) -> str:
    """Run it; the one line of error. Nothing was started and nothing is in the ledger."""
    got, out, err = run(*argv)
    text = err.decode()
    assert (got, out) == (code, b""), text
    assert text.startswith("vmrunner: error: ")
    assert text.count("\n") == 1, text
    return text.removeprefix("vmrunner: error: ").rstrip()


def assert_nothing(home: Path) -> None:
    parts = app.App(load(environ={}, start=home / "data").settings)
    try:
        assert parts.ledger.builds.list() == []
        assert parts.ledger.instances.list() == []
    finally:
        parts.close()
    assert not list((home / "data").rglob("*.tar*"))
    qemu = home / "data/vmrunner/qemu"
    assert not [p for p in qemu.rglob("*") if p.is_dir() and "vm-" in p.name]


CMD = ("--", "true")


KNOWN_BEFOREHAND = [
    (("--provider", "aws", *CMD), "provider: no provider 'aws' is configured (one of: local)"),
    (("--image", "nope", *CMD), "image: 'nope' is not in "),
    (
        ("--image", "ubuntu:24.04", *CMD),
        "image: 'ubuntu:24.04' is no VM image, which is what the VM boots from (there: default) "
        "(a container's image is another option: --container ubuntu:24.04, or",
    ),
    (("--container", "De bian", *CMD), "container: 'De bian' is not a container image's name"),
    (
        ("--network", "none", "--container", "python:3.13", *CMD),
        "container: 'python:3.13' is not in VM image 'default', and network is none (in it:",
    ),
    (("--timeout", "soon", *CMD), "timeout: 'soon' is not a duration (write it like 30m"),
    (("--ttl", "1 hour", *CMD), "ttl: '1 hour' is not a duration"),
    (("-l", "team", *CMD), "label: 'team' has no name and value (write NAME=VALUE)"),
    (("-l", "a b=c", *CMD), "label: 'a b' is not a label's name"),
    ((), "command: missing (put it after --, or name a job with -f FILE)"),
    (("--",), "command: missing"),
    (("make",), "command: 'make' is not after -- (vmrunner run -- make …; or -f FILE make"),
    (
        ("make", "test"),
        "command: 'make' is not after -- (vmrunner run -- make test; a container's image is "
        "--container IMAGE)",
    ),
    (
        ("debian", "sh", "x y"),
        "command: 'debian' is not after -- (vmrunner run -- debian sh 'x y'; a container's",
    ),
    (("--", " "), "command: ' ' names no program (such as -- make test)"),
    (("--source", "/", *CMD), "source: '/' is this whole system (name the directory of a project"),
    (("--source", "/nope", *CMD), "source: '/nope' does not exist (name a directory)"),
    (("--ttl", "5m", "--timeout", "10m", *CMD), "ttl: 5m is not longer than the timeout 10m"),
    (("--ttl", "9h", *CMD), "ttl: 9h is above limits.max_ttl 4h (a shorter ttl, or a larger"),
    (("-e", "A", *CMD), "env: 'A' has no name and value (write NAME=VALUE)"),
    (("--secret", "NOT_SET", *CMD), "secret: 'NOT_SET' is not set in the environment (export"),
    (("--secret", "A=b", *CMD), "secret: the value of 'A' is on the command line"),
    (("-a", "../x", *CMD), "artifact: '../x' is not below the work directory"),
    (("--memory", "lots", *CMD), "memory: 'lots' is not a size (write it like 512MiB"),
    (("--memory", "900TiB", *CMD), "memory"),
    (("--cpus", "4096", *CMD), "cpus"),
    (
        ("--network", "vpn", *CMD),
        "network: no policy 'vpn' (one of: open, none, allow=HOST[:PORT],…)",
    ),
    (
        ("--network", "allow=10.0.0.1", *CMD),
        "network: '10.0.0.1' is an address (an allow-list has names, such as",
    ),
    (
        ("--container-runtime", "runsc", *CMD),
        "container-runtime: VM image 'default' has no runsc (gVisor) (one with it: a recipe with "
        'packages = ["runsc"], such as',
    ),
    (("--container-runtime", "kata", *CMD), "container-runtime: no runtime 'kata' (one of: runc,"),
    (("--container-runtime", "runsc", "--docker", *CMD), "docker: runsc (gVisor) cannot give it"),
    (("-f", "none.yml"), "file: no file 'none.yml' (name it with -f)"),
    (("--result-file", "/nope/r.json", *CMD), "result-file: '/nope/r.json' cannot be written"),
]

beforehand = pytest.mark.parametrize(
    ("argv", "message"),
    KNOWN_BEFOREHAND,
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)


@beforehand
def test_what_can_be_known_beforehand(run: Run, home: Path, argv: list[str], message: str) -> None:
    assert refused(run, "run", *argv).startswith(message)
    assert_nothing(home)


@beforehand
def test_bad_input_makes_no_image_first(
    run: Run, home: Path, argv: list[str], message: str
) -> None:
    """The same with an image that an upgrade made stale: `home` forbids to build one."""
    cache = home / "cache/vmrunner"
    shutil.rmtree(cache / "images")
    image(cache)
    assert refused(run, "run", *argv).startswith(message)
    assert_nothing(home)


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_bad_git_ref(run: Run, home: Path, options: tuple[str, ...]) -> None:
    repository = home / "repo"
    identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
    commit = ["-C", str(repository), *identity, "commit", "-q", "--allow-empty", "-m", "x"]
    for argv in (["init", "-q", str(repository)], commit):
        subprocess.run(["git", *argv], check=True)
    message = refused(run, "run", *options, "--source", f"git+file://{repository}@nope", *CMD)
    assert message.startswith(f"source: file://{repository} has no 'nope'")
    assert "name a branch, a tag or a commit" in message
    message = refused(run, "run", *options, "--source", "git+file:///nope@main", *CMD)
    assert "cannot be fetched" in message
    assert_nothing(home)


def test_a_source_that_cannot_be_packed(run: Run, home: Path) -> None:
    source = home / "source"
    source.mkdir()
    (source / "out").symlink_to("/etc/passwd")
    assert "leads outside, to '/etc/passwd'" in refused(run, "run", "--source", "source", *CMD)
    assert_nothing(home)


def test_a_full_disk_while_the_source_is_packed(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "source").mkdir()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vmrunner.lib.archive.files.pack", full)
    message = refused(run, "run", "--source", "source", *CMD)
    assert message.startswith("source: ")
    assert "No space left on device" in message
    assert_nothing(home)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[limits]\nmax_tll = '1h'", "limits.max_tll: no such key (did you mean 'max_ttl'?)"),
        (
            "[providers.x]\nkind = 'qemo'",
            "providers.x.kind: no kind 'qemo' (one of: azure, ec2",
        ),
        ("[limits]\nmax_ttl = 'long'", "limits.max_ttl: 'long': not a duration (write it like"),
        ("limits = ", "not valid TOML"),
    ],
)
def test_a_bad_configuration(run: Run, home: Path, text: str, message: str) -> None:
    file = home / "vmrunner.toml"
    file.write_text(text)
    for argv, code in ((("run", *CMD), 125), (("ps",), 2)):
        line = refused(run, *argv, code=code)
        assert str(file) in line
        assert message in line
    file.unlink()
    assert_nothing(home)


def test_a_bad_job_file(run: Run, home: Path) -> None:
    (home / "j.yml").write_text("jobs:\n  test:\n    steps: [make]\n    timeuot: 3m\n")
    message = refused(run, "run", "-f", "j.yml", "test")
    assert message == "j.yml:4: jobs.test.timeuot: no such key (did you mean 'timeout'?)"
    (home / "j.yml").write_text("jobs: {test: {steps: [make]}}")
    assert refused(run, "run", "-f", "j.yml", "tset").startswith("job: no job 'tset' in j.yml")
    assert_nothing(home)


def test_an_image_with_gvisor_is_taken(run: Run, home: Path) -> None:
    image(home / "cache/vmrunner", "gvisor", "ff" * 10, ("docker.io", "runsc"))
    words = ("--image", "gvisor", "--container-runtime", "runsc", "--dry-run", "-o", "json")
    code, out, err = run("run", *words, *CMD)
    assert (code, json.loads(out)["items"][0]["runtime"]) == (0, "runsc"), err
    assert_nothing(home)


def test_a_corrupt_image(run: Run, home: Path) -> None:
    directory = next((home / "cache/vmrunner/images").iterdir())
    (directory / "disk.qcow2").write_bytes(b"short")
    message = refused(run, "run", *CMD)
    assert message.startswith(f"image: {directory.name} is damaged: disk.qcow2 has 5 bytes, not 10")
    assert "vmrunner image build" in message
    assert_nothing(home)


def test_without_qemu(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = launch_plan.find
    monkeypatch.setattr(
        launch_plan,
        "find",
        lambda program: None if program == launch_plan.emulator() else found(program),
    )
    message = refused(run, "run", *CMD)
    assert message.startswith(
        f"provider local: {launch_plan.emulator()} is not installed (apt install "
    )
    assert_nothing(home)


def test_a_database_from_a_newer_version(run: Run, home: Path) -> None:
    assert run("ps")[0] == 0
    ledger = home / "data/vmrunner/ledger.db"
    with sqlite3.connect(ledger) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    assert "newer" in refused(run, "run", *CMD)
    assert "newer" in refused(run, "ps", code=2)


def test_a_database_that_cannot_be_used(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMRUNNER_DATABASE_URL", "mysql://u:hunter2@h/x")
    message = refused(run, "ps", code=2)
    assert message.startswith("database.url: ")
    assert "hunter2" not in message


def test_a_wrong_installation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("ps")[0] == 0
    another = str(uuid.uuid4())
    monkeypatch.setenv("VMRUNNER_INSTALLATION", another)
    message = refused(run, "ps", code=2)
    assert f"installation is {another}, but the ledger belongs to" in message
    monkeypatch.setenv("VMRUNNER_INSTALLATION", another[:-1])
    assert "not a UUID (it lies beside the ledger" in refused(run, "reap", code=2)
