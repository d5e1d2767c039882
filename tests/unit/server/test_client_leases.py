"""Which builds end since their clients are gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.sshd import wait_for
from vmrunner.errors import LedgerError, Unreadable, VmrunnerError
from vmrunner.server import client_leases
from vmrunner.server.client_leases import GAP, SubmitterWatch
from vmrunner.services.admission import SUBMITTER_LEASE

STEP = GAP / 2


class Node:
    """One that looks for clients; time is played. `broken`: builds that cannot be ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.leases: dict[str, float] = {}
        self.broken: set[str] = set()
        self.away: VmrunnerError | None = None
        self.ended: list[str] = []
        self.looks = 0
        ledger = SimpleNamespace(submitter_leases=SimpleNamespace(open=self._open))
        parts: Any = SimpleNamespace(ledger=ledger, wake=lambda: None)
        self.watch = SubmitterWatch(parts, lambda: self.now)
        monkeypatch.setattr(client_leases, "cancel", self._cancel)

    def _open(self) -> dict[str, float]:
        self.looks += 1
        if self.away is not None:
            raise self.away
        return dict(self.leases)

    def _cancel(self, _ledger: object, build: str, **_: object) -> None:
        if build in self.broken:
            raise Unreadable(f"the row of build {build} cannot be read")
        self.ended.append(build)
        del self.leases[build]

    def look(self, seconds: float) -> None:
        """Let it look for so long, as often as it must."""
        ends = self.now + seconds
        while self.now < ends:
            self.now += STEP
            self.watch.look()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(monkeypatch)


def test_a_build_that_cannot_be_ended_keeps_no_other(node: Node) -> None:
    """Nor does it when it comes first each time."""
    node.leases = {"b-1": 1.0, "b-2": 1.0}
    node.broken = {"b-1"}
    node.look(SUBMITTER_LEASE + 2 * STEP)
    assert node.ended == ["b-2"]
    node.leases["b-3"] = 1.0
    node.look(SUBMITTER_LEASE + 2 * STEP)
    assert node.ended == ["b-2", "b-3"]


def test_only_builds_that_are_open_are_remembered(node: Node) -> None:
    for n in range(5):
        node.leases = {f"b-{n}": 1.0}
        node.look(STEP)
    assert node.watch._leases._watched.keys() == {"b-4"}


def test_a_ledger_that_is_away_ends_no_build(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients got no answer either, so all of them begin anew; and somebody goes on looking."""
    monkeypatch.setattr(client_leases, "INTERVAL", 0.01)
    node.leases = {"b-1": 1.0}
    node.look(SUBMITTER_LEASE)
    node.away = LedgerError("the database restarts")
    node.watch.start()
    try:
        seen = node.looks
        wait_for(lambda: node.looks > seen + 2)
        node.away = None
        node.now += 2 * STEP
        seen = node.looks
        wait_for(lambda: node.looks > seen + 2)
        assert node.ended == []
    finally:
        node.watch.stop()
