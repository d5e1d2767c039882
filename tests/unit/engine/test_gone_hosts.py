"""VMs of a host that is gone for good, and what others know of its clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.support.engine_parts import EngineParts
from tests.support.ledger_builds import OFFER, started
from vmrunner.engine.gone_hosts import DOUBT, LOOK, GoneHosts
from vmrunner.model import Death, Instance, InstanceState, Scope

ELSEWHERE = Scope("fake", "host-b", "state")
SLOW = 7200.0  # seconds that the other host's clock is behind ours


@dataclass
class Owner:
    """The members, as we watched them: one, which is gone or not."""

    beat: float | None
    gone: bool = True

    def last_beat(self, _: str | None) -> float | None:
        return self.beat

    def member_gone(self, _: str | None) -> bool:
        return self.gone


@dataclass
class View:
    everybody: dict[str, Instance]
    rows: dict[str, Instance] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)


class Watch:
    """A watch of one VM elsewhere, whose times are told by a clock that is `SLOW`."""

    def __init__(self, parts: EngineParts) -> None:
        self.parts = parts
        self.host_now = parts.clock() - SLOW
        self.row = replace(
            started(parts.ledger)[1],
            created_at=self.host_now,
            deadline=self.host_now + 1000.0,
            offer=replace(OFFER, scope=ELSEWHERE),
        )
        self.owner: Any = Owner(self.host_now + 100.0)
        self.hosts = GoneHosts(parts.context, self.owner)

    def after(self, seconds: float) -> bool:
        """True if it is given up so many seconds later."""
        end = self.parts.clock() + seconds
        view: Any = View({self.row.id: self.row})
        while self.parts.clock() < end and not view.closed:
            self.hosts.update(view)
            self.parts.clock.advance(LOOK)
        return bool(view.closed)


def test_the_other_hosts_own_clock_decides(parts: EngineParts) -> None:
    """By ours it was past its deadline long ago."""
    watch = Watch(parts)
    assert parts.clock() > watch.row.deadline + DOUBT
    assert not watch.after(900.0 + DOUBT - LOOK)
    assert watch.after(3 * LOOK)
    gone = parts.ledger.instances.get(watch.row.id)
    assert (gone.state, gone.death, gone.gone_at) == (
        InstanceState.GONE, Death.VANISHED, watch.row.deadline,
    )  # fmt: skip


def test_an_owner_that_left_is_counted_from_the_birth(parts: EngineParts) -> None:
    watch = Watch(parts)
    watch.owner.beat = None
    assert not watch.after(1000.0 + DOUBT - LOOK)
    assert watch.after(3 * LOOK)


def test_a_clock_set_back_after_a_birth_gives_longer(parts: EngineParts) -> None:
    """The VM was born an hour ahead of the last beat that is told by the right time."""
    watch = Watch(parts)
    watch.owner.beat = watch.host_now + 100.0 - 3600.0
    assert not watch.after(900.0 + 3600.0 + DOUBT - LOOK)
    assert watch.after(3 * LOOK)


def test_a_beat_begins_it_anew(parts: EngineParts) -> None:
    watch = Watch(parts)
    assert not watch.after(800.0)
    watch.owner.beat += 50.0
    assert not watch.after(850.0 + DOUBT - LOOK)
    assert watch.after(3 * LOOK)


def test_an_owner_that_lives_is_left_alone(parts: EngineParts) -> None:
    watch = Watch(parts)
    watch.owner.gone = False
    assert not watch.after(5000.0)


def test_who_tries_to_delete_there_is_not_gone(parts: EngineParts) -> None:
    watch = Watch(parts)
    for deletes in range(1, 20):
        watch.row = replace(watch.row, deletes=deletes)
        assert not watch.after(DOUBT - LOOK)


@pytest.mark.parametrize("kind", ["ec2", "gce", "azure", "unheard-of"])
def test_a_clouds_vm_is_never_given_up(parts: EngineParts, kind: str) -> None:
    """Its cloud lives, and may be asked some day."""
    watch = Watch(parts)
    watch.row = replace(watch.row, offer=replace(OFFER, scope=Scope(kind, "account", "place")))
    assert not watch.after(9000.0)
