"""The container's file, as far as it can be tried without a container: a linter reads it, its
install step runs for real, and what it starts answers its health check."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from tests.support.scripted_app import wait_until
from vmrunner import cli
from vmrunner.config.settings import Settings

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "deploy/container"
TEXT = (PLACE / "Containerfile").read_text().replace("\\\n", " ")


def instruction(name: str) -> list[str]:
    """The words of its last one of this name, which is in JSON."""
    found: list[str] = json.loads(re.findall(rf"^{name}\b.*?(\[.*\])$", TEXT, re.MULTILINE)[-1])
    return found


def test_the_linter_has_nothing_to_say() -> None:
    linter = Path(sys.prefix) / "bin/hadolint"
    done = subprocess.run([linter, PLACE / "Containerfile"], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_nobody_runs_it_as_root() -> None:
    assert re.findall(r"^USER (.*)$", TEXT, re.MULTILINE) == ["10001:10001"]


def test_the_secrets_of_nodes_are_sent_to_no_builder() -> None:
    """They lie beside the Containerfile, and layers of a build stage are kept."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    secrets = str((PLACE / "environment").relative_to(ROOT))
    assert ignored.index(secrets) > ignored.index("!deploy")


@pytest.mark.long
def test_what_is_installed_serves_and_is_healthy(tmp_path: Path) -> None:
    target = tmp_path / "vmrunner"
    assert "RUN deploy/container/install /opt/vmrunner\n" in TEXT
    subprocess.run(
        [PLACE / "install", target], check=True, env=os.environ | {"PYTHON": sys.executable}
    )
    (program,), words = instruction("ENTRYPOINT"), instruction("CMD")
    assert "0.0.0.0:8470" in words, "in a container of its own"
    env = {"PATH": f"{target}/bin:/usr/bin:/bin"}
    env |= {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("DATA", "CACHE")}
    words = ["127.0.0.1:0" if word == "0.0.0.0:8470" else word for word in words]
    log = tmp_path / "log"
    with log.open("wb") as output:
        served = subprocess.Popen(
            [target / "bin" / program, *words], env=env, cwd=tmp_path, stderr=output
        )
    try:
        address = re.compile(r"http://(127\.0\.0\.1:\d+)/api")
        wait_until(lambda: address.search(log.read_text()) is not None)
        found = address.search(log.read_text())
        assert found is not None
        check = [word.replace("127.0.0.1:8470", found[1]) for word in instruction("HEALTHCHECK")]
        assert subprocess.run(check, env=env, check=False).returncode == 0
    finally:
        served.send_signal(signal.SIGTERM)
        assert served.wait(60) == 0
    assert subprocess.run(check, env=env, stderr=subprocess.DEVNULL, check=False).returncode != 0


def test_the_example_of_two_nodes_says_what_vmrunner_knows() -> None:
    compose = yaml.safe_load((PLACE / "compose.yaml").read_text())
    services = compose["services"]
    commands = get_command(cli.app()).commands  # type: ignore[attr-defined]
    assert services["upgrade"]["command"] == ["db", "upgrade"]
    assert "upgrade" in commands["db"].commands
    for name in ("node1", "node2"):
        assert services[name]["ports"][0].startswith("127.0.0.1:")
        assert services[name]["depends_on"] == {
            "upgrade": {"condition": "service_completed_successfully"}
        }
    config = tomllib.loads((PLACE / "config.toml").read_text())
    settings = Settings.model_validate(config)
    assert settings.store.url.startswith("s3://"), "which all nodes reach"
    assert {"VMRUNNER_SECRET_KEY", "VMRUNNER_DATABASE_URL"} <= variables("environment")
    for service in ("upgrade", "node1", "node2"):
        assert services[service]["env_file"] == "environment"


def test_the_database_has_no_secret_of_a_node() -> None:
    """What is sealed in the ledger would lie beside its key."""
    db = yaml.safe_load((PLACE / "compose.yaml").read_text())["services"]["db"]
    given = variables(db["env_file"]) | set(db["environment"])
    assert given == {"POSTGRES_PASSWORD", "POSTGRES_USER"}
    ignored = [(PLACE.parents[1] / name).read_text() for name in (".gitignore", ".dockerignore")]
    assert all(f"deploy/container/{db['env_file']}\n" in text for text in ignored)


def variables(name: str) -> set[str]:
    """The names in the example of an environment file."""
    lines = (PLACE / f"{name}.example").read_text().splitlines()
    return {line.partition("=")[0] for line in lines if not line.startswith("#")}
