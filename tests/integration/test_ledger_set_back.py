"""A database that is not what its host remembers gets a new generation, for everybody."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from tests.support.ledger_builds import launch, running, started, submitted
from tests.support.postgres import Server
from vmrunner.errors import LedgerError
from vmrunner.ledger import Ledger
from vmrunner.ledger.connections import connect
from vmrunner.ledger.urls import parse_url
from vmrunner.lib import ids
from vmrunner.model import Death, Reason, Result

Open = Callable[[], Ledger]


@pytest.fixture
def opened(url: str, data_dir: Path) -> Open:
    return lambda: Ledger.open(url, data_dir=data_dir)


def forget(url: str, instance: str) -> None:
    """As a backup does that was made before its start."""
    engine = connect(parse_url(url), migrating=True)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM instances WHERE id = '{instance}'")
    engine.dispose()


def test_the_next_process_and_a_running_one_notice_it(url: str, opened: Open) -> None:
    first, second = opened(), opened()
    running(first)
    was = first.generation
    first.recognise()
    assert first.generation == was
    forget(url, "vm-1")
    third = opened()
    assert third.generation != was
    for ledger in (first, second, third):
        ledger.recognise()
        assert ledger.generation == third.generation
        ledger.close()
    again = opened()
    assert again.generation == third.generation
    again.close()


def test_all_that_a_host_starts_is_remembered_whoever_started_it(url: str, opened: Open) -> None:
    """Also after a refusal, by the second offer."""
    first, second = opened(), opened()
    started(first, "b-1", "vm-9")
    submitted(second, "b-2")
    second.instances.start([launch(second, "b-2", "vm-2")], until=200.0)
    second.instances.next_offer("vm-2", launch(second, "b-2", "vm-3", seen_epoch=1), now=101.0)
    was = first.generation
    forget(url, "vm-3")
    first.recognise()
    assert first.generation != was
    first.close()
    second.close()


def test_one_host_notices_it_for_all(postgres: Server, tmp_path: Path) -> None:
    """The host that started what is forgotten; the other one hears of it before it concludes."""
    url = postgres.new()
    key = Fernet.generate_key().decode()
    first = Ledger.open(url, data_dir=tmp_path / "one", secret_key=key)
    second = Ledger.open(url, data_dir=tmp_path / "two", secret_key=key)
    running(first)
    running(second, "b-2", "vm-2")
    first.recognise()
    second.recognise()
    was = second.generation
    forget(url, "vm-2")
    first.recognise()
    assert first.generation == was
    second.recognise()
    first.recognise()
    assert first.generation == second.generation != was
    first.close()
    second.close()


def test_a_refused_start_that_goes_sets_nothing_back(postgres: Server, tmp_path: Path) -> None:
    """A host remembers it, and another one drops its row at once."""
    url, key = postgres.new(), Fernet.generate_key().decode()
    first = Ledger.open(url, data_dir=tmp_path / "one", secret_key=key)
    second = Ledger.open(url, data_dir=tmp_path / "two", secret_key=key)
    submitted(first, "b-1")

    def refused(ledger: Ledger, instance: str, now: float) -> None:
        """Those of more than 500 s ago go."""
        seen = ledger.builds.get("b-1").epoch
        request = launch(ledger, "b-1", instance, seen_epoch=seen, now=now)
        ledger.instances.start([request], until=now + 100)
        epoch = ledger.instances.get(instance).epoch
        ledger.instances.close(instance, epoch=epoch, death=Death.REFUSED, now=now)
        ledger.builds.put_back("b-1", epoch=seen + 1, now=now, before=now - 500)

    vms = [aged(3000.0), aged(2600.0), aged(2400.0)]
    first.recognise()  # the other one came after it
    refused(first, vms[0], 1000.0)
    was = first.generation
    refused(second, vms[1], 1400.0)
    refused(second, vms[2], 1600.0)
    assert {row.id for row in second.instances.list(build="b-1")} == set(vms[1:])
    for ledger in (first, second):
        ledger.recognise()
        assert ledger.generation == was
        ledger.close()


@pytest.mark.parametrize("doubt", ["another boot", "another file", "no witness"])
def test_a_file_that_may_be_a_copy_counts_as_one(tmp_path: Path, doubt: str) -> None:
    url, data = f"sqlite:///{tmp_path}/data/ledger.db", tmp_path / "data"
    first = Ledger.open(url, data_dir=data)
    running(first)
    first.close()
    witness = data / "witness"
    boot, _, rest = witness.read_text().partition(" ")
    if doubt == "another boot":
        witness.write_text(f"{boot[::-1]} {rest}")
    elif doubt == "no witness":
        witness.unlink()
    else:
        shutil.copy2(data / "ledger.db", data / "copy.db")
        (data / "copy.db").replace(data / "ledger.db")
    second, third = Ledger.open(url, data_dir=data), Ledger.open(url, data_dir=data)
    assert second.generation != first.generation
    assert third.generation == second.generation
    second.close()
    third.close()


def test_what_cannot_be_remembered_is_not_asked_for(opened: Open, data_dir: Path) -> None:
    ledger = opened()
    submitted(ledger)
    (data_dir / "witness").unlink()
    (data_dir / "witness").mkdir()
    with pytest.raises(LedgerError, match="witness cannot be written: Is a directory"):
        ledger.instances.start([launch(ledger, "b-1", "vm-1")], until=200.0)
    ledger.close()


def aged(seconds: float) -> str:
    """The name of a VM that was asked for so long ago."""
    return f"{ids.instances_since(time.time() - seconds)}0000000000000000"


def ended(ledger: Ledger, vm: str, build: str = "b-1") -> None:
    running(ledger, build, vm)
    end = {"result": Result.SUCCESS, "reason": Reason.EXIT_CODE, "death": Death.DONE}
    ledger.builds.finish(build, epoch=1, now=110.0, **end)  # type: ignore[arg-type]
    ledger.instances.close(vm, epoch=2, death=Death.DONE, now=111.0)
    ledger.removals.remove(build, 112.0, sleep=lambda _: None)


def retained(ledger: Ledger, url: str, vm: str) -> None:
    assert ledger.old_rows.remove(1e9, 2e9, sleep=lambda _: None).count == 1


def refused(ledger: Ledger, url: str, vm: str) -> None:
    """A build that is tried again: the row of the try before goes."""
    submitted(ledger)
    ledger.instances.start([launch(ledger, "b-1", vm)], until=200.0)
    row = ledger.instances.get(vm)
    ledger.instances.close(vm, epoch=row.epoch, death=Death.REFUSED, now=101.0)
    ledger.builds.put_back("b-1", epoch=row.epoch, now=102.0, before=1e9)


@pytest.mark.parametrize("removed", [retained, refused])
def test_a_row_that_was_removed_is_no_set_back(
    url: str, opened: Open, removed: Callable[[Ledger, str, str], None]
) -> None:
    """A host that started nothing for as long, or whose last VM was refused."""
    ledger = opened()
    was, vm = ledger.generation, aged(1000.0)
    if removed is retained:
        ended(ledger, vm)
    removed(ledger, url, vm)
    assert not ledger.instances.known([vm])
    ledger.recognise()
    assert ledger.generation == was
    ledger.close()
    again = opened()
    assert again.generation == was
    again.close()


@pytest.mark.parametrize("age", [100.0, -86400.0 * 365])
def test_a_removed_row_vouches_for_no_younger_one(url: str, opened: Open, age: float) -> None:
    """Nor does one that a fast clock named."""
    ledger = opened()
    old, young = aged(age), aged(50.0)
    ended(ledger, old)
    retained(ledger, url, old)
    running(ledger, "b-2", young)
    was = ledger.generation
    ledger.recognise()
    assert ledger.generation == was
    forget(url, young)
    ledger.recognise()
    assert ledger.generation != was
    ledger.close()


def test_a_claimed_row_that_is_there_needs_its_epoch(url: str, opened: Open) -> None:
    """A mark above it says nothing: its row was not removed."""
    ledger = opened()
    newer, older = aged(1000.0), aged(2000.0)
    ended(ledger, newer)
    running(ledger, "b-2", older)
    retained(ledger, url, newer)
    was = ledger.generation
    ledger._witness.note(older, epoch=7)
    ledger.recognise()
    assert ledger.generation != was
    ledger.close()
