"""The end of what is past its deadline, with nothing but the cloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

from vmrunner.errors import Uncertain
from vmrunner.model import Key, Kind, Limits, Scope, Seen
from vmrunner.providers.fake import SCOPE, Clock, Cloud, FakeProvider
from vmrunner.reaper import expired

DARK, DIM = Scope("fake", "account", "dark"), Scope("fake", "account", "dim")


class HalfBlind(FakeProvider):
    """One of its places cannot be looked at, and of another nothing is shown."""

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        if DARK in {key.scope for key in ids}:
            raise Uncertain("timeout")
        return super().look([key for key in ids if key.scope != DIM])


def test_an_unreadable_place_hides_nothing_and_saves_no_disk() -> None:
    clock = Clock()
    cloud = Cloud(clock)
    provider = HalfBlind("p", cloud, scopes=(SCOPE, DARK, DIM))
    tags = {
        "vmrunner:installation": "mine",
        "vmrunner:role": "build",
        "vmrunner:expires-at": str(int(clock() - 1)),
    }
    things = [
        cloud.plant(scope, {**tags, "vmrunner:instance": f"vm-{n}"}, kind=kind)
        for n, (scope, kind) in enumerate(
            [
                *[(SCOPE, Kind.INSTANCE), (DARK, Kind.INSTANCE), (DIM, Kind.INSTANCE)],
                *[(SCOPE, Kind.DISK), (DARK, Kind.DISK)],
            ]
        )
    ]
    report = expired.delete_expired(
        None, {"p": provider}, Limits(), "mine", seconds=20, sleep=clock.sleep
    )
    assert not [thing for thing in things if thing.alive]
    outcomes = {line.id: line.outcome for line in report.lines}
    assert outcomes == {
        things[0].ref.id: "dead",
        things[1].ref.id: "accepted",
        things[2].ref.id: "accepted",  # that it is not shown proves no death
        things[3].ref.id: "accepted",
        things[4].ref.id: "accepted",
    }
    assert report.unread == (f"p: {DARK}: Uncertain: timeout",)


class Broken(FakeProvider):
    """It fails as no driver may."""

    def now(self) -> float:
        raise KeyError("a field that the cloud left out")


def planted(cloud: Cloud, seconds: float) -> Any:
    """A VM of ours whose deadline is so far away."""
    return cloud.plant(
        SCOPE,
        {
            "vmrunner:installation": "mine",
            "vmrunner:role": "build",
            "vmrunner:instance": f"vm-{seconds:.0f}",
            "vmrunner:expires-at": str(int(cloud.clock() + seconds)),
        },
    )


def test_a_provider_that_fails_spares_no_others_vms() -> None:
    clock = Clock()
    cloud = Cloud(clock)
    late = planted(cloud, -1.0)
    providers = {"a": Broken("a", Cloud(clock)), "b": FakeProvider("b", cloud)}
    report = expired.delete_expired(None, providers, Limits(), "mine", sleep=clock.sleep)
    assert not late.alive
    assert report.unread == ("a: KeyError: 'a field that the cloud left out'",)


def test_only_what_is_past_its_deadline_dies() -> None:
    clock = Clock()
    cloud = Cloud(clock)
    late, early = planted(cloud, -1.0), planted(cloud, 60.0)
    provider = {"p": FakeProvider("p", cloud)}
    report = expired.delete_expired(None, provider, Limits(), "mine", dry_run=True)
    assert ([line.id for line in report.lines], late.alive) == ([late.ref.id], True)
    expired.delete_expired(None, provider, Limits(), "mine", only="another", sleep=clock.sleep)
    assert late.alive
    expired.delete_expired(None, provider, Limits(), "mine", sleep=clock.sleep)
    assert (late.alive, early.alive) == (False, True)


def test_no_vm_waits_for_what_the_ledger_says_of_images() -> None:
    """Nor does any live on since that cannot be told."""
    clock = Clock()
    cloud = Cloud(clock)
    tags = {"vmrunner:installation": "mine", "vmrunner:expires-at": str(int(clock() - 1))}
    vm = cloud.plant(SCOPE, tags | {"vmrunner:role": "build"})
    image = cloud.plant(SCOPE, tags | {"vmrunner:role": "image"}, kind=Kind.IMAGE)
    ledger: Any = mock.Mock()
    ledger.instances.these.return_value = []
    reads: list[bool] = []

    def images() -> None:
        reads.append(vm.alive)
        raise ValueError("a row that makes no sense")

    ledger.images.list.side_effect = images
    provider = FakeProvider("p", cloud)
    expired.delete_expired(ledger, {"p": provider}, Limits(), "mine", sleep=clock.sleep)
    assert reads == [False]
    assert (vm.alive, image.alive) == (False, False)
