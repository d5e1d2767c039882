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
    told = {line.id: line.outcome for line in report.lines}
    assert told == {
        things[0].ref.id: "dead",
        things[1].ref.id: "accepted",
        things[2].ref.id: "accepted",  # that it is not shown proves no death
        things[3].ref.id: "accepted",
        things[4].ref.id: "accepted",
    }
    assert report.unread == (f"p: {DARK}: Uncertain: timeout",)


def test_no_vm_waits_for_what_the_ledger_says_of_images() -> None:
    """Nor does any live on since that cannot be told."""
    clock = Clock()
    cloud = Cloud(clock)
    tags = {"vmrunner:installation": "mine", "vmrunner:expires-at": str(int(clock() - 1))}
    vm = cloud.plant(SCOPE, tags | {"vmrunner:role": "build"})
    image = cloud.plant(SCOPE, tags | {"vmrunner:role": "image"}, kind=Kind.IMAGE)
    ledger: Any = mock.Mock()
    ledger.instances.these.return_value = []
    asked: list[bool] = []

    def images() -> None:
        asked.append(vm.alive)
        raise ValueError("a row that makes no sense")

    ledger.images.list.side_effect = images
    provider = FakeProvider("p", cloud)
    expired.delete_expired(ledger, {"p": provider}, Limits(), "mine", sleep=clock.sleep)
    assert asked == [False]
    assert (vm.alive, image.alive) == (False, False)
