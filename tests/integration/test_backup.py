"""Backup and restore of a ledger with its store, on SQLite and PostgreSQL."""

from __future__ import annotations

import base64
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.integration.test_ledger_former import INSTALLATION, SECRET_KEY, WRITTEN
from tests.support.command_line import Cli
from tests.support.ledger_builds import ACCESS, finished, running, spec, started
from tests.support.ledger_places import KEY, NOW, Place
from tests.support.postgres import Server
from tests.support.stored import Killed
from vmrunner.errors import ConfigError, Conflict, LedgerError, NotFound, StoreError, VmrunnerError
from vmrunner.ledger import Ledger, backups, sqlite_copy
from vmrunner.ledger.urls import parse_url
from vmrunner.lib import process
from vmrunner.model import ObjectState
from vmrunner.services.backup_manifest import BackupManifest
from vmrunner.store import digest_of
from vmrunner.store.build_log import BuildLog

New = Callable[[str], Place]
#: What is the same whatever the database is.
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.fixture
def new(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> Iterator[New]:
    """Places with a database of their own, which has nothing in it."""
    made: list[Place] = []

    def new(name: str, **options: Any) -> Place:
        (tmp_path / name).mkdir()
        here = f"sqlite:///{tmp_path}/{name}/data/ledger.db"
        if not url.startswith("sqlite"):
            here = request.getfixturevalue("postgres").empty()
            Ledger.upgrade(here)
        made.append(Place(here, tmp_path / name, **options))
        return made[-1]

    yield new
    for place in made:
        place.close()


@pytest.fixture
def place(new: New) -> Place:
    """A ledger with a build that runs, one that ended and one that waits, and what they left."""
    place = new("first")
    ledger = place.ledger
    running(ledger, "b-runs", "vm-runs")
    finished(ledger, "b-ended", chunks=3)
    place.artifacts("b-ended")
    (place.root / "source").write_bytes(b"the source")
    digest = place.sources.store(place.root / "source")
    ledger.builds.submit(
        spec(), id="b-waits", now=10.0, secrets={"TOKEN": b"s3cret"}, source=digest
    )
    ledger.actions.add("me", "drain", "all", 1.0)
    ledger.engines.join("e-1", process.of(1), "serve", 1.0)
    ledger.engines.leave("e-1")
    return place


def log_of(place: Place, build: str) -> bytes:
    return b"".join(c.data for c in BuildLog(place.ledger, lambda: place.store, build).read())


def test_all_of_it_comes_back_elsewhere(new: New, place: Place, tmp_path: Path) -> None:
    made = place.backup(tmp_path / "backup")
    assert (made.manifest.objects, made.manifest.lost, made.unbrought) == (3, [], 0)
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    other = new("second")
    assert other.restore(tmp_path / "backup") == made.manifest
    was, now = place.ledger, other.ledger
    for build in ("b-runs", "b-ended", "b-waits"):
        assert now.builds.get(build) == was.builds.get(build)
    assert now.builds.secrets("b-waits") == {"TOKEN": b"s3cret"}
    assert now.instances.access("vm-runs") == ACCESS
    assert log_of(other, "b-ended") == b"x\n" * 3
    source = other.sources.fetch(now.builds.get("b-waits"))
    assert source is not None
    assert source.read_bytes() == b"the source"
    assert other.store.names() == place.store.names()
    assert now.installation == was.installation
    assert now.generation != was.generation
    assert now.paused, "what waited then may have run since"
    now.actions.add("me", "undrain", "all", 2.0)
    assert [action.verb for action in now.actions.latest()] == ["undrain", "drain"]


def test_vms_born_since_are_not_of_its_generation(new: New, place: Place, tmp_path: Path) -> None:
    """Promise 2. The host that restores had nothing to do with them, and its own memory fits."""
    place.backup(tmp_path / "backup")
    memory = (place.paths.data / "witness").read_text()
    was = place.ledger.generation
    started(place.ledger, "b-2", "vm-2")
    (place.paths.data / "witness").write_text(memory)
    place.restore(tmp_path / "backup", replace=True)
    with pytest.raises(NotFound):
        place.ledger.builds.get("b-2")
    assert place.ledger.generation != was
    assert backups.look(parse_url(place.url), None).members == ()


def test_nobody_waits_for_a_backup(place: Place, tmp_path: Path) -> None:
    """Somebody is in the middle of a write, and ends it later."""
    inside = []

    def write(connection: Any) -> None:
        connection.exec_driver_sql("UPDATE builds SET name = 'later' WHERE id = 'b-runs'")
        copy = place.ledger.copy_to(tmp_path / "copy")
        inside.append(len(copy.objects))

    place.ledger._database.write(write)
    assert inside == [2]
    assert place.ledger.builds.get("b-runs").spec == spec()


def test_a_row_never_lacks_its_object(new: New, place: Place, tmp_path: Path) -> None:
    """Objects go and come while the backup is made."""
    extra = place.artifacts("b-ended", conclude=False)
    assert not place.ledger.objects.conclude(place.ledger.objects.get(extra), epoch=2)
    place.ledger._database.write(
        lambda c: c.exec_driver_sql("UPDATE objects SET state = 'stored' WHERE build IS NOT NULL")
    )
    read = place.store.read

    def meanwhile(name: str, *span: Any) -> Iterator[bytes]:
        if extra in place.store.names():
            assert place.ledger.objects.mark_deleting(extra, unreferenced_before=NOW + 1)
            place.store.delete(extra)
            place.ledger.objects.forget(extra)
            finished(place.ledger, "b-late")
            place.artifacts("b-late")
        return read(name, *span)

    place.store.read = meanwhile  # type: ignore[method-assign]
    made = place.backup(tmp_path / "backup")
    assert (made.manifest.gone, made.manifest.lost) == ([extra], [])
    other = new("second")
    other.restore(tmp_path / "backup")
    assert other.ledger.objects.get(extra).state is ObjectState.DELETING
    rows = [stored for stored, _ in other.ledger.objects.page("")]
    assert {row.name for row in rows if row.state is ObjectState.STORED} == set(other.store.names())


@on_sqlite
def test_an_object_that_was_lost_before_is_told(new: New, place: Place, tmp_path: Path) -> None:
    name = place.ledger.builds.get("b-ended").artifacts_object
    assert name is not None
    place.store.delete(name)
    made = place.backup(tmp_path / "backup")
    assert (made.manifest.lost, made.manifest.objects) == ([name], 2)
    other = new("second")
    other.restore(tmp_path / "backup")
    assert other.ledger.objects.get(name).state is ObjectState.STORED, "as it was"


@on_sqlite
def test_an_object_that_rotted_keeps_no_other_out(place: Place, tmp_path: Path) -> None:
    name = place.ledger.builds.get("b-ended").artifacts_object
    assert name is not None
    path = place.store.path(name)
    assert path is not None
    path.chmod(0o600)
    path.write_bytes(b"other bytes")
    made = place.backup(tmp_path / "backup")
    assert (made.manifest.lost, made.manifest.objects) == ([name], 2)
    assert not (tmp_path / "backup/objects" / name).exists()


@on_sqlite
def test_a_backup_is_whole_or_not_there(place: Place, tmp_path: Path) -> None:
    place.store.dies = "read"
    with pytest.raises(Killed):
        place.backup(tmp_path / "backup")
    place.store.away = True
    with pytest.raises(StoreError):
        place.backup(tmp_path / "backup")
    place.store.away = False
    assert not list(tmp_path.glob("backup*"))
    (tmp_path / "backup.part").mkdir()
    with pytest.raises(Conflict, match=r"backup\.part is there already"):
        place.backup(tmp_path / "backup")
    with pytest.raises(VmrunnerError, match="No such file"):
        place.backup(tmp_path / "no/backup")


@on_sqlite
def test_a_damaged_backup_changes_nothing(new: New, place: Place, tmp_path: Path) -> None:
    place.backup(tmp_path / "backup")
    other = new("second")
    was = Ledger.in_place(other.url)
    files = [path for path in (tmp_path / "backup").rglob("*") if path.is_file()]
    assert len(files) == 6
    for file in files:
        whole = file.read_bytes()
        data = bytearray(whole)
        data[len(data) // 2] ^= 1
        for content in (bytes(data), None):
            file.unlink()
            if content is not None:
                file.write_bytes(content)
            with pytest.raises((StoreError, NotFound), match=r"backup") as refused:
                other.restore(tmp_path / "backup", replace=True)
            assert refused.value.hint
        file.write_bytes(whole)
    assert Ledger.in_place(other.url) == was
    assert other.store.names() == []


def test_a_copy_that_is_damaged_is_not_put_back(tmp_path: Path) -> None:
    """On a disk that gives other bytes than it was given: after its hash was found right."""
    here, file = tmp_path / "ledger.db", tmp_path / "copy.db"
    for path in (here, file):
        Ledger.upgrade(f"sqlite:///{path}")
    with closing(sqlite3.connect(file)) as copy, copy:
        copy.execute("PRAGMA writable_schema = ON")
        copy.execute("UPDATE sqlite_master SET rootpage = 2 WHERE name = 'outbox'")
    was = Ledger.in_place(f"sqlite:///{here}")
    with pytest.raises(LedgerError, match="damaged"):
        sqlite_copy.put_back(parse_url(f"sqlite:///{here}"), here, file, [])
    assert Ledger.in_place(f"sqlite:///{here}") == was
    assert not list(tmp_path.glob(".*.restore"))


def test_a_restore_that_fails_changes_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its last statement."""
    place.backup(tmp_path / "backup")
    place.ledger.builds.submit(spec(), id="b-new", now=20.0)
    was = place.ledger.generation
    settling = backups._settling
    with monkeypatch.context() as patched:
        patched.setattr(backups, "_settling", lambda *a: [*settling(*a), "SELECT none FROM none"])
        with pytest.raises(LedgerError):
            place.restore(tmp_path / "backup", replace=True)
    assert place.ledger.builds.get("b-new").id == "b-new"
    assert place.ledger.generation == was
    assert not list(place.paths.data.glob("*.restore"))


def test_a_ledger_in_use_is_not_restored_over(place: Place, tmp_path: Path) -> None:
    place.backup(tmp_path / "backup")
    with pytest.raises(Conflict, match="has builds") as refused:
        place.restore(tmp_path / "backup")
    assert "--replace" in refused.value.hint
    place.ledger.engines.join("e-2", process.current(), "serve", NOW)
    with pytest.raises(Conflict, match="is served: by serve"):
        place.restore(tmp_path / "backup", replace=True)
    place.ledger.engines.leave("e-2")
    place.restore(tmp_path / "backup", replace=True, dry_run=True)
    assert not place.ledger.paused
    place.restore(tmp_path / "backup", replace=True)
    assert place.ledger.paused


@on_sqlite
def test_the_key_is_not_in_it_and_must_fit(new: New, place: Place, tmp_path: Path) -> None:
    place.backup(tmp_path / "backup")
    everything = b"".join(p.read_bytes() for p in (tmp_path / "backup").rglob("*") if p.is_file())
    assert KEY.encode() not in everything
    assert b"PRIVATE KEY" not in everything
    other = new("second", key=Fernet.generate_key().decode())
    with pytest.raises(ConfigError, match="VMRUNNER_SECRET_KEY is not the secret"):
        other.restore(tmp_path / "backup")
    other.settings = other.settings.model_copy(update={"secret_key": None})
    with pytest.raises(ConfigError, match=r"no .*secret\.key"):
        other.restore(tmp_path / "backup")
    assert not (other.paths.data / "secret.key").exists()
    (other.paths.data / "secret.key").write_text(KEY)
    (other.paths.data / "secret.key").chmod(0o600)
    other.restore(tmp_path / "backup", dry_run=True)


@on_sqlite
def test_another_installation_is_not_taken_over(new: New, place: Place, tmp_path: Path) -> None:
    place.backup(tmp_path / "backup")
    other = new("second")
    former = other.ledger.installation
    with pytest.raises(Conflict, match=f"is {former}, but the backup"):
        other.restore(tmp_path / "backup")
    other.restore(tmp_path / "backup", replace=True)
    assert other.ledger.installation == place.ledger.installation != former
    third = new("third", installation=INSTALLATION)
    with pytest.raises(ConfigError, match=f"installation is {INSTALLATION}"):
        third.restore(tmp_path / "backup", replace=True)


def test_a_backup_goes_into_its_own_kind_alone(
    postgres: Server, new: New, place: Place, tmp_path: Path
) -> None:
    place.backup(tmp_path / "backup")
    sqlite = place.url.startswith("sqlite")
    url = postgres.empty() if sqlite else f"sqlite:///{tmp_path}/ledger.db"
    with pytest.raises(ConfigError, match="the backup is of a ledger on"):
        Place(url, tmp_path / "other").restore(tmp_path / "backup")


def test_a_file_that_is_damaged_is_to_be_moved_away(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/one/data/ledger.db", tmp_path / "one")
    finished(place.ledger, "b-1")
    place.backup(tmp_path / "backup")
    place.close()
    file = place.paths.data / "ledger.db"
    file.write_bytes(b"not a database any more" * 1000)
    with pytest.raises(LedgerError, match="move it away"):
        place.restore(tmp_path / "backup", replace=True)
    file.unlink()
    place.restore(tmp_path / "backup")
    assert place.ledger.builds.get("b-1").finished
    assert file.stat().st_mode & 0o777 == 0o600
    place.close()


def test_a_backup_of_an_earlier_version_is_upgraded(tmp_path: Path) -> None:
    """And one of a later version is refused."""
    source = tmp_path / "backup"
    source.mkdir()
    with closing(sqlite3.connect(source / "ledger")) as database:
        database.executescript(WRITTEN.read_text())
        version = database.execute("SELECT version_num FROM alembic_version").fetchone()[0]
        generation, canary = database.execute("SELECT generation, canary FROM ledger").fetchone()
    (source / "objects.jsonl").touch()
    manifest = {
        "vmrunner": "0.0.1", "database": "sqlite", "version": version, "taken_at": 1.0,
        "installation": INSTALLATION, "generation": generation, "objects": 0, "size": 0,
        "canary": base64.b64encode(canary).decode(), "ledger_sha256": digest_of(source / "ledger"),
        "objects_sha256": digest_of(source / "objects.jsonl"),
    }  # fmt: skip

    def write(options: dict[str, Any]) -> None:
        text = BackupManifest.model_validate(options).with_checksum().model_dump_json()
        (source / "manifest.json").write_text(text)

    write(manifest)
    place = Place(f"sqlite:///{tmp_path}/new/data/ledger.db", tmp_path / "new", key=SECRET_KEY)
    place.restore(source)
    assert place.ledger.builds.get("b-running").id == "b-running"
    place.close()
    write(manifest | {"version": "9999"})
    with pytest.raises(ConfigError, match="9999"):
        place.restore(source, replace=True)


def test_the_command_line_does_both(cli: Cli, home: Path) -> None:
    build = cli("run", "--name", "nightly", "--", "say", "hello").last[3]
    done = cli("backup", str(home / "backup"), "-o", "json")
    assert (done.code, done.items[0]["path"]) == (0, str(home / "backup"))
    assert b"secret.key too, and elsewhere" in done.err
    assert cli("backup", str(home / "backup")).code == 5
    assert cli("restore", str(home / "backup")).code == 5
    data = home / "data/vmrunner"
    shutil.move(data, home / "lost")
    assert cli("restore", str(home / "backup")).code == 2, "without its key"
    data.mkdir(mode=0o700, exist_ok=True)
    shutil.copy2(home / "lost/secret.key", data)
    assert b"dry run" in cli("restore", str(home / "backup"), "--dry-run").err
    done = cli("restore", str(home / "backup"))
    assert (done.code, b"drain --off" in done.err) == (0, True)
    assert cli("logs", build).out == b"hello\n"
    assert cli("run", "-d", "--", "say", "again").code == 0
    assert b"launching" in cli("ps").out + cli("ps", "-o", "wide").out
    assert cli("drain", "--off").code == 0


def test_over_a_server_neither_is_to_be_had(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMRUNNER_SERVER", "http://127.0.0.1:1")
    for command in (("backup", "x"), ("restore", "x"), ("db", "rotate-key")):
        done = cli(*command)
        assert (done.code, b"where the ledger is" in done.err) == (2, True)
