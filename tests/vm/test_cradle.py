"""What a QEMU that was taken over finds around it: a shell lies in the cradle in its place. Needs
the namespaces that a VM needs, and no VM."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.vm

USER = pwd.getpwnam("nobody").pw_uid

LOOK = """
ls -d /proc/* | tr '\\n' ' '
ls /proc/self | tr '\\n' ' '
cat /proc/self/fd/20
cat /proc/1/cmdline /proc/%d/cmdline 2>/dev/null && echo seen
umount /proc 2>/dev/null && echo uncovered
find /run -type s
head -c 1 /etc/resolv.conf >/dev/null || echo no resolver
mount -t proc proc /tmp 2>/dev/null && echo mounted
"""

ROCK = """
import json, os, sys
from vmrunner.providers.qemu import linux, plan
from vmrunner.providers.qemu.cradle import Lying, rock
uid, file, look = int(sys.argv[1]), os.open(sys.argv[2], os.O_RDONLY), sys.argv[3]
if uid != os.geteuid():
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    linux.be_dumpable()
lying = Lying(
    qemu=["/bin/sh", "-c", look],
    pasta=None,
    tun=False,
    nft="/bin/true",
    rules="",
    address="127.0.0.1",
    port=0,
    user=plan.user("vm-1"),
    hide=[],
)
cradle = rock(lying, {20: file})
def all_of(end):
    text = b""
    while part := os.read(end, 65536):
        text += part
    return text.decode()
print(json.dumps([all_of(end) for end in (cradle.console, cradle.errors, cradle.news)]))
cradle.kill()
"""


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


@pytest.mark.parametrize(
    "uid", sorted({os.geteuid(), USER} if os.geteuid() == 0 else {os.geteuid()})
)
def test_a_taken_over_qemu_sees_no_process_and_no_service_of_the_host(
    tmp_path: Path, uid: int
) -> None:
    file = tmp_path / "file"
    file.write_text("its file\n")
    with service():
        done = subprocess.run(
            [sys.executable, "-c", ROCK, str(uid), str(file), LOOK % os.getpid()],
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
            text=True,
        )
    console, errors, news = json.loads(done.stdout)
    assert console == "/proc/self fd its file\n", (errors, news)
    words: list[dict[str, Any]] = [json.loads(line) for line in news.splitlines()]
    assert [list(word) for word in words] == [["running"], ["exit"]]
