"""What the commands load that people make all day: nothing that they do not need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_bad_input import image
from tests.support import thirdparty
from tests.support.ledger_builds import submitted
from vmrunner import images
from vmrunner.ledger import Ledger

#: Each takes longer to load than the command takes to run.
HEAVY = {
    "sqlalchemy.orm", "sqlmodel", "sqlalchemy.dialects.postgresql", "psycopg", "alembic", "azure",
    "boto3", "botocore", "google", "fabric", "invoke", "paramiko", "apscheduler", "rich", "yaml",
    "ulid", "cronsim", "vmrunner.api.runner", "vmrunner.engine.engine",
    "vmrunner.core.reap_plan", "vmrunner.config.jobfile", "vmrunner.providers.ec2.settings",
    "vmrunner.providers.azure.settings", "vmrunner.providers.gce.settings",
    "vmrunner.providers.fake.settings",
}  # fmt: skip
#: Only who submits a build needs them.
OF_REQUESTS = {"tarfile", "vmrunner.config.plain_request"}
ROOT = Path(__file__).parents[2]
COMMANDS = "vmrunner.cli.commands."
LOADED = """
import json, sys
from vmrunner.cli import main
main()
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def loaded(*argv: str, **environ: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *argv],
        env=os.environ | environ,
        capture_output=True,
        text=True,
    )
    modules: list[str] = json.loads(done.stderr.splitlines()[-1])
    return set(modules)


@pytest.fixture(autouse=True)
def _in_use(home: Path) -> None:
    """A ledger with a build, and the provider that everybody has."""
    data = home / "data/vmrunner"
    ledger = Ledger.open(f"sqlite:///{data}/ledger.db", data_dir=data)
    submitted(ledger)
    ledger.close()
    (home / "vmrunner.toml").unlink()


@pytest.mark.parametrize(
    ("argv", "module"),
    [
        (("ps", "-a"), "builds"),
        (("show", "b-1"), "builds"),
        (("vm", "ls"), "vms"),
        (("config", "show"), "config"),
    ],
    ids=str,
)
def test_a_command_loads_what_it_needs(argv: tuple[str, ...], module: str) -> None:
    modules = loaded(*argv)
    assert {name for name in modules if name.startswith(COMMANDS)} == {COMMANDS + module}
    assert modules & (HEAVY | OF_REQUESTS) == set()
    assert ("vmrunner.model.builds" in modules) is (argv[0] != "config")


@pytest.mark.parametrize(
    "argv", [("ps", "-a"), ("ps",), ("show", "b-1"), ("logs", "b-1"), ("vm", "ls"), ("costs",)]
)
def test_who_reads_needs_neither_sqlalchemy_nor_pydantic(argv: tuple[str, ...]) -> None:
    loaded(*argv)  # from here on it is known that the configuration is valid
    heavy = {"sqlalchemy", "pydantic", "cryptography", "asyncio", "vmrunner.ledger.outbox"}
    assert loaded(*argv) & (HEAVY | OF_REQUESTS | heavy) == set()


def test_a_build_is_checked_without_what_runs_it(home: Path) -> None:
    image(home / "cache/vmrunner", identity=images.current())
    loaded("run", "--dry-run", "--", "true")  # from here on it is known what is valid
    modules = loaded("run", "--dry-run", "--", "true")
    assert "vmrunner.services.preflight" in modules
    assert modules & (HEAVY | {"pydantic", "vmrunner.images.recipe"}) == set()


def test_a_vm_is_asked_for_before_ssh_is_loaded() -> None:
    """The engine of a command: what a session needs is loaded while its VM starts."""
    code = """
import sys
from vmrunner import Runner
with Runner() as runner:
    runner.app.engine("run").close()
    print({"paramiko", "fabric"} & sys.modules.keys())
    runner.app.engine("serve").close()
    print({"paramiko", "fabric"} <= sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["set()", "True"]


def test_a_keeper_loads_neither_nouns_nor_the_port() -> None:
    """Each VM of this host waits for its keeper."""
    code = "import sys, vmrunner.providers.qemu.keeper; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    nouns = {name for name in modules if name.startswith("vmrunner.model.")}
    assert nouns == {"vmrunner.model.processes"}
    assert modules & {"vmrunner.providers.port", "vmrunner.providers.registry"} == set()


def test_a_reap_needs_no_engine() -> None:
    modules = loaded("reap", "--dry-run")
    assert "vmrunner.reaper.reaper" in modules
    assert modules & {"apscheduler", "vmrunner.engine.engine", "vmrunner.runtime.daemon"} == set()


def test_the_help_of_all_loads_no_command() -> None:
    modules = loaded("--help")
    assert {name for name in modules if name.startswith(COMMANDS)} == set()
    assert modules & {"pydantic", "vmrunner.model.builds"} == set()


def test_help_of_a_command_loads_no_models() -> None:
    """The options of `run` are written out for that: the fields of a request are pydantic's."""
    modules = loaded("run", "--help")
    assert COMMANDS + "run" in modules
    assert modules & {"pydantic", "vmrunner.model.builds"} == set()


def test_other_distributions_are_asked_only_for_kinds_of_theirs(tmp_path: Path) -> None:
    """Neither for a driver nor for a plugin of pydantic's: there are hundreds to be read."""
    site = thirdparty.install(tmp_path / "site")
    thirdparty.metadata(site, "plug", group="pydantic", plug="plug:PLUG")
    (site / "plug.py").write_text("PLUG = None")
    path = {"PYTHONPATH": f"{site}:{ROOT}"}
    ours = loaded("config", "show", **path)
    assert "vmrunner.providers.qemu.settings" in ours
    assert ours & {"elsewhere", "plug"} == set()
    theirs = loaded("config", "show", VMRUNNER_PROVIDERS__THERE__KIND="elsewhere", **path)
    assert "elsewhere.settings" in theirs
