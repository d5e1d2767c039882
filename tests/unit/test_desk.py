"""What an engine's desk answers for."""

from __future__ import annotations

from typing import Any

from vmrunner.desk import Desk, EngineLimits
from vmrunner.model import Instance, InstanceState, Offer, Role, Scope

HERE, ELSEWHERE = Scope("fake", "a", "z"), Scope("fake", "b", "z")


class Counting:
    """A provider that counts how often it is asked where it acts: in a cloud that may be a call."""

    asked = 0

    @property
    def scopes(self) -> frozenset[Scope]:
        self.asked += 1
        return frozenset((HERE,))


def row(name: str, provider: str, scope: Scope = HERE) -> Instance:
    return Instance(
        id=name,
        build=f"b-{name}",
        attempt=1,
        provider=provider,
        offer=Offer(scope=scope, machine_type="small", place="z"),
        role=Role.BUILD,
        state=InstanceState.BUSY,
        created_at=0,
        state_since=0,
        deadline=1e9,
        epoch=1,
    )


def test_each_provider_with_rows_is_asked_once_and_no_other() -> None:
    providers: Any = {"local": Counting(), "cloud": Counting()}
    unused: Any = None
    desk = Desk(
        id="e-1",
        ledger=unused,
        providers=providers,
        limits=EngineLimits(),
        places=unused,
        orders=unused,
        births=unused,
        deaths=unused,
        wake=unused,
    )
    rows = [row("1", "local"), row("2", "local", ELSEWHERE), row("3", "gone"), row("4", "local")]
    assert [one.id for one in desk.reached(iter(rows))] == ["1", "4"]
    assert (providers["local"].asked, providers["cloud"].asked) == (1, 0)
    assert [one.id for one in rows if desk.provider_of(one)] == ["1", "4"], "the same answer"
