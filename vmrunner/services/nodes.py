"""Nodes: the processes that drive builds from this ledger, and which of them reaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmrunner.engine.membership import seems_alive
from vmrunner.reaper.turns import is_reapers
from vmrunner.runtime.background import one_host

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One engine. `seen_at`: its last heartbeat; `builds`: how many it drives now; `version`: of
    the tables that it knows; `outdated`: the ledger has another one, so that it neither launches
    nor concludes anything."""

    id: str
    kind: str
    machine: str
    pid: int
    joined_at: float
    seen_at: float
    alive: bool
    reaps: bool
    providers: tuple[str, ...]
    builds: int
    version: str
    outdated: bool


def status(ledger: Ledger, now: float) -> list[Node]:
    """Return all engines, oldest first."""
    reapers = {engine for name, engine in ledger.engines.holders().items() if is_reapers(name)}
    driven = [build.owner for build in ledger.builds.driven()]
    return [
        Node(
            id=member.id,
            kind=member.kind,
            machine=member.process.machine,
            pid=member.process.pid,
            joined_at=member.joined_at,
            seen_at=member.seen_at,
            alive=seems_alive(member, now, one_host=one_host(ledger)),
            reaps=member.id in reapers,
            providers=tuple(sorted(member.providers)),
            builds=driven.count(member.id),
            version=member.version,
            outdated=member.outdated,
        )
        for member in ledger.engines.list()
    ]
