"""What `scripts/setup` decides: who installs Debian's packages, or which line to run by hand.

It runs with a PATH of its own, on which everything that would change a machine is a fake."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/setup"
GUARD = "/usr/sbin/policy-rc.d"
REAL = ("awk", "basename", "bash", "cat", "cut", "dirname", "env", "grep", "sha256sum", "sh")
FAKES = {
    "id": 'echo "$ID"',
    "sudo": '[ "$SUDO" = yes ] || exit 1; shift; exec "$@"',
    "apt-get": """[ "$1" = install ] || exit 0
[ ! -e "$GUARD" ] || echo guarded >>"$CALLS"
[ "$INSTALL" != killed ] || kill -TERM $PPID
exit $INSTALL""",
    "dpkg-query": 'echo "$INSTALLED"',
    "tee": 'cat >"$1"',
    "systemctl": ":",
    "chmod": ":",
    "rm": f'exec {shutil.which("rm")} "$@"',
    "true": ":",
    "python": "exit 9",  # all is decided: it went on to make .venv
}
PACKAGES = SCRIPT.read_text().partition("packages=(")[2].partition(")")[0].split()

Setup = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """(exit code, what was called that matters, stderr); all packages but git are there."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    (tmp_path / "scripts").mkdir()
    guard = tmp_path / "policy-rc.d"
    (tmp_path / "scripts/setup").write_text(SCRIPT.read_text().replace(GUARD, str(guard)))
    for name in REAL:
        (programs / name).symlink_to(str(shutil.which(name)))
    for name, body in FAKES.items():
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"$CALLS"\n{body}\n')
        (programs / name).chmod(0o755)

    def run(*, user: int, sudo: str | None, lacks: tuple[str, ...] = ("git",), install: str = "0"):
        if sudo is None:
            (programs / "sudo").unlink()
        environ = {
            "PATH": str(programs),
            "CALLS": str(calls),
            "PYTHON": "python",
            "ID": str(user),
            "SUDO": sudo or "",
            "INSTALL": install,
            "GUARD": str(guard),
            "INSTALLED": "\n".join(f"{p} installed" for p in PACKAGES if p not in lacks),
        }
        done = subprocess.run(
            ["bash", tmp_path / "scripts/setup"],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not guard.exists()
        lines = calls.read_text().splitlines()
        mine = [call for call in lines if call.split()[0] in ("sudo", "apt-get", "guarded")]
        return done.returncode, mine, done.stderr

    return run


INSTALL = "apt-get install -y --no-install-recommends git"


def test_root_needs_no_sudo(setup: Setup) -> None:
    code, calls, err = setup(user=0, sudo="no")
    assert code == 9, err
    assert calls == ["apt-get update -q", INSTALL, "guarded"]


def test_an_ordinary_user_installs_by_sudo_without_a_password(setup: Setup) -> None:
    code, calls, err = setup(user=1000, sudo="yes")
    assert code == 9, err
    assert "sudo -n apt-get update -q" in calls
    assert f"sudo -n env DEBIAN_FRONTEND=noninteractive {INSTALL}" in calls


@pytest.mark.parametrize(
    ("sudo", "line"),
    [
        ("no", f"sudo apt-get update && sudo {INSTALL} nftables"),
        (None, f"apt-get update && {INSTALL} nftables"),
    ],
    ids=["a password", "no sudo"],
)
def test_who_may_not_install_is_told_the_line(setup: Setup, sudo: str | None, line: str) -> None:
    code, calls, err = setup(user=1000, sudo=sudo, lacks=("nftables", "git"))
    assert code == 1
    assert f"\n  {line}\n" in err
    assert not [call for call in calls if not call.startswith("sudo -n true")]


@pytest.mark.parametrize("user", [0, 1000])
def test_with_all_there_nobody_is_asked(setup: Setup, user: int) -> None:
    code, calls, err = setup(user=user, sudo=None, lacks=())
    assert (code, calls) == (9, []), err


@pytest.mark.parametrize(("install", "code"), [("0", 9), ("100", 100), ("killed", -15)])
def test_services_are_kept_from_starting_only_while_it_installs(
    setup: Setup, install: str, code: int
) -> None:
    """`setup` here sees to it that nothing is left, whatever comes of the installation."""
    got, calls, err = setup(user=0, sudo=None, install=install)
    assert got == code, err
    assert "guarded" in calls
