"""What a QEMU that was taken over finds around it: python lies in the jail in its place.
Needs the namespaces that a VM needs, and no VM."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.vm

USER = pwd.getpwnam("nobody").pw_uid

#: What a QEMU that was taken over tries, in python: says what worked.
LOOK = """
import ctypes, os, resource, socket, sys

def tried(name, call):
    try:
        print(name, call())
    except OSError as error:
        print(name, error.strerror)

def wrote(path):
    with open(path, "r+" if os.path.exists(path) else "w") as file:
        file.write("x")
    return "WROTE"

libc = ctypes.CDLL(None, use_errno=True)
def asked(number, *words):
    if libc.syscall(number, *words) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "ALLOWED"

print("own", os.read(20, 100), os.read(101, 100))
print("root", sorted(os.listdir("/")), sorted(os.listdir("/dev")), sorted(os.listdir("/proc/self")))
for number in (101, 104):
    path = f"/proc/self/fd/{number}"
    tried(f"{number} reopen", lambda: wrote(path))
    tried(f"{number} chmod", lambda: os.chmod(path, 0o666))
tried("104 read anew", lambda: os.read(os.open(path, os.O_RDONLY), 100))
for place in ("/", "/usr", "/dev", "/proc/self", "/etc"):
    tried(place, lambda: wrote(place + "/vmrunner-test"))
tried("null", lambda: wrote("/dev/null"))
for path in sys.argv[1:]:
    tried(f"see {path}", lambda: os.stat(path))
for place in ("/", "/usr", "/proc/self/fd", "/dev/null"):
    flags = os.statvfs(place).f_flag
    names = [name for name in ("RDONLY", "NOSUID", "NODEV") if flags & getattr(os, "ST_" + name)]
    print("mount", place, *names)
tried("keyctl", lambda: asked(250, 1, None))
tried("userns", lambda: asked(272, 0x10000000))
tried("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
tried("inet", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close())
print("limit", resource.getrlimit(resource.RLIMIT_FSIZE)[1])
"""

START = """
import json, os, sys
from pathlib import Path
import socket, tempfile
from vmrunner.lib import unix_sockets
from vmrunner.providers.qemu import processes, syscalls
from vmrunner.providers.qemu.jail import JailSpec, start_jail
uid, file, images, hide, *qemu = map(json.loads, sys.argv[1:])
file = os.open(file, os.O_RDONLY)
if uid != os.geteuid():
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    syscalls.be_dumpable()
spec = JailSpec(
    qemu=qemu,
    pasta=None,
    tun=False,
    nft="/bin/true",
    rules="",
    resolver=None,
    user=processes.user("vm-1"),
    images=images,
    hide=hide,
    limits={"RLIMIT_FSIZE": 1 << 30},
)
with tempfile.TemporaryDirectory() as place, unix_sockets.listen(Path(place) / "ssh") as listener:
    jail = start_jail(spec, {20: file}, listener)
def all_of(end):
    text = b""
    while part := os.read(end, 65536):
        text += part
    return text.decode()
print(json.dumps([all_of(end) for end in (jail.console, jail.errors, jail.news)]))
jail.kill()
"""


def lain(uid: int, file: Path, images: list[Any], hide: list[str], *qemu: str) -> tuple[str, str]:
    """What a program in QEMU's place says on stdout and on stderr."""
    words = [json.dumps(word) for word in (uid, str(file), images, hide, *qemu)]
    done = subprocess.run(
        [sys.executable, "-c", START, *words],
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
        text=True,
    )
    console, errors, news = json.loads(done.stdout)
    messages: list[dict[str, Any]] = [json.loads(line) for line in news.splitlines()]
    assert [list(word) for word in messages] == [["running"], ["exit"]]
    return console, errors


@contextlib.contextmanager
def service() -> Iterator[None]:
    """A socket such as Docker's, where there may be none and we may make one."""
    if os.geteuid() != 0:
        yield
        return
    path = Path(f"/run/vmrunner-test-{os.getpid()}.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        try:
            yield
        finally:
            path.unlink()


def whom() -> list[tuple[int, int]]:
    """A user to run as, and the mode of his image: what he may write himself; as root, what all may
    write, and what QEMU's own user may not even read."""
    if os.geteuid() != 0:
        return [(os.geteuid(), 0o600)]
    return [(USER, 0o600), (0, 0o666), (0, 0o600)]


@pytest.mark.parametrize(("uid", "mode"), whom())
def test_a_taken_over_qemu_finds_only_its_own_files(uid: int, mode: int) -> None:
    master, terminal = pty.openpty()
    with tempfile.TemporaryDirectory(prefix="vmrunner-jail-") as name, service():
        file, image = Path(name) / "file", Path(name) / "base"
        file.write_text("its file")
        image.write_text("its image")
        image.chmod(mode)
        Path(name).chmod(0o755)
        for path in (image, os.ttyname(terminal)):
            os.chown(path, uid, -1)
        hidden = ("/run", "/usr/share/doc", "/home", "/dev/shm", "/sys", "/tmp")
        seen = (str(image), os.ttyname(terminal), *hidden)
        images = [(101, str(image)), (104, str(image))]
        words = ("/usr/bin/python3", "-c", LOOK, *seen)
        console, errors = lain(uid, file, images, ["/usr/share"], *words)
        assert image.read_text() == "its image"
    os.close(master)
    os.close(terminal)
    assert errors == ""
    read_only, refused = "Read-only file system", "Operation not permitted"
    copied = refused if (uid, mode) == (0, 0o600) else read_only  # sealed, in memory
    assert console.splitlines() == [
        "own b'its file' b'its image'",
        "root ['bin', 'dev', 'etc', 'lib', 'lib64', 'proc', 'sbin', 'usr'] "
        "['null', 'random', 'urandom', 'zero'] ['fd']",
        *(f"101 reopen {'Permission denied' if copied is refused else read_only}",),
        *(f"101 chmod {read_only}",),
        *(f"104 reopen {copied}", f"104 chmod {copied}", "104 read anew b'its image'"),
        *(f"{place} {read_only}" for place in ("/", "/usr", "/dev", "/proc/self", "/etc")),
        "null WROTE",
        *(f"see {path} No such file or directory" for path in seen),
        *(f"mount {place} RDONLY NOSUID NODEV" for place in ("/", "/usr", "/proc/self/fd")),
        "mount /dev/null RDONLY NOSUID",
        *(f"{call} {refused}" for call in ("keyctl", "userns", "vsock")),
        "inet None",
        f"limit {1 << 30}",
    ]


def test_a_custom_qemu_gets_its_libraries_and_firmware_only() -> None:
    """As one in /opt/qemu, or in somebody's home."""
    outside = "/opt" if os.geteuid() == 0 else Path.home()  # /tmp is the jail's own
    with tempfile.TemporaryDirectory(prefix="vmrunner-jail-", dir=outside) as name:
        home = Path(name)
        for place in ("bin", "share/qemu", "share/hidden/x", "lib", "data"):
            (home / place).mkdir(parents=True)
        shutil.copy("/usr/bin/find", home / "bin/qemu")
        (home / "data/secret").touch()
        home.chmod(0o755)
        program = str(home / "bin/qemu")
        console, errors = lain(
            os.geteuid(), Path("/dev/null"), [], [str(home / "share/hidden")], program, name
        )
    assert errors == ""
    found = {Path(line).relative_to(name) for line in console.splitlines()}
    assert found == {
        Path(p) for p in (".", "bin", "bin/qemu", "lib", "share", "share/hidden", "share/qemu")
    }
