"""Files of a sandbox that somebody else changes meanwhile, or has an owner, or a mount over it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.guest_sandbox import Sandbox, sandbox

pytestmark = pytest.mark.timeout(60)
__all__ = ["sandbox"]


def test_a_file_that_is_written_anew_keeps_owner_and_mode(sandbox: Sandbox) -> None:
    path = sandbox.guest.work / "tool"
    path.write_text("1")
    owner = (1234, 1235) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    os.chown(path, *owner)
    path.chmod(0o4750)
    assert sandbox.file("write", path, b"2").returncode == 0
    info = path.stat()
    assert (path.read_text(), info.st_uid, info.st_gid) == ("2", *owner)
    assert stat.S_IMODE(info.st_mode) == 0o4750


def test_a_file_that_is_mounted_is_written_in_place(sandbox: Sandbox) -> None:
    """As Docker mounts /etc/hosts: nothing can be put in its place."""
    sandbox.guest.set(
        "import os, errno; was = os.rename\n"
        "def rename(old, new):\n"
        "    if new.endswith('/hosts'): raise OSError(errno.EBUSY, 'Device or resource busy')\n"
        "    was(old, new)\n"
        "os.rename = rename"
    )
    path = sandbox.guest.work / "hosts"
    path.write_text("127.0.0.1 localhost and more\n")
    inode = path.stat().st_ino
    assert sandbox.file("write", path, b"127.0.0.1 a\n").returncode == 0
    assert (path.read_text(), path.stat().st_ino) == ("127.0.0.1 a\n", inode)
    assert [path.name for path in sandbox.guest.work.iterdir()] == ["hosts"]


GONE = (
    "import os; was = os.lstat\n"
    "def lstat(path, **more):\n"
    "    if str(path).endswith('/gone'): os.unlink(path)\n"
    "    return was(path, **more)\n"
    "os.lstat = lstat"
)


def test_what_goes_while_a_directory_is_read_is_left_out(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.guest.set(GONE)
    (work := sandbox.guest.work / "d").mkdir()
    for name in ("a", "gone", "z"):
        (work / name).write_text(name)
    listed = sandbox.file("list", work)
    assert [json.loads(line)["name"] for line in listed.stdout.splitlines()] == ["a", "z"]
    (work / "gone").touch()
    packed = sandbox.file("pack", work)
    assert packed.returncode == 0, packed.stderr
    names = subprocess.run(["tar", "-t"], input=packed.stdout, capture_output=True, check=True)
    assert names.stdout == b"a\nz\n"


def test_a_file_of_two_names_comes_under_both(sandbox: Sandbox, tmp_path: Path) -> None:
    (work := sandbox.guest.work / "d").mkdir()
    (work / "a").write_text("1")
    os.link(work / "a", work / "b")
    packed = sandbox.file("pack", work)
    subprocess.run(["tar", "-x"], input=packed.stdout, cwd=tmp_path, check=True)
    assert [(tmp_path / name).read_text() for name in "ab"] == ["1", "1"]
    assert (tmp_path / "b").stat().st_nlink == 1, "a host takes no second name from a VM"
