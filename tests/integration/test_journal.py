"""The log of who serves: a line for each deed of a build's and a VM's life, with its ids."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.support.blackbox import cli as blackbox  # the fixture
from tests.support.blackbox import cloud as cloud  # the fixture
from tests.support.blackbox import tags_of
from tests.support.command_line import Cli
from tests.support.file_cloud import FileCloud
from tests.support.http_service import Service, only
from tests.support.scripted_app import wait_until
from vmrunner.cli.output import JsonFormatter

__all__ = ["blackbox"]
API = "/api/v1"


@pytest.fixture
def journal(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="vmrunner")
    return caplog


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The records as `--log-format json` writes those of deeds."""
    made = [json.loads(JsonFormatter().format(r)) for r in caplog.records if hasattr(r, "fields")]
    assert all(line["level"] == "info" for line in made)
    return made


def test_a_builds_life_is_logged_with_its_ids(
    http: Service, journal: pytest.LogCaptureFixture
) -> None:
    build = only(http.client().post(f"{API}/builds", json={"steps": ["exit 3"]}))["id"]
    row = http.ended(build)._row
    wait_until(lambda: any(" is gone: " in line["message"] for line in lines(journal)))
    made = {
        line["message"].split()[1] + line["message"].split()[2]: line for line in lines(journal)
    }
    vm, provider = row.instance, row.spec.provider
    assert {line["build"] for line in made.values()} == {build}
    assert {line["instance"] for line in made.values()} == {vm}
    assert {line["provider"] for line in made.values()} == {provider}
    assert list(made) == ["isasked", "runson", "ended:failure,", "isgone:"]
    assert made["isasked"]["machine"]
    end = made["ended:failure,"]
    assert (end["result"], end["reason"], end["exit_code"]) == ("failure", "exit_code", 3)
    assert made["isgone:"]["reason"] == "done"


def test_a_builds_own_terminal_has_none_of_it(cli: Cli) -> None:
    done = cli("run", "--", "say", "x")
    assert done.code == 0
    assert b"asked for" not in done.err
    assert b" is gone" not in done.err


def test_what_a_reap_by_hand_killed_is_logged(
    blackbox: Cli, cloud: FileCloud, home: Path, journal: pytest.LogCaptureFixture
) -> None:
    blackbox("ps")
    late = cloud.plant("fake", tags_of(home, "vm-late", cloud.now() - 100))
    log = logging.getLogger("vmrunner.serve")  # the command line takes the others' from here
    log.addHandler(journal.handler)
    try:
        assert blackbox("reap", "--dry-run").code == 0
        assert lines(journal) == []
        assert blackbox("reap").err == b""
    finally:
        log.removeHandler(journal.handler)
    (line,) = lines(journal)
    assert line["message"].startswith(f"delete instance {late}: expired")
    assert (line["instance"], line["reason"], line["provider"]) == ("vm-late", "expired", "fake")
