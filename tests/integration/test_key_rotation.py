"""Rotation of the secret key, on SQLite and PostgreSQL, while engines live."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import LargeBinary

from tests.support.command_line import Cli
from tests.support.ledger_builds import ACCESS, PROCESS, launch, running, spec, submitted
from vmrunner.errors import ConfigError, Conflict
from vmrunner.ledger import Ledger
from vmrunner.ledger.encryption import Encryption
from vmrunner.ledger.models import METADATA
from vmrunner.ledger.sealed_values import SealedValues
from vmrunner.services import key_rotation

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def with_secrets(ledger: Ledger, count: int) -> None:
    for n in range(count):
        ledger.builds.submit(
            spec(), id=f"b-{n:04}", now=10.0, secrets={"TOKEN": f"value {n}".encode()}
        )


def left(ledger: Ledger) -> int:
    return sum(progress.left for progress in ledger.sealed.reseal())


@pytest.fixture
def old(url: str, data_dir: Path) -> Iterator[Ledger]:
    """A node that knows the old key alone."""
    ledger = Ledger.open(url, data_dir=data_dir, secret_key=OLD)
    yield ledger
    ledger.close()


def both(url: str, data_dir: Path) -> Ledger:
    return Ledger.open(url, data_dir=data_dir, secret_key=f"{NEW},{OLD}")


def test_each_sealed_column_is_known(old: Ledger) -> None:
    binary = {
        f"{table.name}.{column.name}"
        for table in METADATA.tables.values()
        for column in table.columns
        if isinstance(column.type, LargeBinary)
    }
    assert binary - {"chunks.data"} == {progress.name for progress in old.sealed.reseal()}


def test_all_is_under_the_new_key(url: str, data_dir: Path, old: Ledger) -> None:
    with_secrets(old, 250)
    running(old, "b-x", "vm-1")
    ledger = both(url, data_dir)
    done = {
        progress.name: (progress.values, progress.resealed, progress.left)
        for progress in ledger.sealed.reseal()
    }
    assert done == {
        "builds.secrets": (250, 250, 0),
        "instances.access": (1, 1, 0),
        "instances.ordered": (1, 1, 0),
        "ledger.canary": (1, 1, 0),
    }
    assert all(progress.resealed == 0 for progress in ledger.sealed.reseal())
    ledger.close()
    after = Ledger.open(url, data_dir=data_dir, secret_key=NEW)
    assert after.builds.secrets("b-0249") == {"TOKEN": b"value 249"}
    assert after.instances.access("vm-1") == ACCESS
    after.close()
    with pytest.raises(ConfigError, match="not the secret"):
        Ledger.open(url, data_dir=data_dir, secret_key=OLD)


def test_a_crash_in_the_middle_is_gone_on_with(
    url: str, data_dir: Path, old: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both keys are needed until then: the new one alone does not open it."""
    with_secrets(old, 250)
    ledger = both(url, data_dir)
    reseal, pages = SealedValues._reseal, []

    def dies(self: SealedValues, column: object, page: list[object]) -> int:
        if len(pages) == 2:
            raise KeyboardInterrupt
        pages.append(len(page))
        return reseal(self, column, page)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(SealedValues, "_reseal", dies)
        with pytest.raises(KeyboardInterrupt):
            ledger.sealed.reseal()
    assert pages == [100, 100], "no transaction seals more at once"
    with pytest.raises(ConfigError, match="not the secret"):
        Ledger.open(url, data_dir=data_dir, secret_key=NEW)
    assert old.builds.secrets("b-0240") == {"TOKEN": b"value 240"}
    again = {progress.name: progress.resealed for progress in ledger.sealed.reseal()}
    assert again["builds.secrets"] == 50
    ledger.close()


def test_what_is_erased_meanwhile_stays_erased(
    url: str, data_dir: Path, old: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_secrets(old, 2)
    ledger = both(url, data_dir)
    resealed, erased = ledger.sealed._seal.resealed, []

    def meanwhile(token: bytes) -> bytes | None:
        if not erased:
            text = "UPDATE builds SET secrets = NULL WHERE id = 'b-0001'"
            erased.append(old._database.write(lambda c: c.exec_driver_sql(text)))
        return resealed(token)

    with monkeypatch.context() as patched:
        patched.setattr(ledger.sealed._seal, "resealed", meanwhile)
        ledger.sealed.reseal()
    assert ledger.builds.secrets("b-0000") == {"TOKEN": b"value 0"}
    assert ledger.builds.secrets("b-0001") == {}
    ledger.close()


def test_what_others_seal_meanwhile_is_told(url: str, data_dir: Path, old: Ledger) -> None:
    """By a node that has the old key alone; and under a key that nobody has."""
    ledger = both(url, data_dir)
    assert left(ledger) == 0
    with_secrets(old, 1)
    lost = Encryption(Fernet.generate_key().decode(), source="nobody")
    old.builds._seal, sealing = lost, old.builds._seal
    old.builds.submit(spec(), id="b-lost", now=10.0, secrets={"TOKEN": b"x"})
    old.builds._seal = sealing
    assert left(ledger) == 1, "b-lost; the other one was sealed anew"
    assert ledger.builds.secrets("b-0000") == {"TOKEN": b"value 0"}
    ledger.close()


def test_a_key_in_a_file_is_followed_by_all(url: str, data_dir: Path) -> None:
    """Two processes of one host have it open; neither begins anew."""
    first, second = Ledger.open(url, data_dir=data_dir), Ledger.open(url, data_dir=data_dir)
    with_secrets(first, 1)
    file = data_dir / "secret.key"
    was = file.read_text().strip()
    assert {progress.left for progress in key_rotation.rotate(first)} == {0}
    new, _, kept = file.read_text().strip().partition(",")
    assert kept == was != new
    assert second.builds.secrets("b-0000") == {"TOKEN": b"value 0"}
    submitted(second, "b-1")
    second.instances.start([launch(second, "b-1", "vm-1")], until=200.0)
    assert {progress.resealed for progress in key_rotation.rotate(first)} == {0}, (
        "a rotation is under way"
    )
    with pytest.raises(Conflict, match="still be on its way"):
        key_rotation.rotate(first, finish=True)
    long_ago = file.stat().st_mtime - key_rotation.SETTLED
    os.utime(file, (long_ago, long_ago))
    key_rotation.rotate(second, finish=True)
    assert file.read_text() == f"{new}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    third = Ledger.open(url, data_dir=data_dir)
    for ledger in (first, second, third):
        assert ledger.instances.access("vm-1") == ACCESS
        assert ledger.builds.secrets("b-0000") == {"TOKEN": b"value 0"}
        ledger.close()


def test_a_file_is_not_changed_under_nodes_of_other_machines(url: str, data_dir: Path) -> None:
    """Each has a copy of it, and could read nothing that was sealed anew."""
    ledger = Ledger.open(url, data_dir=data_dir)
    was = (data_dir / "secret.key").read_text()
    ledger.engines.join("e-2", PROCESS, "serve", 10.0, ["local"])
    if ledger.url.startswith("sqlite"):
        assert {progress.left for progress in key_rotation.rotate(ledger)} == {0}
    else:
        with pytest.raises(Conflict, match="engines of others"):
            key_rotation.rotate(ledger)
        assert (data_dir / "secret.key").read_text() == was
    ledger.close()


def test_a_running_process_survives_a_broken_file(url: str, data_dir: Path) -> None:
    ledger = Ledger.open(url, data_dir=data_dir)
    with_secrets(ledger, 1)
    file = data_dir / "secret.key"
    for text in ("short", "", None):
        file.unlink()
        if text is not None:
            file.write_text(text)
        assert ledger.builds.secrets("b-0000") == {"TOKEN": b"value 0"}
        file.touch()
    ledger.close()


def test_the_old_key_stays_while_something_is_left(cli: Cli, home: Path) -> None:
    assert cli("run", "-d", "--", "say", "x").code == 0
    file = home / "data/vmrunner/secret.key"
    (row,) = (
        r for r in cli("db", "rotate-key", "-o", "json").items if r["name"].endswith("canary")
    )
    assert row == {"name": "ledger.canary", "values": 1, "resealed": 1, "left": 0}
    assert cli("db", "rotate-key", "--finish").code == 5
    long_ago = file.stat().st_mtime - key_rotation.SETTLED
    os.utime(file, (long_ago, long_ago))
    with closing(sqlite3.connect(home / "data/vmrunner/ledger.db")) as database:
        database.execute("UPDATE builds SET secrets = x'00'")
        database.commit()
    done = cli("db", "rotate-key", "--finish")
    assert (done.code, b"keep the others" in done.err) == (7, True)
    assert "," in file.read_text()
