"""Failovers of an episode's ledger: at commits, between them, and to a standby that lags."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Final

from tests.faults.failover_side import CommitFate, Speaker
from tests.faults.world import World

#: The share of these episodes whose standby is not synchronous.
LAGS: Final = 0.25
_FATES: Final = {CommitFate.DONE: "commits done", CommitFate.UNDONE: "commits undone"}


def drawn_failovers(
    seed: str, happened: Counter[str], share: float, *, lags: bool
) -> Failovers | None:
    """Let the seed say whether an episode has any. `lags`: some of them may lose commits."""
    draw = Random(f"{seed}:failovers")
    if draw.random() >= share:
        return None
    return Failovers(draw, happened, lags=lags and draw.random() < LAGS)


class Failovers:
    """What becomes of the primaries, one after the other."""

    def __init__(self, draw: Random, happened: Counter[str], *, lags: bool) -> None:
        self._draw, self._happened, self.lags = draw, happened, lags
        self._often = draw.choice((0.0005, 0.002, 0.005))
        self._behind: Path | None = None
        self._falls_at = 0.0

    def begin(self, world: World) -> None:
        assert world.servers is not None
        self._world, self._servers = world, world.servers
        # An older standby would be told as one that lags.
        self._servers.judge = None if self.lags else self._judge

    def step(self) -> None:
        """The primary may die between two commits."""
        servers, draw, now = self._servers, self._draw, self._world.clock()
        if self._behind is not None:
            if now >= self._falls_at:
                before = len(self._world.lagging)
                self._fail_over(self._behind)
                lost = len(self._world.lagging) - before
                self._happened["rows that a standby lacked"] += lost
                self._behind = None
        elif draw.random() < 0.01 and servers.promoted:
            if self.lags:
                self._behind = servers.copy()
                self._falls_at = now + draw.choice((0.0, 5.0, 10.0))
            else:
                self._fail_over()

    def _fail_over(self, behind: Path | None = None) -> None:
        self._drawn("failovers to a standby that lags" if behind else "failovers between commits")
        self._servers.fail_over(behind)

    def _judge(self, _of: Speaker) -> CommitFate | None:
        if self._draw.random() >= self._often:
            return None
        fate = self._draw.choice(tuple(CommitFate))
        self._drawn(f"failovers amid {_FATES[fate]}")
        return fate

    def _drawn(self, what: str) -> None:
        draw, servers = self._draw, self._servers
        servers.window = draw.choice((0.0, 4.0, 20.0, 120.0))
        servers.reads = draw.random() < 0.5
        self._happened[what] += 1
