"""Who root in a build's container is to the VM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vmrunner.guest import docker, userns
from vmrunner.guest.state import Place

PLAIN = {"docker": False, "privileged": False}


def root(tmp_path: Path, job: dict[str, Any], *, setting: str | None, ranges: str) -> int | None:
    daemon, subuid = tmp_path / "daemon.json", tmp_path / "subuid"
    if setting is not None:
        daemon.write_text(json.dumps({"userns-remap": setting}))
    subuid.write_text(ranges)
    return userns.root(job, str(daemon), str(subuid))


@pytest.mark.parametrize(
    ("job", "setting", "owner"),
    [
        (PLAIN, None, None),
        (PLAIN, "", None),
        (PLAIN, "default", 231072),
        (PLAIN | {"docker": True}, "default", None),
        (PLAIN | {"privileged": True}, "default", None),
    ],
)
def test_only_a_build_that_is_remapped_has_another_owner(
    tmp_path: Path, job: dict[str, Any], setting: str | None, owner: int | None
) -> None:
    ranges = "someone:100000:65536\ndockremap:231072:65536\n"
    assert root(tmp_path, job, setting=setting, ranges=ranges) == owner


def test_a_missing_range_is_no_root_of_the_vm(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no range for dockremap"):
        root(tmp_path, PLAIN, setting="default", ranges="someone:100000:65536\n")


@pytest.mark.parametrize("shares", ["docker", "privileged"])
def test_who_needs_the_vms_own_users_says_so(shares: str) -> None:
    job = {
        **PLAIN,
        "container": "x",
        "secrets": {},
        "network": "none",
        "runtime": "runc",
        "log_bytes": 1,
        "build": "b",
    }
    place = Place("/r", "/l")
    assert "UsernsMode" not in docker.container(job, place=place, work="/w")["HostConfig"]
    body = docker.container(job | {shares: True}, place=place, work="/w")
    assert body["HostConfig"]["UsernsMode"] == "host"
