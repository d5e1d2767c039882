"""Warm-ups of VMs that wait, where no way leads to one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import ledger_rows as rows
from vmrunner.engine.pool_warm_ups import PoolWarmUps, WarmedVm
from vmrunner.errors import Refused
from vmrunner.model import Address, Instance, InstanceState, PoolSpec, Scope

SPEC = PoolSpec(name="fast", provider="far", container="debian:trixie")


@pytest.mark.parametrize("error", [Refused("no credentials"), ImportError("no module 'tunnel'")])
def test_a_channel_that_cannot_be_had_ends_its_own_alone(error: Exception) -> None:
    """The tick goes on: others wait for it, and the pool hears of it as of a VM that boots not."""

    def channel_to(_: Instance) -> Any:
        raise error

    def spawn(_: str, work: Callable[[], None]) -> None:
        work()

    context: Any = SimpleNamespace(channel_to=channel_to, wake=lambda: None)
    warm_ups = PoolWarmUps(context, lambda _: pytest.fail("it was made"), spawn)
    row = rows.instance("vm-1", "far", Scope("far", "account", "place"))
    warm_ups.begin(replace(row, address=Address("there")), SPEC)
    (word,) = warm_ups.ended()
    assert (word.instance.id, word.connection, word.error) == (row.id, None, str(error))


class Connection:
    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"epoch": 2}, False),  # another engine took it over
        ({"state": InstanceState.PARKING}, False),
        ({"state": InstanceState.DELETING}, False),
        (None, False),
    ],
)
def test_a_connection_is_kept_while_its_vm_waits_here(
    changes: dict[str, Any] | None, kept: bool
) -> None:
    context: Any = SimpleNamespace(wake=lambda: None)
    warm_ups, connection = PoolWarmUps(context, None, lambda _, work: work()), Connection()
    row = replace(
        rows.instance("vm-1", "far", Scope("far", "account", "place")),
        state=InstanceState.READY, epoch=1,
    )  # fmt: skip
    warm_ups.keep(WarmedVm(row, connection))
    warm_ups.forget({} if changes is None else {row.id: replace(row, **changes)})
    assert warm_ups.is_connected(row.id) is kept
    assert connection.closed is not kept
    assert warm_ups.connection(row.id) is (connection if kept else None)
    assert warm_ups.connection(row.id) is None, "it is handed over once"
