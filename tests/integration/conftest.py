"""What tests share. Those of the ledger run on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import anywhere as anywhere  # the fixture
from tests.support.command_line import cli as cli  # the fixture
from tests.support.command_line import home as home  # the fixture
from tests.support.command_line import ledger_at_home as ledger_at_home  # the fixture
from tests.support.guest import guest as guest  # the fixture
from tests.support.http_service import Service, service
from tests.support.postgres import PgBouncer, Server
from tests.support.postgres import pgbouncer as pgbouncer  # the fixture
from tests.support.postgres import postgres as postgres  # the fixture
from tests.support.session_world import sshd as sshd  # the fixture
from tests.support.session_world import world as world  # the fixture
from vmrunner.ledger import Ledger


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database. It is empty on SQLite, which makes its tables itself. PostgreSQL is behind a
    proxy that pools transactions: what holds there holds without one."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data/ledger.db"
    server: Server = request.getfixturevalue("postgres")
    proxy: PgBouncer = request.getfixturevalue("pgbouncer")
    return proxy.before(server.new())


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def ledger(url: str, data_dir: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(url, data_dir=data_dir)
    yield ledger
    ledger.close()


@pytest.fixture
def http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service of its own with fake clouds, and a home that is empty."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with service(tmp_path) as found:
        yield found
