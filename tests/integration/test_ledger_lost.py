"""A ledger that is lost, restored, copied or out of reach, as users meet it: programs over a cloud
in a file. What is past its deadline dies, and nothing else does."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.blackbox import (
    TTL,
    Cli,
    data_of,
    program,
    serving,
    started,
    swept,
    tags_of,
    until,
)
from tests.support.blackbox import cli as cli  # the fixture
from tests.support.blackbox import cloud as cloud  # the fixture
from tests.support.command_line import isolated
from tests.support.file_cloud import FileCloud
from tests.support.postgres import Server
from vmrunner.runtime.background import BackgroundEngines


def copy(what: Path, where: Path) -> None:
    subprocess.run(["cp", "-a", what, where], check=True)


def test_a_restored_backup_murders_nobody(home: Path, cli: Cli, cloud: FileCloud) -> None:
    with serving(home, cli):
        vm = started(cli, cloud)
    copy(data_of(home), home / "backup")
    with serving(home, cli):
        unknown = started(cli, cloud)
    for path in data_of(home).glob("ledger.db*"):
        path.unlink()
    for path in (home / "backup").glob("ledger.db*"):
        shutil.copy2(path, data_of(home))
    swept(cli, cloud)
    assert cloud.alive().keys() == {vm, unknown}
    report = cli("audit", "-o", "json")
    assert report.code == 7
    assert ("unknown", unknown) in {(line["fault"], line["ref"]) for line in report.items}
    cloud.advance(TTL)
    assert cli("reap").code == 0
    assert not cloud.alive()


def test_a_backup_that_is_written_over_the_ledger_murders_nobody(
    home: Path, cli: Cli, cloud: FileCloud
) -> None:
    """The same file and the same boot: only what it does not know tells."""
    with serving(home, cli):
        started(cli, cloud)
    with sqlite3.connect(data_of(home) / "ledger.db") as now:
        now.execute("VACUUM INTO ?", (str(home / "backup.db"),))
    now.close()
    with serving(home, cli):
        started(cli, cloud)
    with (
        sqlite3.connect(home / "backup.db") as source,
        sqlite3.connect(data_of(home) / "ledger.db") as target,
    ):
        source.backup(target)
    source.close()
    target.close()
    first = cli("reap")
    assert b"it was set back" in first.err
    swept(cli, cloud)
    assert len(cloud.alive()) == 2


def test_a_copy_murders_nothing_of_the_original(
    home: Path, cli: Cli, cloud: FileCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(home, cli):
        first = started(cli, cloud)
        copy(home / "data", home / "copy")
        second = started(cli, cloud)
        with monkeypatch.context() as other:
            other.setenv("XDG_DATA_HOME", str(home / "copy"))
            swept(cli, cloud)
        assert cloud.alive().keys() == {first, second}
        assert [x["state"] for x in cli("ps", "-o", "json").items] == ["running"] * 2


@pytest.mark.parametrize("lost", ["database", "all"])
def test_with_a_new_ledger_only_the_expired_die(
    home: Path, cli: Cli, cloud: FileCloud, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    cli("ps")
    now = cloud.now()
    tags = tags_of(home, "vm-a", now + 100)
    installation = tags["vmrunner:installation"]
    late = cloud.plant("fake", tags)
    late_elsewhere = cloud.plant("fake", tags_of(home, "vm-b", now + 100, generation="other"))
    later = cloud.plant("fake", tags_of(home, "vm-c", now + 9000))
    theirs = [
        cloud.plant("fake", tags | {"vmrunner:installation": name})
        for name in ("", "theirs", installation[:-1], f"{installation}0", installation.upper())
    ]
    guard = cloud.plant("fake", tags | {"vmrunner:role": "guard"})
    bare = cloud.plant("fake", {"Name": "vm-a"})
    if lost == "database":
        for path in data_of(home).glob("ledger.db*"):
            path.unlink()
    else:
        shutil.rmtree(data_of(home))
        monkeypatch.setenv("VMRUNNER_INSTALLATION", installation)
    swept(cli, cloud)
    dead = set(cloud.vms()) - set(cloud.alive())
    assert dead == {late, late_elsewhere}
    cloud.advance(9000)
    assert cli("reap").code == 0
    assert set(cloud.alive()) == {*theirs, guard, bare}
    assert later not in cloud.alive()


@pytest.fixture(params=["unreachable", "broken", "refused"])
def without_ledger(
    request: pytest.FixtureRequest, home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """Nobody can open the ledger any more."""
    cli("ps")

    def lose() -> None:
        installation = (data_of(home) / "installation").read_text().strip()
        ledger = data_of(home) / "ledger.db"
        if request.param == "unreachable":
            monkeypatch.setenv("VMRUNNER_DATABASE_URL", "postgresql://127.0.0.1:1/none")
            monkeypatch.setenv("VMRUNNER_INSTALLATION", installation)
        elif request.param == "broken":
            ledger.write_bytes(os.urandom(1 << 16))
        else:
            (data_of(home) / "secret.key").unlink()

    return lose


def test_all_expired_are_destroyed_without_a_ledger(
    home: Path, cli: Cli, cloud: FileCloud, without_ledger: Callable[[], None]
) -> None:
    now = cloud.now()
    late = cloud.plant("fake", tags_of(home, "vm-a", now - 10))
    later = cloud.plant("fake", tags_of(home, "vm-b", now + 500))
    theirs = cloud.plant("fake", tags_of(home, "vm-c", now - 10, installation="theirs"))
    without_ledger()
    done = cli("vm", "destroy", "--all-expired")
    assert (done.code, done.out) == (0, b"vm-a\n")
    assert b"going by the tags alone" in done.err
    assert cloud.alive().keys() == {later, theirs}
    assert late not in cloud.alive()


def test_reap_ends_what_is_past_its_deadline_without_a_ledger(
    home: Path, cli: Cli, cloud: FileCloud, without_ledger: Callable[[], None]
) -> None:
    now = cloud.now()
    cloud.plant("fake", tags_of(home, "vm-a", now - 10))
    later = cloud.plant("fake", tags_of(home, "vm-b", now + 500))
    without_ledger()
    report = cli("reap", "--dry-run", "-o", "json")
    assert [(x["instance"], x["reason"], x["outcome"]) for x in report.items] == [
        ("vm-a", "expired", None)
    ]
    assert len(cloud.alive()) == 2
    done = cli("reap", "-o", "json")
    assert done.code == 7
    assert b"the ledger is out of reach" in done.err
    assert [(x["instance"], x["outcome"]) for x in done.items] == [("vm-a", "dead")]
    assert cloud.alive().keys() == {later}


def left_without_an_engine(
    home: Path, cli: Cli, cloud: FileCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build with its VM, whose engine has ended."""
    monkeypatch.setattr(BackgroundEngines, "ensure", lambda *_: None)
    with serving(home, cli):
        started(cli, cloud)
        cli("drain")


def test_all_expired_are_destroyed_with_a_ledger(
    home: Path, cli: Cli, cloud: FileCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with a row, whose row is closed, and those without; none that has time left."""
    left_without_an_engine(home, cli, cloud, monkeypatch)
    (row,) = cli("vm", "ls", "-o", "json").items
    now = cloud.now()
    cloud.plant("fake", tags_of(home, "vm-a", now - 10))
    later = cloud.plant("fake", tags_of(home, "vm-b", now + 2 * TTL))
    assert cli("vm", "destroy", "--all-expired").out == b"vm-a\n"
    cloud.advance(TTL + 60)
    done = cli("vm", "destroy", "--all-expired")
    assert (done.code, done.out.decode().split()) == (0, [row["id"]])
    assert cloud.alive().keys() == {later}
    assert cli("vm", "ls", "-o", "json").items == []
    assert cli("vm", "destroy").code == 2


def test_vms_are_destroyed_where_no_engine_can_be_started(
    home: Path, cli: Cli, cloud: FileCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: what was done counts, and the next engine writes the builds' ends."""
    left_without_an_engine(home, cli, cloud, monkeypatch)
    monkeypatch.undo()
    isolated(home, monkeypatch)
    monkeypatch.setenv("CLOUD_FILE", str(cloud.path))
    cloud.advance(TTL + 60)
    (row,) = cli("vm", "ls", "-o", "json").items
    (data_of(home) / "engine.log").mkdir()
    done = cli("vm", "destroy", "--all-expired")
    assert (done.code, done.out.decode().split()) == (0, [row["id"]])
    assert b"warning: the background engine cannot be started" in done.err


def test_serve_waits_for_its_database_and_kills_meanwhile(
    home: Path, cli: Cli, cloud: FileCloud, monkeypatch: pytest.MonkeyPatch, postgres: Server
) -> None:
    cli("ps")
    now = cloud.now()
    cloud.plant("fake", tags_of(home, "vm-a", now - 10))
    later = cloud.plant("fake", tags_of(home, "vm-b", now + 500))
    installation = (data_of(home) / "installation").read_text().strip()
    url = postgres.new()
    monkeypatch.setenv("VMRUNNER_DATABASE_URL", url.replace("/ledger_", "/absent_"))
    monkeypatch.setenv("VMRUNNER_INSTALLATION", installation)
    with program(home) as serve:
        until(lambda: cloud.alive().keys() == {later})
        assert serve.poll() is None
