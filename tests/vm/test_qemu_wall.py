"""The wall holds, as seen by root in the guest. The guest reads tokens: that a connection
succeeds proves nothing on networks that answer for everybody."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm import stand_in
from tests.vm.qemu_fixture import cache_dir, make_provider, template_of
from vmrunner import images
from vmrunner.model import Network

pytestmark = pytest.mark.vm

USER = pwd.getpwnam("nobody").pw_uid  # `ssh` refuses a user without a name
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that an ordinary user can enter, with the image in a cache of its own."""
    with tempfile.TemporaryDirectory(prefix="vmrunner-wall-") as name:
        place = Path(name)
        image = images.resolve(cache_dir()).directory
        shutil.copytree(image, place / "cache" / "images" / image.name, copy_function=link_or_copy)
        (place / "state").mkdir()
        for directory in (place, place / "cache", place / "cache" / "images"):
            directory.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(place / "state", USER, USER)
        yield place


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def reached(network: str, place: Path, *, ordinary: bool) -> dict[str, Any]:
    """What the guest reached: in a network namespace without any way out."""
    root = os.geteuid() == 0
    words = ["unshare", "--net", "--mount", *([] if root else ["--user", "--map-root-user"])]
    words += [sys.executable, "-m", "tests.vm.wall", network]
    words += [
        str(place / "cache"),
        str(place / "state"),
        *([str(USER)] if ordinary and root else []),
    ]
    done = subprocess.run(
        words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=420, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def put_template(place: Path, state: Path, network: Network, *, ordinary: bool) -> None:
    """Put a template of such VMs into that place's cache: a copy, for it may have another owner."""
    template = template_of(make_provider(state), network).directory
    directory = place / "cache/templates" / template.name
    directory.parent.mkdir()
    subprocess.run(["cp", "--recursive", "--sparse=always", template, directory], check=True)
    if ordinary and os.geteuid() == 0:
        for path in (directory.parent, directory, *directory.iterdir()):
            os.chown(path, USER, USER)


@pytest.mark.parametrize(
    "start", ["resumed", pytest.param(None, id="booted", marks=pytest.mark.long)]
)
def test_open_reaches_the_internet_and_nothing_else(
    place: Path, tmp_path: Path, start: str | None
) -> None:
    """Run as an ordinary user."""
    if start:
        put_template(place, tmp_path, Network.OPEN, ordinary=True)
    seen = reached("open", place, ordinary=True)
    token = seen["token"]
    internet = {f"{how} {stand_in.INTERNET}" for how in ("tcp", "udp")}
    gateway = {f"{how} {stand_in.OTHERS[0]}" for how in ("tcp", "udp")}  # a public address too
    answered = {job for job, output in seen["first"].items() if token in output}
    assert answered == internet | gateway
    assert seen["first"]["name "] == stand_in.INTERNET
    resolved = {job: output for job, output in seen["first"].items() if job.startswith("asked")}
    assert stand_in.INSIDE not in resolved.values(), "no resolver of the host's own network"
    assert resolved["asked 10.0.2.3"] == stand_in.INTERNET, "QEMU's, which asks the configured one"
    assert {job for job, output in seen["later"].items() if token in output} == internet
    if os.geteuid() == 0:
        assert seen["uids"] == [USER]
    assert seen["start"] == start


@pytest.mark.parametrize(
    "start", ["resumed", pytest.param(None, id="booted", marks=pytest.mark.long)]
)
def test_none_reaches_nothing(place: Path, tmp_path: Path, start: str | None) -> None:
    """Run as whoever runs the tests: as root, QEMU must be somebody else."""
    if start:
        put_template(place, tmp_path, Network.NONE, ordinary=False)
    seen = reached("none", place, ordinary=False)
    everything = {**seen["first"], **seen["later"]}
    assert [job for job, output in everything.items() if seen["token"] in output] == []
    assert stand_in.INTERNET not in everything["name "]
    assert len(everything) > 30
    assert 0 not in seen["uids"] or os.geteuid() != 0
    assert seen["start"] == start
