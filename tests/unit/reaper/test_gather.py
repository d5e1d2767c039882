"""What a pass looks at: the cloud first, then the ledger, and either one when the other is away."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.engine_parts import EngineParts
from tests.support.ledger_builds import SCOPE, template_launch
from tests.support.pools import waiting
from vmrunner.core.audit_rules import AuditFault
from vmrunner.core.sweep_view import SweepView
from vmrunner.engine.membership import Membership
from vmrunner.errors import LedgerError
from vmrunner.ledger.open_rows import OpenRowsReader
from vmrunner.lib.process import current
from vmrunner.model import Death, Instance, Kind, Page, PoolPlace, Resource, Scope
from vmrunner.providers.fake import Call, Fault
from vmrunner.reaper.gather import LedgerView, gather
from vmrunner.services.audit import survivors


def gathered(parts: EngineParts, **options: Any) -> tuple[SweepView, LedgerView]:
    return gather(
        parts.context,
        Membership(one_host=True),
        parts.provider,
        parts.ledger.open_rows(),
        **{"sweep": True, **options},
    )


def test_a_sweep_shows_the_cloud_and_the_ledger(parts: EngineParts) -> None:
    build, row = parts.booting()
    stranger = parts.cloud.plant(SCOPE, parts.machine(row).tags | {"vmrunner:instance": "vm-x"})
    sweep_view, ledger_view = gathered(parts)
    assert (ledger_view.by_id, ledger_view.builds) == ({row.id: row}, {build.id: build})
    assert sweep_view.alive == {row.ref, stranger.ref}
    assert (SCOPE, Kind.INSTANCE) in sweep_view.whole


def test_a_pass_without_a_sweep_asks_no_cloud(parts: EngineParts) -> None:
    _, row = parts.booting()
    sweep_view, ledger_view = gathered(parts, sweep=False)
    assert parts.cloud.counts["sweep"] == 0
    assert (sweep_view.alive, set(ledger_view.by_id)) == (set(), {row.id})


def test_the_cloud_is_read_before_the_ledger(parts: EngineParts) -> None:
    """Else a VM that is born meanwhile would have no row."""
    late: list[Instance] = []
    parts.cloud.on_call = lambda call: (
        late.append(parts.booting()[1]) if call.method == "sweep" and not late else None
    )
    _, ledger_view = gathered(parts)
    assert set(ledger_view.by_id) == {late[0].id}


def test_a_closed_row_is_told_with_its_leftover_resource(parts: EngineParts) -> None:
    row = parts.dying()
    parts.ledger.instances.close(row.id, epoch=row.epoch, death=Death.DONE, now=parts.clock())
    sweep_view, ledger_view = gathered(parts)
    assert [resource.ref for resource in sweep_view.resources] == [row.ref]
    assert ledger_view.by_id[row.id].gone_at == parts.clock()


def test_without_the_ledger_the_cloud_is_listed(
    parts: EngineParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, row = parts.booting()

    def away(*_: object) -> None:
        raise LedgerError("the ledger is away")

    monkeypatch.setattr(OpenRowsReader, "read", away)
    sweep_view, ledger_view = gathered(parts)
    assert sweep_view.alive == {row.ref}
    assert (ledger_view.by_id, ledger_view.builds, ledger_view.down) == (
        {},
        {},
        "the ledger is away",
    )


def test_a_ledger_that_fails_is_left_alone_for_the_pass(
    parts: EngineParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.booting()
    reads = []

    def away(*_: Any) -> Any:
        reads.append(1)
        raise LedgerError("the ledger is away")

    for part, name in [("instances", "these"), ("instances", "open")]:
        monkeypatch.setattr(getattr(parts.ledger, part), name, away)
    parts.provider.page_size = 1
    parts.booting("b-2")
    _, ledger_view = gathered(parts)
    assert (len(reads), ledger_view.down) == (1, "the ledger is away")


def test_a_ledger_that_fails_at_the_pools_is_away(
    parts: EngineParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read for the VMs that wait in one."""
    waiting(parts.ledger)

    def away() -> None:
        raise LedgerError("the ledger is away")

    monkeypatch.setattr(parts.ledger.pools, "all", away)
    _, ledger_view = gathered(parts)
    assert (ledger_view.by_id, ledger_view.early_deaths, ledger_view.down) == (
        {},
        {},
        "the ledger is away",
    )


@pytest.mark.parametrize(
    "change",
    [
        "pools SET spec = '{'",
        "pools SET named_at = 'late'",
        "pool_places SET empty_reason = 'no mood'",
    ],
)
def test_a_pool_that_cannot_be_read_harms_nobody(parts: EngineParts, change: str) -> None:
    """Whether its VM is still wanted nobody can tell: only its deadline ends that."""
    row = waiting(parts.ledger)
    parts.ledger.pools.note("fast", PoolPlace(place="", want=1))
    with sqlite3.connect(parts.root / "ledger.db") as raw:
        assert raw.execute(f"UPDATE {change}").rowcount == 1
    raw.close()
    _, ledger_view = gathered(parts)
    assert (set(ledger_view.by_id), ledger_view.early_deaths, ledger_view.down) == (
        {row.id},
        {},
        "",
    )


def test_a_templates_vm_is_not_wanted_without_its_maker(parts: EngineParts) -> None:
    parts.join("e-2", replace(current(), pid=2**22 + 1))  # no process has that
    for name, owner in (("vm-1", "e-1"), ("vm-2", "e-2"), ("vm-3", "e-3")):
        launches = [template_launch(parts.ledger, name, owner=owner)]
        parts.ledger.instances.start(launches, until=1.0)
    parts.ledger.engines.leave("e-1")
    parts.join("e-1", current())
    _, ledger_view = gathered(parts, sweep=False)
    assert ledger_view.early_deaths == {"vm-2": Death.ABANDONED, "vm-3": Death.ABANDONED}


def test_rows_read_before_the_ledger_failed_count_for_nothing(
    parts: EngineParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without their builds they would look like rows that nobody needs."""
    for name in ("b-1", "b-2"):
        parts.booting(name)
    parts.provider.page_size = 1
    read, reads = parts.ledger.instances.these, []

    def once(names: Any) -> Any:
        reads.append(names)
        if len(reads) > 1:
            raise LedgerError("the ledger is away")
        return read(names)

    monkeypatch.setattr(parts.ledger.instances, "these", once)
    sweep_view, ledger_view = gathered(parts)
    assert len(sweep_view.alive) == 2
    assert (ledger_view.by_id, ledger_view.builds, ledger_view.down) == (
        {},
        {},
        "the ledger is away",
    )


def test_a_part_that_cannot_be_read_is_a_hole(parts: EngineParts) -> None:
    parts.booting()
    parts.cloud.fail("sweep", Fault.SERVER_ERROR)
    sweep_view, _ = gathered(parts)
    assert sweep_view.unread(SCOPE, Kind.INSTANCE)
    assert not sweep_view.unread(SCOPE, Kind.DISK)


def test_a_sweep_that_raises_counts_as_far_as_it_came(
    parts: EngineParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, row = parts.booting()
    whole = parts.provider.sweep

    def broken() -> Iterator[Page]:
        yield next(whole())
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(parts.provider, "sweep", broken)
    sweep_view, ledger_view = gathered(parts)
    assert (sweep_view.alive, sweep_view.whole) == ({row.ref}, frozenset())
    assert set(ledger_view.by_id) == {row.id}


def test_a_sweep_that_shows_nothing_at_all_is_blind(
    parts: EngineParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty place has a page that says so: without one it is a driver's fault, or nobody
    answered."""
    monkeypatch.setattr(parts.provider, "sweep", lambda: iter(()))
    sweep_view, _ = gathered(parts)
    assert "nothing at all" in sweep_view.stopped
    found = survivors(parts.ledger, parts.context.limits.limits, "local", parts.provider)
    assert [line.fault for line in found] == [AuditFault.UNREAD]


def test_rows_of_another_account_are_nobody_s_business(parts: EngineParts) -> None:
    parts.booting()
    parts.provider.scopes = [Scope("fake", "another", "zone")]
    _, ledger_view = gathered(parts)
    assert ledger_view.by_id == {}


def test_rows_of_a_renamed_provider_belong_to_their_scope(parts: EngineParts) -> None:
    _, row = parts.booting()
    parts.context.providers = {"renamed": parts.provider}
    parts.provider.name = "renamed"
    reader = parts.ledger.open_rows()
    _, ledger_view = gather(
        parts.context, Membership(one_host=True), parts.provider, reader, sweep=False
    )
    assert set(ledger_view.by_id) == {row.id}


def test_what_came_is_told_page_by_page(parts: EngineParts) -> None:
    rows = [parts.booting(name)[1] for name in ("b-1", "b-2")]
    parts.provider.page_size = 1
    pairs: list[tuple[Resource, Instance]] = []
    gathered(
        parts,
        on_page=lambda resources, found: pairs.extend(
            (resource, found[resource.instance or ""]) for resource in resources
        ),
    )
    assert [row for _, row in pairs] == rows


def test_a_sweep_over_a_wrong_date_is_begun_again(parts: EngineParts) -> None:
    """What looked long-lived by it was let go, and may expire before the next sweep."""
    for name in ("b-1", "b-2"):
        parts.booting(name)
    parts.provider.page_size = 1
    parts.cloud.skew = -46 * 86400.0

    def right_itself(call: Call) -> None:
        if parts.cloud.counts["sweep"] > 1:
            parts.cloud.skew = 0.0

    parts.cloud.on_call = right_itself
    sweep_view, _ = gathered(parts)
    assert (sweep_view.holes, len(sweep_view.resources)) == ([], 2)
    assert sweep_view.begun == parts.clock()
    assert (SCOPE, Kind.INSTANCE) in sweep_view.whole


def test_a_sweep_that_takes_hours_comes_to_its_end(parts: EngineParts) -> None:
    for name in ("b-1", "b-2", "b-3"):
        parts.booting(name)
    parts.provider.page_size = 1

    def take_an_hour(_: Call) -> None:
        parts.clock.advance(3600.0)

    parts.cloud.on_call = take_an_hour
    sweep_view, _ = gathered(parts)
    assert (len(sweep_view.alive), sweep_view.holes) == (3, [])
    assert (SCOPE, Kind.INSTANCE) in sweep_view.whole
