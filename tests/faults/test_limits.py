"""Limits that are changed while VMs live: what was promised at birth holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.node import Node
from tests.faults.world import World
from vmrunner.engine.context import EngineLimits
from vmrunner.model import BuildState


def nothing(_: World, __: Node) -> None:
    """All is well."""


def ledger_away(w: World, node: Node) -> None:
    node.ledger_down = True
    w.run(25)
    node.ledger_down = False


def row_unreadable(w: World, _: Node) -> None:
    with sqlite3.connect(w.root / "ledger.db") as raw:
        raw.execute("UPDATE instances SET offer = 'x'")
    raw.close()


@pytest.mark.parametrize("trouble", [nothing, ledger_away, row_unreadable])
def test_a_lowered_limit_kills_nothing_that_was_promised_more(
    make_world: Callable[..., World], trouble: Callable[[World, Node], None]
) -> None:
    w = make_world()
    w.build_seconds = 300
    build = w.submit(ttl=500, timeout=400)
    node = w.node()
    w.run(30, until=lambda: w.truth.builds.get(build.id).state is BuildState.RUNNING)
    (machine,) = w.ours()
    node.kill()
    w.limits = EngineLimits(limits=replace(w.limits.limits, max_ttl=100))
    node = w.node()
    w.run(machine.created_at + 110 - w.clock())
    trouble(w, node)
    w.run(60)
    assert machine.alive
    assert w.clock() - machine.created_at > 100
