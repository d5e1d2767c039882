"""Opening a ledger: what is made, what is refused, what is never written in clear."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from cryptography.fernet import Fernet
from sqlalchemy.exc import OperationalError

from tests.support.caches import save
from tests.support.ledger_builds import USER_DATA, launch, running, spec
from tests.support.postgres import Server
from vmrunner.errors import ConfigError, LedgerError
from vmrunner.ledger import Ledger, connections, tables, upgrade
from vmrunner.ledger.connections import connect
from vmrunner.ledger.direct import DirectConnection
from vmrunner.ledger.models import METADATA
from vmrunner.ledger.sql import columns_of
from vmrunner.ledger.urls import parse_url
from vmrunner.lib import local_files
from vmrunner.model import BuildState, CacheRule, CacheScope, Death, Reason, Result


def run_sql(url: str, statement: str) -> None:
    engine = connect(parse_url(url), migrating=True)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_a_ledger_outlives_its_process(url: str, data_dir: Path) -> None:
    first = Ledger.open(url, data_dir=data_dir)
    running(first)
    first.close()
    second = Ledger.open(url, data_dir=data_dir)
    assert (second.installation, second.generation) == (first.installation, first.generation)
    assert second.builds.get("b-1").state is BuildState.RUNNING
    assert second.instances.order("vm-1").user_data == USER_DATA
    second.close()


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    data = tmp_path / "a" / "data"
    ledger = Ledger.open(f"sqlite:///{data}/ledger.db", data_dir=data)
    running(ledger)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in data.iterdir()}
    ledger.close()
    assert modes == {
        "ledger.db": 0o600,
        "ledger.db-wal": 0o600,
        "ledger.db-shm": 0o600,
        "secret.key": 0o600,
        "installation": 0o600,
        "witness": 0o600,
    }
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_the_installation_survives_the_database(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = Ledger.open(f"sqlite:///{data}/ledger.db", data_dir=data)
    first.close()
    second = Ledger.open(f"sqlite:///{data}/new.db", data_dir=data)
    second.close()
    assert second.installation == first.installation
    assert second.generation != first.generation


def test_another_installation_is_refused(url: str, data_dir: Path) -> None:
    ledger = Ledger.open(url, data_dir=data_dir, installation="1111")
    ledger.close()
    assert ledger.installation == "1111"
    with pytest.raises(ConfigError, match="installation is 2222") as refused:
        Ledger.open(url, data_dir=data_dir, installation="2222")
    assert "1111" in refused.value.hint
    local_files.replace(data_dir / "installation", "3333")
    with pytest.raises(ConfigError, match="3333"):
        Ledger.open(url, data_dir=data_dir)
    Ledger.open(url, data_dir=data_dir, installation="1111").close()  # said outright: joined
    assert local_files.read(data_dir / "installation") == "1111"


def test_a_second_node_needs_the_secret_of_the_first(postgres: Server, tmp_path: Path) -> None:
    url = postgres.new()
    key = Fernet.generate_key().decode()
    first = Ledger.open(url, data_dir=tmp_path / "one", secret_key=key)
    running(first)
    with pytest.raises(ConfigError, match=r"secret\.key is not the secret"):
        Ledger.open(url, data_dir=tmp_path / "two")
    second = Ledger.open(url, data_dir=tmp_path / "three", secret_key=key)
    assert second.installation == first.installation
    assert second.instances.access("vm-1") == first.instances.access("vm-1")
    first.close()
    second.close()


def test_a_wrong_or_unusable_secret_is_refused(url: str, data_dir: Path) -> None:
    old = Fernet.generate_key().decode()
    Ledger.open(url, data_dir=data_dir, secret_key=old).close()
    new = Fernet.generate_key().decode()
    with pytest.raises(ConfigError, match="VMRUNNER_SECRET_KEY is not the secret"):
        Ledger.open(url, data_dir=data_dir, secret_key=new)
    Ledger.open(url, data_dir=data_dir, secret_key=f"{new},{old}").close()  # a rotation
    for bad in ("", "secret", "x" * 44):
        with pytest.raises(ConfigError, match="VMRUNNER_SECRET_KEY"):
            Ledger.open(url, data_dir=data_dir, secret_key=bad)
    (data_dir / "secret.key").write_text(old)
    (data_dir / "secret.key").chmod(0o644)
    with pytest.raises(ConfigError, match="0644") as refused:
        Ledger.open(url, data_dir=data_dir)
    assert refused.value.hint == f"chmod 600 {data_dir}/secret.key"


def everything(url: str, data_dir: Path) -> bytes:
    """All bytes of the database."""
    if url.startswith("sqlite"):
        return b"".join(p.read_bytes() for p in sorted(data_dir.glob("ledger.db*")))
    with psycopg.connect(url) as connection:
        tables = list(METADATA.tables)
        rows = [
            connection.execute(f"SELECT * FROM {table}".encode()).fetchall() for table in tables
        ]
        return repr(rows).encode()


def test_no_secret_is_in_the_database_in_clear(url: str, data_dir: Path) -> None:
    ledger = Ledger.open(url, data_dir=data_dir)
    ledger.builds.submit(
        spec(secrets=("TOKEN",)), id="b-1", now=10.0, secrets={"TOKEN": b"hunter2-hunter2"}
    )
    ledger.instances.start([launch(ledger, "b-1", "vm-1")], until=200.0)
    found = everything(url, data_dir)
    assert b"debian:trixie" in found
    for secret in (b"hunter2", b"aHVudGVyMi", b"PRIVATE KEY TEXT", b"HOST-PRIVATE-KEY"):
        assert secret not in found
    assert ledger.builds.secrets("b-1") == {"TOKEN": b"hunter2-hunter2"}
    ledger.close()


def test_what_was_sealed_is_erased_at_the_end(ledger: Ledger) -> None:
    def sealed() -> list[object]:
        return ledger._database.read(
            lambda c: [
                *c.exec_driver_sql("SELECT access, ordered FROM instances").one(),
                c.exec_driver_sql("SELECT secrets FROM builds").scalar(),
            ]
        )

    ledger.builds.submit(spec(), id="b-1", now=10.0, secrets={"TOKEN": b"hunter2"})
    ledger.instances.start([launch(ledger, "b-1", "vm-1")], until=200.0)
    assert None not in sealed()
    ledger.builds.finish("b-1", epoch=1, result=Result.ERROR, reason=Reason.INTERNAL, now=105.0)
    assert ledger.builds.secrets("b-1") == {}
    ledger.instances.mark_deleting("vm-1", seen_epoch=1, death=Death.DONE, now=106.0)
    ledger.instances.close("vm-1", epoch=2, death=Death.DONE, now=107.0)
    assert sealed() == [None, None, None]


def test_a_newer_database_is_refused(url: str, data_dir: Path) -> None:
    Ledger.open(url, data_dir=data_dir).close()
    run_sql(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match="version 9999") as refused:
        Ledger.open(url, data_dir=data_dir)
    assert "newer vmrunner" in refused.value.hint
    with pytest.raises(ConfigError, match="version 9999"):
        Ledger.upgrade(url)
    assert Ledger.current(url) == "9999"


def test_postgres_is_upgraded_only_when_asked(postgres: Server, tmp_path: Path) -> None:
    url = postgres.empty()
    assert Ledger.current(url) is None
    with pytest.raises(ConfigError, match="needs an upgrade") as refused:
        Ledger.open(url, data_dir=tmp_path)
    assert refused.value.hint == "vmrunner db upgrade"
    assert Ledger.upgrade(url) == Ledger.upgrade(url) == Ledger.current(url)
    Ledger.open(url, data_dir=tmp_path).close()


def test_a_server_without_a_locale_keeps_all_text(postgres: Server, tmp_path: Path) -> None:
    """`initdb` makes such a one where LANG is not set, as in a container."""
    url = postgres._create("TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    Ledger.upgrade(url)
    ledger = Ledger.open(url, data_dir=tmp_path)
    ledger.builds.submit(spec(name="Grüße"), id="b-1", now=1.0)
    assert ledger.builds.get("b-1").spec.name == "Grüße"
    here = CacheScope(tenant="a", own="main")
    save(ledger, "first", here, CacheRule(key="Grüße-1", path="/cache"))
    rule = CacheRule(key="new", path="/cache", fallback=("Grü",))
    found = ledger.caches.find(here, rule, 5.0)
    assert found is not None
    assert found.key == "Grüße-1"
    ledger.close()


def test_the_migrations_make_exactly_the_tables(ledger: Ledger, url: str) -> None:
    engine = connect(parse_url(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_statements_are_written_of_the_tables_that_there_are() -> None:
    defined = {name: list(found.columns.keys()) for name, found in METADATA.tables.items()}
    assert {found.name: list(columns_of(found)) for found in tables.ALL} == defined


def test_the_newest_version_is_alembics_head() -> None:
    scripts = ScriptDirectory(str(Path(upgrade.__file__).parent / "migrations"))
    assert upgrade.known()[-1] == scripts.get_current_head()
    assert {s.revision for s in scripts.walk_revisions()} == set(upgrade.known())


def broken(path: Path) -> None:
    path.write_bytes(b"this is no database, but it is long enough to be looked at" * 100)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda d: "mysql://x/y", "database.url: mysql"),
        (lambda d: "nonsense", "database.url: nonsense"),
        (lambda d: "sqlite://", "in memory"),
        (lambda d: "sqlite:///:memory:", "in memory"),
        (lambda d: f"sqlite:///{d}/file/x/ledger.db", "database.url: the directory"),
        (lambda d: f"sqlite:///{d}", "database.url: the file"),
    ],
)
def test_a_url_that_cannot_be_used_is_named(
    tmp_path: Path, make: Callable[[Path], str], words: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as refused:
        Ledger.open(make(tmp_path), data_dir=tmp_path)
    assert words in str(refused.value)
    assert refused.value.hint


def test_what_is_not_a_database_is_a_ledger_error(tmp_path: Path) -> None:
    broken(tmp_path / "ledger.db")
    with pytest.raises(LedgerError, match="not a database"):
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db", data_dir=tmp_path)


def test_a_transaction_that_cannot_begin_is_a_ledger_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a reaper goes on by the tags alone, whatever the driver itself raised."""
    monkeypatch.setattr(connections, "BUSY_MS", 1)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as another:
        another.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="locked"):
            Ledger.open(f"sqlite:///{tmp_path}/ledger.db", data_dir=tmp_path)


def test_a_server_that_is_not_there_is_a_ledger_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError):
        Ledger.open(f"postgresql://u:word@/x?host={tmp_path}", data_dir=tmp_path)


def test_a_password_is_not_repeated(tmp_path: Path) -> None:
    for url in ("mysql://user:password1@host/x", "postgres//user:password1@host/x"):
        with pytest.raises(ConfigError) as refused:
            Ledger.open(url, data_dir=tmp_path)
        assert "password1" not in str(refused.value)


MOUNTS = (
    "/dev/vda1 / ext4 rw 0 0\n"
    "server:/home /home nfs4 rw 0 0\n"
    "/dev/vdb /home/me/local\\040disk xfs rw 0 0\n"
)


def test_the_file_system_of_a_path_is_found() -> None:
    assert local_files.file_system(Path("/var/lib"), MOUNTS) == "ext4"
    assert local_files.file_system(Path("/home/me/data"), MOUNTS) == "nfs4"
    assert local_files.file_system(Path("/homes"), MOUNTS) == "ext4"
    assert local_files.file_system(Path("/home/me/local disk/x"), MOUNTS) == "xfs"
    local_files.refuse_network_disk(Path("/var/lib"), MOUNTS)


@pytest.mark.parametrize(
    "kind",
    [
        "nfs4", "cifs", "fuse.sshfs", "ceph", "fuse.glusterfs", "lustre", "gpfs", "9p", "virtiofs",
        "fuse.rclone", "ocfs2", "gfs2", "one.of.tomorrow",
    ],
)  # fmt: skip
def test_what_is_not_known_to_be_local_is_refused(kind: str) -> None:
    mounts = f"/dev/vda1 / ext4 rw 0 0\nserver:/x /shared {kind} rw 0 0\n"
    with pytest.raises(ConfigError, match=f"is on {kind}") as refused:
        local_files.refuse_network_disk(Path("/shared/data"), mounts)
    assert f"VMRUNNER_LOCAL_FILE_SYSTEM={kind}" in refused.value.hint


def test_an_unknown_file_system_is_named_local(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = "/dev/vda1 / ext4 rw 0 0\nhost /shared 9p rw 0 0\n"
    monkeypatch.setenv("VMRUNNER_LOCAL_FILE_SYSTEM", "9p")
    local_files.refuse_network_disk(Path("/shared/data"), mounts)
    with pytest.raises(ConfigError):
        local_files.refuse_network_disk(Path("/shared/data"), mounts.replace("9p", "nfs4"))
    monkeypatch.setenv("VMRUNNER_LOCAL_FILE_SYSTEM", "")
    with pytest.raises(ConfigError, match="a file system that is not known"):
        local_files.refuse_network_disk(Path("/shared/data"), "")


def test_many_processes_may_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from vmrunner.ledger import Ledger; d = pathlib.Path(sys.argv[1]);"
        "l = Ledger.open(f'sqlite:///{d}/ledger.db', data_dir=d);"
        "print(l.installation, l.generation); l.close()"
    )
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "data")], stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    answers = {opener.communicate(timeout=120)[0] for opener in openers}
    assert len(answers) == 1
    assert [opener.returncode for opener in openers] == [0] * 4


@pytest.mark.parametrize("name", ["ledger.db", "a #%25 ledger.db"])
def test_a_removed_ledger_is_not_made_again(tmp_path: Path, name: str) -> None:
    """New connections made a file without tables, and so nobody saw that it was removed."""
    tmp_path.chmod(0o700)
    url = f"sqlite:///{tmp_path / name}"
    for _ in range(2):  # made, and opened as it is
        ledger = Ledger.open(url, data_dir=tmp_path)
        assert ledger.builds.queued() == []
        ledger.close()
    for file in tmp_path.glob(f"{name}*"):
        file.unlink()
    for opened in (
        connect(parse_url(ledger.url)).connect,
        partial(DirectConnection, parse_url(ledger.url)),
    ):
        with pytest.raises((OperationalError, sqlite3.Error)):
            opened()
        assert ledger.is_removed()


def test_a_percent_sign_of_a_url_stays_itself(tmp_path: Path) -> None:
    """The tables were made in one file, and looked for in another."""
    tmp_path.chmod(0o700)
    Ledger.open(f"sqlite:///{tmp_path}/a%25b.db", data_dir=tmp_path).close()
    assert [path.name for path in tmp_path.glob("*.db")] == ["a%25b.db"]
