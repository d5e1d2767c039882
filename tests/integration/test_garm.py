"""GARM's external provider, called as GARM calls it: by its environment and stdin, with answers on
stdout and exit codes that it knows."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from tests.support.command_line import isolated
from tests.support.scripted_app import CountedApp
from vmrunner.cli import main
from vmrunner.config.forges import RUNNER_IMAGE, GarmSettings
from vmrunner.errors import ConfigError
from vmrunner.integrations.garm import bootstrap
from vmrunner.ledger import Ledger
from vmrunner.model import BuildState, Reason, Result

CONFIG = """
[providers.fake]
kind = "fake"
[garm]
build = { labels = { team = "core" }, timeout = "1h" }
flavors = { large = { cpus = 8 } }
"""
#: After GARM's own document of the external provider.
BOOTSTRAP: dict[str, Any] = {
    "name": "garm-ny9HeeQYw2rl",
    "tools": [
        {"os": "linux", "architecture": "x64", "download_url": "https://github.com/x.tar.gz"}
    ],
    "repo_url": "https://github.com/acme/app",
    "callback-url": "https://garm.example.com/api/v1/callbacks",
    "metadata-url": "https://garm.example.com/api/v1/metadata",
    "instance-token": "super secret JWT token",
    "extra_specs": {},
    "ca-cert-bundle": None,
    "github-runner-group": "my_group",
    "os_type": "linux",
    "arch": "amd64",
    "flavor": "large",
    "image": "ghcr.io/acme/runner:1",
    "labels": ["ubuntu", "runner-pool-id:9dcf590a"],
    "pool_id": "9dcf590a",
    "jit_config_enabled": True,
}


class Garm:
    """A GARM, as far as its provider sees it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any) -> None:
        self.config = root / "garm-provider.toml"
        self.config.write_text(CONFIG)
        self.controller = "f9286791"
        self._monkeypatch = monkeypatch
        self._captured = capfdbinary

    def __call__(self, command: str, stdin: Any = None, **values: str) -> SimpleNamespace:
        environment = {
            "GARM_COMMAND": command,
            "GARM_CONTROLLER_ID": self.controller,
            "GARM_PROVIDER_CONFIG_FILE": str(self.config),
            "GARM_INTERFACE_VERSION": "v0.1.1",
            **values,
        }
        data = json.dumps(stdin).encode() if stdin is not None else b""
        with self._monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setenv("VMRUNNER_CONFIG", "/nonexistent")  # it is the provider's that counts
            patch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
            code = main(["garm"], join=lambda loaded: CountedApp(loaded.settings))
        captured = self._captured.readouterr()
        out = json.loads(captured.out) if captured.out.startswith((b"{", b"[")) else captured.out
        return SimpleNamespace(code=code, out=out, err=captured.err.decode())

    def create(self, pool: str = "9dcf590a", **changes: Any) -> SimpleNamespace:
        return self("CreateInstance", {**BOOTSTRAP, **changes}, GARM_POOL_ID=pool)


@pytest.fixture
def garm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any) -> Garm:
    return Garm(isolated(tmp_path, monkeypatch), monkeypatch, capfdbinary)


@pytest.fixture
def ledger(garm: Garm, tmp_path: Path) -> Iterator[Ledger]:
    data = tmp_path / "data/vmrunner"
    ledger = Ledger.open(f"sqlite:///{data}/ledger.db", data_dir=data)
    yield ledger
    ledger.close()


def over(ledger: Ledger, build: str) -> None:
    """It was cancelled, and an engine ended it."""
    ledger.builds.request_cancel(build, Reason.USER, 1.0)
    row = ledger.builds.get(build)
    ledger.builds.finish(
        build, epoch=row.epoch, result=Result.CANCELLED, reason=Reason.USER, now=2.0
    )


def test_create_is_a_build_of_the_pools_shape(garm: Garm, ledger: Ledger) -> None:
    done = garm.create()
    (build,) = ledger.builds.list()
    assert (done.code, done.err) == (0, "")
    assert done.out == {
        "provider_id": build.id,
        "name": BOOTSTRAP["name"],
        "os_type": "linux",
        "status": "running",
        "pool_id": "9dcf590a",
    }
    spec = build.spec
    assert (spec.container, spec.cpus, spec.timeout) == ("ghcr.io/acme/runner:1", 8, 3600.0)
    assert spec.labels["team"] == "core"
    assert spec.env["GARM_JIT"] == "1"
    assert ledger.builds.secrets(build.id) == {"GARM_INSTANCE_TOKEN": b"super secret JWT token"}
    assert "super secret" not in repr(spec)


def test_create_again_is_the_same_instance(garm: Garm, ledger: Ledger) -> None:
    first, again = garm.create(), garm.create(**{"instance-token": "a new token"})
    assert (again.code, again.out) == (0, first.out)
    assert len(ledger.builds.list()) == 1
    other = garm.create(flavor="default")
    assert (other.code, other.out) == (31, b"")
    assert "belongs to build" in other.err


def test_a_name_may_come_again_when_it_was_deleted(garm: Garm, ledger: Ledger) -> None:
    """GARM tries a failed instance again by its name."""
    first = garm.create()
    assert garm("DeleteInstance", GARM_INSTANCE_ID=first.out["provider_id"]).code == 0
    second = garm.create()
    assert second.out["provider_id"] != first.out["provider_id"]
    over(ledger, first.out["provider_id"])
    assert garm.create().out == second.out


@pytest.mark.parametrize("by", ["provider_id", "name"])
def test_get_finds_by_id_and_by_name(garm: Garm, by: str) -> None:
    made = garm.create().out
    done = garm("GetInstance", GARM_INSTANCE_ID=made[by], GARM_POOL_ID="9dcf590a")
    assert (done.code, done.out) == (0, made)


def test_what_has_ended_is_not_found(garm: Garm, ledger: Ledger) -> None:
    made = garm.create().out
    over(ledger, made["provider_id"])
    for command in ("GetInstance", "Start"):
        done = garm(command, GARM_INSTANCE_ID=made["provider_id"])
        assert (done.code, done.out) == (30, b"")
    assert garm("ListInstances", GARM_POOL_ID="9dcf590a").out == []


def test_list_has_a_pools_live_instances(garm: Garm) -> None:
    mine = garm.create().out
    garm.create(pool="other", name="garm-2")
    assert garm("ListInstances", GARM_POOL_ID="9dcf590a").out == [mine]
    assert garm("ListInstances", GARM_POOL_ID="nobody").out == []


@pytest.mark.parametrize("command", ["DeleteInstance", "Stop", "StopInstance"])
def test_delete_wishes_an_end_and_is_idempotent(garm: Garm, ledger: Ledger, command: str) -> None:
    made = garm.create().out["provider_id"]
    for _ in range(2):
        done = garm(command, GARM_INSTANCE_ID=made)
        assert (done.code, done.out) == (0, b"")
        assert ledger.builds.get(made).cancel is Reason.USER
    assert garm("GetInstance", GARM_INSTANCE_ID=made).out["status"] == "stopped"
    assert garm("Start", GARM_INSTANCE_ID=made).code == 31
    assert garm("DeleteInstance", GARM_INSTANCE_ID="garm-never-there").code == 0


def test_another_garm_sees_and_ends_nothing(garm: Garm, ledger: Ledger) -> None:
    made = garm.create().out["provider_id"]
    garm.controller = "another"
    assert garm("GetInstance", GARM_INSTANCE_ID=made).code == 30
    assert garm("DeleteInstance", GARM_INSTANCE_ID=made).code == 0
    assert garm("RemoveAllInstances").code == 0
    assert ledger.builds.get(made).cancel is None
    garm.controller = "f9286791"
    assert garm("RemoveAllInstances").code == 0
    assert ledger.builds.get(made).cancel is Reason.USER


def test_start_leaves_a_live_instance_as_it_is(garm: Garm, ledger: Ledger) -> None:
    made = garm.create().out["provider_id"]
    assert garm("Start", GARM_INSTANCE_ID=made).code == 0
    (build,) = ledger.builds.list()
    assert build.state is BuildState.QUEUED


def test_the_interface_tells_what_it_is(garm: Garm) -> None:
    assert garm("GetVersion").out.startswith(b"v")
    assert garm("GetSupportedInterfaceVersions").out == ["v0.1.0", "v0.1.1"]
    for command in ("GetConfigJSONSchema", "GetExtraSpecsJSONSchema"):
        jsonschema.Draft202012Validator.check_schema(garm(command).out)


def test_a_pool_that_cannot_be_is_told(garm: Garm) -> None:
    def specs(found: Any) -> str:
        return base64.b64encode(json.dumps(found).encode()).decode()

    fine = specs({"ttl": "2h", "runner_install_template": "…"})
    assert garm("ValidatePoolInfo", GARM_POOL_EXTRASPECS=fine).code == 0
    assert garm("ValidatePoolInfo", GARM_POOL_EXTRASPECS=specs(None)).code == 0
    for found in ({"tll": "2h"}, {"source": "."}, [1]):
        done = garm("ValidatePoolInfo", GARM_POOL_EXTRASPECS=specs(found))
        assert (done.code, done.out) == (1, b"")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"flavor": "huge"}, "garm.flavors"),
        ({"os_type": "windows"}, "linux"),
        ({"extra_specs": {"tll": "1h"}}, "tll"),
        ({"name": ""}, "name"),
    ],
)
def test_a_wish_that_cannot_be_starts_nothing(
    garm: Garm, ledger: Ledger, changes: dict[str, Any], why: str
) -> None:
    done = garm.create(**changes)
    assert (done.code, done.out) == (1, b"")
    assert why in done.err
    assert not ledger.builds.list()


def test_a_call_that_is_none_of_garms_fails(garm: Garm) -> None:
    assert garm("MakeCoffee").code == 1
    assert garm("").code == 1
    assert garm("GetInstance").code == 1
    assert garm("ListInstances", GARM_PROVIDER_CONFIG_FILE="/nonexistent/x.toml").code == 1
    assert garm("CreateInstance", GARM_POOL_ID="p").code == 1  # nothing on stdin


@pytest.mark.parametrize(
    "answer",
    [
        b'{"instance-token": "t0ken"}',
        b'{"name": "x", "instance-token": ["t0ken"]}',
        b"t0ken",
        b"[]",
    ],
)
def test_an_error_repeats_no_token(answer: bytes) -> None:
    """GARM writes what we say to its log."""
    with pytest.raises(ConfigError, match="stdin") as caught:
        bootstrap.read(answer)
    assert "t0ken" not in str(caught.value)


def test_what_a_pool_leaves_open_is_as_configured() -> None:
    values = {"name": "g", "flavor": "default", "image": "default", "instance-token": "t"}
    wanted = bootstrap.read(json.dumps(values).encode())
    made = bootstrap.request(wanted, GarmSettings(), "c", "p", 0)
    assert made.container == RUNNER_IMAGE


def test_a_private_image_is_pulled_by_garms_login(monkeypatch: pytest.MonkeyPatch) -> None:
    login = {"auths": {"ghcr.io": {"username": "u", "password": "p4ss"}}}
    monkeypatch.setenv("LOGINS", json.dumps(login))
    settings = GarmSettings(registry="LOGINS")
    values = {"name": "g", "flavor": "default", "instance-token": "t", "image": "ghcr.io/acme/r:1"}
    made = bootstrap.request(bootstrap.read(json.dumps(values).encode()), settings, "c", "p", 0)
    assert b"p4ss" in made.secrets[made.registry_secret or ""]
    values["image"] = "evil.example.org/r"
    made = bootstrap.request(bootstrap.read(json.dumps(values).encode()), settings, "c", "p", 0)
    assert (made.registry_secret, [*made.secrets]) == (None, ["GARM_INSTANCE_TOKEN"])


RUN: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run


@pytest.mark.parametrize("jit", ["1", "0"])
def test_the_runner_is_configured_and_told_of(tmp_path: Path, jit: str) -> None:
    """The script, with a curl and a runner that note what they are called with."""
    home, tools, notes = tmp_path / "runner", tmp_path / "bin", tmp_path / "notes"
    for place in (home, tools):
        place.mkdir()
    curl = '#!/bin/sh\necho "curl $*" >>"$NOTES"\nfor last; do :; done\necho "of $last"\n'
    runner = '#!/bin/sh\necho "run $* ${GARM_INSTANCE_TOKEN-unset} $(umask)" >>"$NOTES"\nexit 3\n'
    config = '#!/bin/sh\necho "config $* ($ACTIONS_RUNNER_INPUT_TOKEN)" >>"$NOTES"\n'
    config += "echo '{\"agentId\": 12}' >.runner\n"
    for path, text in (
        (tools / "curl", curl),
        (home / "run.sh", runner),
        (home / "config.sh", config),
    ):
        path.write_text(text)
        path.chmod(0o755)
    done = RUN(
        ["sh", "-e", "-c", bootstrap.script()],
        env={
            "PATH": f"{tools}:/usr/bin:/bin",
            "NOTES": str(notes),
            "RUNNER_HOME": str(home),
            "GARM_INSTANCE_TOKEN": "the-token",
            "GARM_METADATA_URL": "https://garm/m",
            "GARM_CALLBACK_URL": "https://garm/c/status",
            "GARM_JIT": jit,
            "GARM_REPO_URL": "https://github.com/acme",
            "GARM_RUNNER_NAME": "g-1",
            "GARM_RUNNER_LABELS": "a,b",
            "GARM_RUNNER_GROUP": "",
        },
        capture_output=True,
        text=True,
        check=False,
        umask=0o022,
    )
    assert done.returncode == 3, done.stderr
    calls = notes.read_text()
    assert "the-token" not in calls  # no command line has it
    assert "run  unset 0022" in calls, "files of a job are for its other users too"
    assert '"status": "idle"' in calls
    assert "https://garm/c/status" in calls
    if jit == "1":
        for name in ("runner", "credentials", "credentials_rsaparams"):
            file = home / f".{name}"
            assert file.read_text() == f"of https://garm/m/credentials/{name}\n"
            assert file.stat().st_mode & 0o777 == 0o600
    else:
        assert "--ephemeral" in calls
        assert "(of https://garm/m/runner-registration-token/)" in calls
        assert '"agent_id": 12' in calls


@pytest.mark.parametrize("specs", [b"[" * 100_000, b"5", b"\xff", b'"x"'])
def test_extra_specs_that_are_no_table_are_refused(specs: bytes) -> None:
    with pytest.raises(ConfigError, match="extra_specs: not a table"):
        bootstrap.extra_specs(base64.b64encode(specs).decode())
