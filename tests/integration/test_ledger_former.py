"""A ledger that an earlier vmrunner wrote: it opens, and its builds go on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.ledger_builds import ACCESS, USER_DATA, launch
from vmrunner.ledger import Ledger
from vmrunner.model import BuildState, InstanceState, Reason, Result
from vmrunner.store import open_store
from vmrunner.store.build_artifacts import files_of
from vmrunner.store.build_log import BuildLog
from vmrunner.store.source_transfer import SourceTransfer
from vmrunner.store.uploader import Uploader

WRITTEN = Path(__file__).parents[1] / "data/former_ledger.sql"
#: What lay beside it.
SECRET_KEY = "FQD5q6Y81NHJ1im8ZwXiXEPE5wmHRoVPvRJm2jBDodc="
INSTALLATION = "65804dc5-1204-4f2b-b08b-c5c2ba9eabba"


@pytest.fixture
def former(tmp_path: Path) -> Iterator[Ledger]:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        database.executescript(WRITTEN.read_text())
    (tmp_path / "installation").write_text(INSTALLATION)
    ledger = Ledger.open(
        f"sqlite:///{tmp_path}/ledger.db", data_dir=tmp_path, secret_key=SECRET_KEY
    )
    yield ledger
    ledger.close()


def test_a_build_that_runs_is_taken_over_and_finished(former: Ledger) -> None:
    build = former.builds.get("b-running")
    assert (build.state, build.epoch) == (BuildState.RUNNING, 1)
    taken = former.builds.take_over(build.id, seen_epoch=1, owner="e-2", until=900.0, now=300.0)
    assert taken is not None
    former.logs.append(build.id, 1, 2, offset=8, data=b"two\n", now=301.0)
    assert former.logs.offset(build.id, 1) == 8
    order, access = former.instances.order("vm-running"), former.instances.access("vm-running")
    assert (order.user_data, access) == (USER_DATA, ACCESS)
    ended, _ = former.builds.finish(
        build.id, epoch=2, result=Result.SUCCESS, reason=Reason.EXIT_CODE, exit_code=0, now=302.0
    )
    assert ended.result is Result.SUCCESS
    assert b"".join(chunk.data for chunk in former.logs.read(build.id)) == b"one\ntwo\n"


def test_a_build_that_waits_starts(former: Ledger) -> None:
    build = former.builds.get("b-queued")
    assert (build.spec.name, dict(build.spec.labels)) == ("waits", {"team": "core"})
    assert former.builds.secrets(build.id) == {"TOKEN": b"s3cret"}
    ((claimed, instance),) = former.instances.start(
        [launch(former, build.id, "vm-new", now=300.0)], until=400.0
    )
    assert claimed.state is BuildState.PROVISIONING
    assert instance.state is InstanceState.REQUESTED


def test_what_is_done_can_be_read(former: Ledger) -> None:
    done = former.builds.get("b-done")
    assert (done.result, done.finished_at) == (Result.SUCCESS, 110.0)
    assert b"".join(chunk.data for chunk in former.logs.read("b-done")) == b"x\nx\n"
    assert [event.kind for event in former.events.list("b-done")]
    assert [member.id for member in former.engines.list()] == ["e-1"]
    assert {row.id for row in former.instances.open()} == {"vm-b-done", "vm-running"}


def test_what_lay_beside_it_goes_into_the_store(former: Ledger, tmp_path: Path) -> None:
    """A spooled source of a build that waits, the log of one that ended, and its artifacts."""
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/b-queued.tar").write_bytes(b"source")
    (tmp_path / "artifacts/b-done").mkdir(parents=True)
    (tmp_path / "artifacts/b-done/out").write_text("artifact")
    store = open_store(f"file://{tmp_path}/store")
    Uploader(
        former, lambda: store, sources=tmp_path / "sources", artifacts=tmp_path / "artifacts"
    ).run()
    assert list((tmp_path / "sources").iterdir()) == []
    transfer = SourceTransfer(former, lambda: store, tmp_path / "sources")
    source = transfer.fetch(former.builds.get("b-queued"))
    assert source is not None
    assert source.read_bytes() == b"source"
    assert former.logs.read("b-done") == []
    log = BuildLog(former, lambda: store, "b-done")
    assert b"".join(chunk.data for chunk in log.read()) == b"x\nx\n"
    files = files_of(former, lambda: store, tmp_path / "elsewhere", "b-done")
    assert [b"".join(files.read(entry)) for entry in files.ls()] == [b"artifact"]
    assert former.logs.read("b-running"), "it has not ended"
