"""What `doctor` says of the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.postgres import Server
from vmrunner.api.runner import Runner
from vmrunner.config.settings import Settings
from vmrunner.ledger import Ledger
from vmrunner.model import Finding, Level


def found(database: str, **store: str) -> Finding:
    settings = Settings.model_validate({"database": {"url": database}, "store": store})
    Ledger.upgrade(database)
    with Runner(settings=settings) as runner:
        (finding,) = [finding for finding in runner.doctor() if finding.check == "store"]
    return finding


def test_a_store_that_can_be_written_is_well(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    finding = found(url)
    assert (finding.level, finding.message) == (
        Level.OK, f"file://{tmp_path}/ledger.db.d/store can be written",
    )  # fmt: skip
    assert not list((tmp_path / "ledger.db.d/store").rglob("*")), "it left something"


@pytest.mark.parametrize("where", ["file:///proc/nowhere", "s3://bucket"])
def test_one_that_cannot_be_written_is_an_error(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    finding = found(f"sqlite:///{tmp_path}/l.db", url=where, endpoint="http://127.0.0.1:1")
    assert finding.level is Level.ERROR
    assert finding.fix
    assert where in finding.message or "/proc/nowhere" in finding.message


def test_a_directory_under_a_ledger_of_many_nodes_warns(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    url = postgres.new()
    finding = found(url)
    assert finding.level is Level.WARNING
    assert "on this host" in finding.message
