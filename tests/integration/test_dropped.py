"""Providers that the configuration dropped, or that cannot be opened: no command trips over them,
and they hold nothing else back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import file_cloud as filecloud
from tests.support.blackbox import CONFIG, TTL, Cli, serving, started, tags_of
from tests.support.blackbox import cli as cli  # the fixture
from tests.support.blackbox import cloud as cloud  # the fixture
from tests.support.file_cloud import FileCloud
from vmrunner.errors import ConfigError
from vmrunner.runtime.background import BackgroundEngines


@pytest.fixture
def dropped(
    home: Path, cli: Cli, cloud: FileCloud, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """A build whose engine is gone, with a VM at a provider that is not configured any more."""
    monkeypatch.setattr(BackgroundEngines, "ensure", lambda *_: None)
    with serving(home, cli):
        started(cli, cloud)
    (row,) = cli("vm", "ls", "-o", "json").items
    config = CONFIG.replace("providers.fake", "providers.next")
    (home / "vmrunner.toml").write_text(config)
    return {"vm": row["id"], "build": row["build"]}


def test_every_command_goes_on_with_a_provider_that_was_dropped(
    cli: Cli, cloud: FileCloud, dropped: dict[str, str]
) -> None:
    build, vm = dropped["build"], dropped["vm"]
    for words in (
        ("ps",),
        ("show", build),
        ("logs", build),
        ("vm", "ls", "--cloud"),
        ("vm", "show", vm),
        ("reap", "--dry-run"),
        ("reap",),
        ("audit",),
        ("doctor",),
    ):
        done = cli(*words)
        assert done.code == 0, (words, done.err)
    assert len(cloud.alive()) == 1
    assert cli("vm", "destroy", vm).out == f"{vm}\n".encode()
    assert not cloud.alive()


def test_expired_vms_die_at_a_dropped_provider(
    cli: Cli, cloud: FileCloud, dropped: dict[str, str]
) -> None:
    cloud.advance(TTL + 60)
    assert cli("reap").code == 0
    assert not cloud.alive()
    assert cli("audit").code == 0


def test_a_vm_that_is_gone_needs_no_provider(
    cli: Cli, cloud: FileCloud, dropped: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.advance(TTL + 60)
    cli("reap")
    monkeypatch.setattr(filecloud.FileApp, "open_kind", None)  # nobody can open it any more
    done = cli("vm", "destroy", dropped["vm"])
    assert (done.code, b"was gone already" in done.err) == (0, True), done


def test_a_dropped_provider_that_cannot_be_opened_again_is_named(
    cli: Cli, cloud: FileCloud, dropped: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_kind = filecloud.FileApp.open_kind

    def refused(app: Any, kind: str, name: str, options: Any) -> Any:
        if name == "fake":
            raise ConfigError("providers.fake.region: it is missing", hint="say where")
        return open_kind(app, kind, name, options)

    monkeypatch.setattr(filecloud.FileApp, "open_kind", refused)
    text = b"providers.fake.region: it is missing"
    for words, code in (
        (("vm", "ls"), 0),
        (("reap",), 7),
        (("audit",), 7),
        (("doctor",), 1),
        (("vm", "destroy", dropped["vm"]), 2),
        (("vm", "destroy", "--all-expired"), 1),
    ):
        done = cli(*words)
        assert done.code == code, (words, done)
        assert code == 0 or text in done.err + done.out, (words, done)


@pytest.mark.parametrize("without", [False, True])
def test_an_unopenable_provider_is_told_and_the_others_are_reaped(
    home: Path, cli: Cli, cloud: FileCloud, monkeypatch: pytest.MonkeyPatch, *, without: bool
) -> None:
    """Also when the ledger cannot be read."""
    open_provider = filecloud.FileApp.open_provider

    def refused(app: Any, name: str) -> Any:
        if name == "broken":
            raise ConfigError("providers.broken: no credentials", hint="log in")
        return open_provider(app, name)

    monkeypatch.setattr(filecloud.FileApp, "open_provider", refused)
    config = f'default_provider = "fake"\n{CONFIG}[providers.broken]\nkind = "fake"\n'
    (home / "vmrunner.toml").write_text(config)
    cli("ps")
    cloud.plant("fake", tags_of(home, "vm-a", cloud.now() - 10))
    if without:
        (home / "data" / "vmrunner" / "ledger.db").write_bytes(b"nonsense" * 1000)
    done = cli("reap")
    assert done.code == 7
    assert b"providers.broken: no credentials (log in)" in done.err
    assert not cloud.alive()
    assert cli("reap", "--provider", "fake").code == (7 if without else 0)
