"""Caches between real VMs, and what a build used, as its VM and its host say."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.vm.home import Home, text

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1500)]

CACHES = (
    "--cache=pip-{hash:a.lock}=/root/.cache/pip",
    "--cache=kept=/work/kept",
    "--cache=walled=/root/walled",
    "--cache=vms=/root/vms",
)
#: Links of all kinds; two of the directories that are to be kept are links themselves, which would
#: lead to the VM's own files if anybody followed them from there.
LEAVE = """
mkdir -p /root/.cache/pip/deep kept
echo one >/root/.cache/pip/deep/file
ln /root/.cache/pip/deep/file /root/.cache/pip/hard
ln -s /etc/shadow /root/.cache/pip/soft
chown 12:34 /root/.cache/pip/deep/file
chmod 4751 /root/.cache/pip/deep/file
echo two >kept/file
ln -s /etc /root/walled
ln -s /var/lib/vmrunner /root/vms
head -c 30000000 /dev/zero >big
sync big
"""
FIND = """
cat /root/.cache/pip/hard kept/file
stat -c '%u:%g %a %h' /root/.cache/pip/deep/file
readlink /root/.cache/pip/soft
ls -d /root/walled/hostname
"""


def ran(home: Home, script: str) -> tuple[str, dict[str, Any]]:
    """The build's log, and all that is known of it."""
    done = home.run("run", "--source=.", *CACHES, "--", "sh", "-ec", script)
    assert done.returncode == 0, text(done.stderr)
    (shown,) = home.items("show", home.builds()[0]["id"])
    return text(done.stdout), shown


def outcomes(shown: dict[str, Any]) -> list[tuple[str, str]]:
    events = [event["data"] for event in shown["events"] if event["kind"] == "cache"]
    return [(event["path"], event["outcome"]) for event in events]


def test_a_clone_has_what_another_left(home: Home) -> None:
    (home.root / "cwd" / "a.lock").write_text("1")
    made = home.run("image", "build", timeout=1200)  # with the template that both are clones of
    assert made.returncode == 0, text(made.stderr)
    _, first = ran(home, LEAVE)
    _check_usage(first)
    assert outcomes(first)[-4:] == [
        ("/root/vms", "not_saved"),  # nothing of that name in the container
        ("/root/.cache/pip", "saved"),
        ("/work/kept", "saved"),
        ("/root/walled", "saved"),
    ]
    stored = {item["path"]: item for item in home.items("cache", "ls")}
    assert stored["/root/.cache/pip"]["key"].startswith("pip-")
    names = _names(home, stored["/root/walled"]["size"])
    assert {"hostname", "passwd"} <= names  # the container's
    assert names.isdisjoint({"vmrunner", "docker", "ssh"})  # the VM's
    log, second = ran(home, FIND)
    assert log.split("\n")[:5] == [
        "one", "two", "12:34 4751 2", "/etc/shadow", "/root/walled/hostname",
    ]  # fmt: skip
    restored = [path for path, outcome in outcomes(second) if outcome == "restored"]
    assert restored == ["/root/.cache/pip", "/work/kept", "/root/walled"]
    assert (first["start"], second["start"]) == ("resumed", "resumed")


def _check_usage(shown: dict[str, Any]) -> None:
    used = shown["usage"]
    assert None not in used.values(), used
    assert used["memory_peak"] > 1 << 20
    assert 0 < used["cpu_seconds"] < used["vm_cpu_seconds"]
    assert used["vm_disk"] > 1 << 20


def _names(home: Home, size: int) -> set[str]:
    """The names in the stored tar of that size."""
    (file,) = (
        path
        for path in Path(home.data / "store").rglob("*")
        if path.is_file() and "/cache/" in str(path) and path.stat().st_size == size
    )
    with tarfile.open(file) as tar:
        return {name.partition("/")[0] for name in tar.getnames()}
