"""`vm ls` of many: at most so many, and each VM beside its row."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.command_line import Cli
from tests.support.ledger_builds import SCOPE, running, template_launch
from vmrunner.errors import ConfigError
from vmrunner.ledger import Ledger
from vmrunner.ledger.row_reading import RowCache
from vmrunner.model import Death, Kind, Page, Power, Ref, Resource, Scope
from vmrunner.providers.fake import Clock, Cloud, FakeProvider
from vmrunner.providers.retired_providers import RetiredProvider
from vmrunner.runtime.provider_set import ProviderSet
from vmrunner.services import fleet


@pytest.fixture
def ledger(ledger_at_home: Ledger) -> Ledger:
    return ledger_at_home


def test_it_shows_the_newest_and_says_so(ledger: Ledger, cli: Cli) -> None:
    for n in range(4):
        running(ledger, f"b-{n}", f"vm-{n}")
    ledger.instances.mark_deleting("vm-3", seen_epoch=1, death=Death.DONE, now=107.0)
    ledger.instances.close("vm-3", epoch=2, death=Death.DONE, now=108.0)

    def ids(*more: str) -> tuple[list[str], bytes]:
        done = cli("vm", "ls", "-o", "json", *more)
        return [item["id"] for item in done.items], done.err

    assert ids("--limit", "2") == (
        ["vm-2", "vm-1"],
        b"vmrunner: these are the newest 2; --limit shows more\n",
    )
    assert ids("--limit", "4") == (["vm-2", "vm-1", "vm-0"], b"")
    assert ids("-a", "--limit", "2")[0] == ["vm-3", "vm-2"]
    assert ids("-a") == (["vm-3", "vm-2", "vm-1", "vm-0"], b"")
    assert ids("--cloud", "--limit", "1")[0] == ["vm-2", "vm-1", "vm-0"]
    assert cli("vm", "ls", "--limit", "0").code == 2


def test_a_vm_without_a_build_says_whose_it_is(ledger: Ledger, cli: Cli) -> None:
    running(ledger, "b-1", "vm-1")
    ledger.instances.start([template_launch(ledger, "vm-2")], until=1.0)
    lines = cli("vm", "ls").out.decode().splitlines()
    assert [" ".join(line.split()[:4]) for line in lines[1:]] == [
        "vm-2 a template requested",
        "vm-1 b-1 busy local",
    ]


def test_each_vm_stands_beside_its_row(ledger: Ledger) -> None:
    for n in range(3):
        running(ledger, f"b-{n}", f"vm-{n}")
    ledger.instances.mark_deleting("vm-0", seen_epoch=1, death=Death.DONE, now=107.0)
    ledger.instances.close("vm-0", epoch=2, death=Death.DONE, now=108.0)
    rows = ledger.instances.list(active=True)

    def seen(name: str, of: str | None, kind: Kind = Kind.INSTANCE) -> Resource:
        tags = {"vmrunner:instance": of} if of else {}
        return Resource(ref=Ref(SCOPE, kind, name), tags=tags, power=Power.RUNNING, created_at=1.0)

    recorded, twin = seen("i-vm-2", "vm-2"), seen("i-twin", "vm-2")
    disk, closed, stray = seen("d-1", "vm-1", Kind.DISK), seen("i-vm-0", "vm-0"), seen("x", None)

    found = fleet.beside(ledger, rows, [twin, disk, recorded, closed, stray])
    assert [(row.id if row else None, cloud) for row, cloud in found] == [
        ("vm-2", recorded),
        ("vm-1", None),
        ("vm-2", twin),
        ("vm-1", disk),
        ("vm-0", closed),
        (None, stray),
    ]


def test_each_row_is_told_by_its_own_drivers_clock(ledger: Ledger) -> None:
    running(ledger, "b-0", "vm-0")
    (row,) = ledger.instances.list()
    slow, fast = Clock(100.0), Clock(90000.0)
    here = FakeProvider("local", Cloud(fast), scopes=(Scope("other", "host", "host"),))
    former = FakeProvider("local", Cloud(slow), scopes=(row.scope,))
    given: Any = (
        SimpleNamespace(providers={"local": SimpleNamespace(kind="fake")}),
        lambda: ledger,
        None,
        None,
    )
    providers = ProviderSet(*given)
    providers._drivers = {"local": RetiredProvider("local", [former], here)}
    (shown,) = fleet.timed(providers, [(row, None)])
    assert shown.now == slow()


def test_rows_that_did_not_change_are_decoded_once() -> None:
    """However many there are."""
    decoded: list[str] = []

    def decode(row: Any) -> str:
        decoded.append(row[0])
        return f"{row[0]}:{row[1]}"

    memory = RowCache(decode)
    rows = [(f"vm-{n}", 0) for n in range(3000)]
    assert memory.read(rows) == [f"vm-{n}:0" for n in range(3000)]
    assert memory.read(list(rows))[2999] == "vm-2999:0"
    assert len(decoded) == 3000
    assert memory.read([("vm-1", 1), *rows[2:]])[:2] == ["vm-1:1", "vm-2:0"]
    assert len(decoded) == 3001
    assert len(memory.read(rows[:1])) == 1
    assert len(memory._cached) == 1  # what is not read any more is forgotten


def test_a_provider_that_fails_is_told_and_hides_no_other(ledger: Ledger) -> None:
    running(ledger, "b-0", "vm-0")
    tags = {"vmrunner:instance": "vm-0", "vmrunner:installation": ledger.installation}
    ref = Ref(SCOPE, Kind.INSTANCE, "i-0")
    seen = Resource(ref=ref, power=Power.RUNNING, created_at=1.0, tags=tags)
    good = SimpleNamespace(
        sweep=lambda: iter([Page(scope=SCOPE, kind=Kind.INSTANCE, resources=(seen,))])
    )

    def sweep() -> Iterator[Page]:
        raise OSError("away")

    providers: Any = SimpleNamespace(
        opened=lambda: (
            {"bad": SimpleNamespace(sweep=sweep), "good": good},
            {"shut": ConfigError("aws: no credentials")},
        )
    )
    view = fleet.look(ledger, providers)
    assert list(view.shown) == [seen]
    assert list(view.unread) == ["shut: aws: no credentials", "bad: OSError: away"]
