"""What the commands load that people make all day: nothing that they do not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ledger_builds import submitted
from vmrunner.ledger import Ledger

#: Each takes longer to load than the command takes to run.
HEAVY = {
    "sqlalchemy.orm", "sqlmodel", "sqlalchemy.dialects.postgresql", "psycopg", "alembic", "boto3",
    "botocore", "google", "fabric", "invoke", "paramiko", "apscheduler", "rich", "yaml",
    "pathspec", "tarfile", "vmrunner.api.runner", "vmrunner.engine.engine",
    "vmrunner.core.reap_rules", "vmrunner.config.build_request",
}  # fmt: skip
LOADED = """
import json, sys
from vmrunner.cli import main
main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def loaded(*argv: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", LOADED, *argv], capture_output=True, text=True)
    modules: list[str] = json.loads(done.stderr.splitlines()[-1])
    return set(modules)


@pytest.mark.parametrize(
    "argv", [("ps", "-a"), ("show", "b-1"), ("vm", "ls"), ("config", "show")], ids=" ".join
)
def test_a_command_loads_what_it_needs(home: Path, argv: tuple[str, ...]) -> None:
    data = home / "data/vmrunner"
    ledger = Ledger.open(f"sqlite:///{data}/ledger.db", data_dir=data)
    submitted(ledger)
    ledger.close()
    modules = loaded(*argv)
    assert "vmrunner.cli.commands.builds" in modules
    assert modules & HEAVY == set()
    assert ("sqlalchemy" in modules) is (argv[0] != "config")


def test_a_reap_needs_no_engine(home: Path) -> None:
    modules = loaded("reap", "--dry-run")
    assert "vmrunner.reaper.reaper" in modules
    assert modules & {"apscheduler", "vmrunner.engine.engine", "vmrunner.daemon.daemon"} == set()


def test_help_loads_no_models(home: Path) -> None:
    """The options of `run` are written out for that: the fields of a request are pydantic's."""
    assert "pydantic" not in loaded("--help")
