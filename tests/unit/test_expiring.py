"""The end of what is past its deadline, with nothing but the cloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from vmrunner import expiring, fleet
from vmrunner.desk import EngineLimits
from vmrunner.errors import Uncertain
from vmrunner.model import Key, Kind, Scope, Seen
from vmrunner.providers.fake import SCOPE, Clock, Cloud, FakeProvider

DARK = Scope("fake", "account", "dark")


class HalfBlind(FakeProvider):
    """One of its places cannot be looked at."""

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        if DARK in {key.scope for key in ids}:
            raise Uncertain("timeout")
        return super().look(ids)


def test_a_place_that_cannot_be_looked_at_hides_nothing_and_saves_no_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    cloud = Cloud(clock)
    provider = HalfBlind("p", cloud, scopes=(SCOPE, DARK))
    tags = {
        "vmrunner:installation": "mine",
        "vmrunner:role": "build",
        "vmrunner:expires-at": str(int(clock() - 1)),
    }
    things = [
        cloud.plant(scope, {**tags, "vmrunner:instance": f"vm-{n}"}, kind=kind)
        for n, (scope, kind) in enumerate(
            [(SCOPE, Kind.INSTANCE), (DARK, Kind.INSTANCE), (SCOPE, Kind.DISK), (DARK, Kind.DISK)]
        )
    ]
    monkeypatch.setattr(fleet, "opened", lambda wiring: ({"p": provider}, {}))
    wiring: Any = SimpleNamespace(ledger=None, limits=EngineLimits, installation="mine")
    report = expiring.end(wiring, seconds=20, sleep=clock.sleep)
    assert not [thing for thing in things if thing.alive]
    told = {line.id: line.outcome for line in report.lines}
    assert told == {
        things[0].ref.id: "dead",
        things[1].ref.id: "accepted",
        things[2].ref.id: "accepted",
        things[3].ref.id: "accepted",
    }
    assert report.unread == (f"p: {DARK}: Uncertain: timeout",)
