"""A driver of another distribution, installed beside vmrunner: the programs find it by its entry
point, and it has all that ours have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import thirdparty

ROOT = Path(__file__).parents[2]
CONFIG = """
default_provider = "there"
[providers.there]
kind = "elsewhere"
region = "south"
"""
#: The command line, with builds that do what their steps spell.
SCRIPTED = """
import sys
from tests.support.scripted_app import Scripted
from vmrunner.cli import main
from vmrunner.runtime.app import App
class Wired(App):
    def sessions(self): return Scripted
sys.exit(main(sys.argv[1:], join=lambda loaded: Wired(loaded.settings)))
"""


@pytest.fixture
def far(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose configuration names such a provider."""
    site = thirdparty.install(home / "site")
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    (home / "vmrunner.toml").write_text(CONFIG)
    return home


def ran(*argv: str, program: tuple[str, ...] = ("-m", "vmrunner"), code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, *program, *argv], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_its_settings_are_configuration_as_ours_are(far: Path) -> None:
    shown = json.loads(ran("config", "show", "-o", "json"))["items"]
    values = {item["key"]: (item["value"], item["origin"]) for item in shown}
    assert values["providers.there.kind"] == ("elsewhere", str(far / "vmrunner.toml"))
    assert values["providers.there.region"] == ("south", str(far / "vmrunner.toml"))
    assert values["providers.there.memory"] == (2 << 30, "default")
    schema = json.loads(ran("config", "schema"))
    assert "elsewhere" in json.dumps(schema["properties"]["providers"])
    assert "endpoint" in schema["$defs"]["ElsewhereSettings"]["properties"]

    (far / "vmrunner.toml").write_text(CONFIG + "regoin = 'x'\n")
    assert "providers.there.regoin: no such key (did you mean 'region'?)" in ran("ps", code=2)
    (far / "vmrunner.toml").write_text(CONFIG.replace("elsewhere", "elsewere"))
    kinds = "azure, ec2, elsewhere, fake, gce, kubernetes, nameless, qemu"
    assert f"one of: {kinds}" in ran("ps", code=2)


def test_what_it_does_not_call_harmless_needs_trust(far: Path) -> None:
    (far / "vmrunner.toml").write_text(CONFIG + "endpoint = 'https://x'\n")
    assert "providers.there.endpoint: only a project's file that you trust" in ran("ps", code=2)


def test_doctor_opens_it_and_gives_it_what_it_needs(far: Path) -> None:
    findings = json.loads(ran("doctor", "there", "-o", "json"))["items"]
    (found,) = [finding for finding in findings if finding["check"] == "there: delete"]
    assert found["message"].startswith("south obeys ")
    assert len(found["message"].split()[-1]) == 36


def test_a_build_runs_on_it_at_its_price(far: Path) -> None:
    program = ("-c", SCRIPTED)
    output = ran("run", "--", "say hello", program=program)
    assert "hello" in output
    assert "result=success" in output
    (build,) = json.loads(ran("ps", "-a", "-o", "json"))["items"]
    assert (build["provider"], build["state"]) == ("there", "finished")
    (document,) = json.loads(ran("show", build["id"], "-o", "json"))["items"]
    assert document["cost"] >= 60.0  # a minute of it at least
