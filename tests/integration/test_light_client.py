"""A client of a server starts without the engine's libraries, also where they are not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.http_service import Service

#: What drives builds and keeps ledgers: SQL, SSH, buckets, keys, timers, and what serves.
ENGINE = (
    "alembic", "apscheduler", "cronsim", "cryptography", "dns", "fabric", "fastapi", "invoke",
    "jinja2", "mako", "obstore", "paramiko", "sqlalchemy", "sqlmodel", "uvicorn",
)  # fmt: skip
WITHOUT = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ENGINE!r}:
            raise ImportError(f"{{name}} is not installed")
sys.meta_path.insert(0, Absent())
"""
COMMANDS = [
    ["ps", "-a"], ["ps", "-aq", "--result", "success", "--since", "1h"], ["show", "one"],
    ["logs", "one"], ["logs", "-f", "one"], ["watch", "one"], ["events", "one"],
    ["cancel", "one"], ["artifacts", "get", "one"], ["vm", "ls"], ["pool", "ls"], ["cache", "ls"],
    ["costs"], ["sandbox", "ls"], ["audit"], ["version", "-o", "json"], ["config", "path"],
    ["config", "show"], ["run", "--help"], ["--help"], ["run", "--name", "two", "--", "say", "x"],
]  # fmt: skip
LIBRARY = """
import vmrunner
from vmrunner import aio
with vmrunner.Runner() as runner:
    (build,) = runner.list(name="one")
    assert runner.get("one").id == build.id
    assert [str(line) for line in build.logs()] == ["one"]
    runner.submit(["say", "x"]).cancel()
"""


def client(http: Service, code: str, home: Path) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "VMRUNNER_SERVER": http.url}
    environ |= {"VMRUNNER_TOKEN": http.token(), "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code],
        env=environ, cwd=home, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("part", range(3))
def test_each_command_works_without_the_engines_libraries(
    http: Service, tmp_path: Path, part: int
) -> None:
    http.runner.run(["say", "one"], name="one")
    words = COMMANDS[part::3]
    code = "import vmrunner.cli\n" + "".join(
        f"try: assert vmrunner.cli.main({argument!r}) == 0, {argument!r}\n"
        "except SystemExit as end: assert not end.code\n"
        for argument in words
    )
    done = client(http, code, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_library_works_without_them(http: Service, tmp_path: Path) -> None:
    http.runner.run(["say", "one"], name="one")
    done = client(http, LIBRARY, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
