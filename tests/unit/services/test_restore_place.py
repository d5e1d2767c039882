"""Whether a ledger is served that somebody wants to put a backup in the place of."""

from __future__ import annotations

import pytest

from vmrunner.errors import Conflict
from vmrunner.ledger.backups import LedgerInPlace
from vmrunner.ledger.transfer_types import Member
from vmrunner.model import Process
from vmrunner.services import restore

NOW = 1_900_000_000.0
ELSEWHERE = Process(machine="other", boot="b", pid_namespace="n", pid=1, started=1)


class Place:
    """A ledger that an engine of another host is at, whose clock is wrong by so much; it beats
    while it lives."""

    def __init__(self, wrong: float, *, lives: bool) -> None:
        self.now, self.wrong, self.lives = NOW, wrong, lives
        self.beaten = NOW - 2.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def look(self) -> LedgerInPlace:
        beaten = self.now - self.now % 5 if self.lives else self.beaten
        beat = Member(
            id="e-1", process=ELSEWHERE, kind="serve", joined_at=0.0, seen_at=beaten + self.wrong
        )
        return LedgerInPlace(installation="i", used=True, members=(beat,))

    def refuse(self) -> None:
        restore._refuse_place(
            self.look, "postgresql://db/x", self.now, replace=True, sleep=self.sleep
        )


@pytest.mark.parametrize("wrong", [0.0, 50.0, 120.0, -120.0, 86_400.0])
def test_who_beats_lives_whatever_its_clock_says(wrong: float) -> None:
    with pytest.raises(Conflict, match="is served: by serve"):
        Place(wrong, lives=True).refuse()


@pytest.mark.parametrize("wrong", [120.0, -120.0])
def test_the_dead_are_believed_dead_after_a_look(wrong: float) -> None:
    Place(wrong, lives=False).refuse()


def test_who_beat_within_a_minute_may_be_slow() -> None:
    place = Place(0.0, lives=False)
    with pytest.raises(Conflict):
        place.refuse()
    place.sleep(60.0)
    place.refuse()
