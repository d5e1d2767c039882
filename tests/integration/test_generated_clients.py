"""Clients that others generate of the API's document: they submit, follow, list, read a log and
cancel, and each value that comes back has a type."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_service import Service
from vmrunner.model import BuildChoice

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests/clients"
DOCUMENT = ROOT / "docs/openapi.json"


@pytest.fixture
def driven(http: Service) -> Iterator[Service]:
    """The service with an engine that drives what is submitted."""
    over = threading.Event()

    def drive() -> None:
        while not over.wait(0.05):
            for row in http.app.ledger.builds.page(BuildChoice(active=True), 10, 1 << 20).builds:
                http.runner.wait(row.id, timeout=60)

    thread = threading.Thread(target=drive)
    thread.start()
    yield http
    over.set()
    thread.join()


def run(*argv: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in argv], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def python_client(tmp_path: Path) -> Path:
    """A directory with the generated package and the program that uses it."""
    place = tmp_path / "client"
    place.mkdir()
    output = run(
        Path(sys.executable).with_name("openapi-python-client"), "generate", "--path", DOCUMENT,
        "--config", CLIENTS / "generate.yaml", "--meta", "none", "--fail-on-warning",
        "--output-path", "vmrunner_client",
        cwd=place,
    )  # fmt: skip
    assert "WARNING" not in output
    shutil.copy(CLIENTS / "use.py", place)
    return place


def test_a_generated_python_client_works(driven: Service, python_client: Path) -> None:
    report = json.loads(
        run(sys.executable, "use.py", driven.url, driven.token(), cwd=python_client)
    )
    assert report == {
        "result": True, "exit_code": 3, "failed_step": "exit 3", "log": "one\n", "listed": [True],
        "events": "phase", "cancel": "user", "end": "cancelled", "dry": True,
        "problem": [404, "NotFound", "vmrunner ps -a lists all"],
    }  # fmt: skip


def test_a_generated_python_client_has_types(python_client: Path) -> None:
    run(sys.executable, "-m", "mypy", "--strict", "use.py", cwd=python_client)
    anything = [
        file.name
        for file in (python_client / "vmrunner_client/api").rglob("*.py")
        if re.search(r"-> Response\[Any\]", file.read_text())
    ]
    assert anything == []


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """The packages of `tests/clients`, as its lock has them."""
    stamp = CLIENTS / "node_modules/.package-lock.json"
    lock = CLIENTS / "package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        run("npm", "ci", cwd=CLIENTS)
    return CLIENTS / "node_modules"


def test_a_generated_typescript_client_works(
    driven: Service, tmp_path: Path, node_modules: Path
) -> None:
    place = tmp_path / "client"
    place.mkdir()
    (place / "node_modules").symlink_to(node_modules)
    for name in ("use.ts", "tsconfig.json", "package.json"):
        shutil.copy(CLIENTS / name, place)
    bin_ = node_modules / ".bin"
    run(bin_ / "openapi-typescript", DOCUMENT, "-o", "schema.ts", cwd=place)
    run(bin_ / "tsc", "-p", ".", cwd=place)
    lines = run("node", "out/use.js", driven.url, driven.token(), cwd=place).splitlines()
    report: dict[str, Any] = {}
    for line in lines:
        report |= json.loads(line)
    assert report == {
        "lines": ["one"], "state": "finished", "exit_code": 3, "log": "one\n",
        "listed": [[True, None]], "failed_step": "exit 3", "vms": 1, "events": True,
        "cancel": "user", "end": "cancelled", "status": 404, "fix": "vmrunner ps -a lists all",
        "named": True,
    }  # fmt: skip


def test_spectral_finds_nothing(node_modules: Path) -> None:
    output = run(
        node_modules / ".bin/spectral", "lint", DOCUMENT, "--ruleset", CLIENTS / "spectral.yaml",
        "--fail-severity", "hint",
        cwd=CLIENTS,
    )  # fmt: skip
    assert "No results with a severity of 'hint' or higher found" in output


def test_the_lock_of_node_names_no_host() -> None:
    """Each package is told by its hash: a registry of somebody's own may bring it."""
    lock = json.loads((CLIENTS / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages
    assert [name for name, entry in packages.items() if "integrity" not in entry] == []
    assert [name for name, entry in packages.items() if "resolved" in entry] == []
