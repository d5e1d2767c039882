"""The scripts beside Packer's templates: each is a shell's, and containers come as the local
builder makes them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.packer import PACKER
from vmrunner.images import recipe
from vmrunner.images.local import docker_store, rootfs

SCRIPTS = sorted(PACKER.rglob("*.sh"))

MADE = {
    "name": "debian:trixie",
    "pull": None,
    "suite": "trixie",
    "packages": ["git", "python3"],
    "command": ["bash", "-c", 'echo "$HOME"'],
    "env": {"PATH": recipe.PATH, "LANG": "C.UTF-8"},
}
PULLED = {**MADE, "name": "python:3.13", "pull": "docker.io/library/python:3.13"}


@pytest.fixture(scope="module")
def containers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("c", PACKER / "provision/containers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(PACKER)))
def test_a_script_is_a_shells_and_stops_at_what_fails(script: Path) -> None:
    text = script.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert "\nset -eu\n" in text
    done = subprocess.run(["sh", "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_container_is_imported_as_the_local_builder_imports_it(containers: ModuleType) -> None:
    given = recipe.Container(
        name=MADE["name"],
        suite=MADE["suite"],
        packages=tuple(MADE["packages"]),
        command=tuple(MADE["command"]),
        env=MADE["env"],
    )
    root, into = containers.make(MADE)
    changes = ['CMD ["bash", "-c", "echo \\"$HOME\\""]', 'ENV LANG="C.UTF-8"']
    changes.append(f'ENV PATH="{recipe.PATH}"')
    flags = [word for change in changes for word in ("--change", change)]
    assert into == ["docker", "import", *flags, "-", given.name]
    config = json.loads(docker_store._config(given, (), ""))["config"]
    assert config == {"Cmd": MADE["command"], "Env": ["LANG=C.UTF-8", f"PATH={recipe.PATH}"]}
    assert "--include=git,python3" in root
    assert (containers.EXCLUDED, containers.KEPT) == (rootfs._EXCLUDED, rootfs._KEPT)


def stand_ins(place: Path, **scripts: str) -> dict[str, str]:
    """Programs of these names that note how they were called; their standard input too."""
    place.mkdir()
    for name, text in scripts.items():
        program = place / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>"{place}/calls"\n{text}\n')
        program.chmod(0o755)
    return {**os.environ, "PATH": f"{place}:{os.environ['PATH']}"}


def load(tmp_path: Path, listed: list[object], env: dict[str, str]) -> int:
    file = tmp_path / "containers.json"
    file.write_text(json.dumps(listed))
    argv = [sys.executable, str(PACKER / "provision/containers.py"), "load", str(file)]
    return subprocess.run(argv, env=env, capture_output=True, timeout=60).returncode


def test_containers_are_made_and_pulled_in_their_order(tmp_path: Path) -> None:
    place = tmp_path / "bin"
    docker = f'[ "$1" != import ] || cat >"{place}/root"'
    env = stand_ins(place, mmdebstrap="echo the root", docker=docker)
    assert load(tmp_path, [MADE, PULLED], env) == 0
    calls = (place / "calls").read_text().splitlines()
    assert [" ".join(call.split()[:2]) for call in sorted(calls[:2])] == [
        "docker import",
        "mmdebstrap --variant=minbase",
    ]
    assert calls[2:] == [
        "docker pull --quiet docker.io/library/python:3.13",
        "docker tag docker.io/library/python:3.13 python:3.13",
    ]
    assert (place / "root").read_text() == "the root\n"


@pytest.mark.parametrize("broken", ["mmdebstrap", "docker"])
def test_a_container_that_fails_fails_the_build(tmp_path: Path, broken: str) -> None:
    works = {"mmdebstrap": "echo the root", "docker": "cat >/dev/null"}
    env = stand_ins(tmp_path / "bin", **{**works, broken: "exit 3"})
    assert load(tmp_path, [MADE], env) != 0


@pytest.mark.parametrize(
    ("listed", "expected"),
    [([], ""), ([MADE], "made"), ([PULLED], "pulled"), ([PULLED, MADE], "made pulled")],
)
def test_what_is_needed_is_known_before(
    containers: ModuleType, listed: list[object], expected: str
) -> None:
    assert containers.kinds(listed) == expected
