"""Images past their time whose rows say that they are finished."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from vmrunner.core.reap_plan import Deletion
from vmrunner.errors import LedgerError, Uncertain
from vmrunner.model import Death, ImageState, Kind, MadeImage, Ref, Scope
from vmrunner.providers.port_images import CloudImage
from vmrunner.reaper import image_kills

HERE = Scope("azure", "subscription", "group")
LINK = "/subscriptions/subscription/resourcegroups/group/providers/microsoft.compute/images/"


def row(name: str, state: ImageState, ref: str | None = None) -> MadeImage:
    return MadeImage(
        id=f"im-{name}",
        provider="azure",
        scope=HERE,
        name=name,
        recipe="default",
        hash="",
        builder="vm-1",
        state=state,
        created_at=0.0,
        deadline=1.0,
        ref=ref or f"{LINK}{name}",
    )


def kill(name: str, scope: Scope = HERE, builder: str | None = None) -> Deletion:
    ref = Ref(scope, Kind.IMAGE, name)
    return Deletion(ref=ref, reason=Death.EXPIRED, expires_at=1.0, instance=builder)


class Store:
    """A cloud's images, and which of them were finished."""

    def __init__(self) -> None:
        self.finished: list[str] = []
        self.trouble: Exception | None = None
        self.time = 2.0

    def now(self) -> float:
        return self.time

    def imaging(self, _scope: Scope) -> Store:
        return self

    def find(self, ref: str) -> CloudImage:
        if self.trouble is not None:
            raise self.trouble
        return CloudImage(ref=ref, name=ref, created=0.0, tags={})

    def finish(self, made: CloudImage) -> None:
        self.finished.append(made.ref)


def spared(kills: list[Deletion], *rows: MadeImage, store: Store | None = None) -> list[str]:
    """The names of what is left of these kills."""
    ledger: Any = mock.Mock()
    ledger.images.list.return_value = list(rows)
    provider: Any = store or Store()
    return [spared_kill.ref.id for spared_kill in image_kills.spared(ledger, provider, kills)]


def test_what_a_row_calls_ready_is_spared_and_finished() -> None:
    store = Store()
    rows = [row("good", ImageState.READY), row("bad", ImageState.FAILED)]
    kills = spared([kill("good"), kill("bad"), kill("unknown")], *rows, store=store)
    assert kills == ["bad", "unknown"]
    assert store.finished == [f"{LINK}good"]


def test_one_that_cannot_be_finished_is_spared_all_the_same() -> None:
    store = Store()
    store.trouble = Uncertain("timeout")
    assert spared([kill("good")], row("good", ImageState.READY), store=store) == []


def test_one_that_no_sweep_could_ask_for_yet_is_spared() -> None:
    made = replace(row("new", ImageState.BUILDING), ref=None)
    late = kill("new", builder="vm-1")
    assert spared([late], made) == []
    assert spared([late], replace(made, state=ImageState.FAILED)) == ["new"]
    assert spared([late], replace(made, builder="vm-2")) == ["new"]
    store = Store()
    store.time = made.deadline + image_kills.ASKED + 1  # nobody asks any more
    assert spared([late], made, store=store) == ["new"]


@pytest.mark.parametrize(
    "other",
    [
        kill("ood"),
        kill("good", scope=HERE._replace(account="another")),
    ],
    ids=["name", "account"],
)
def test_no_row_spares_what_is_not_its_image(other: Deletion) -> None:
    assert spared([other, kill("x")], row("good", ImageState.READY)) == [other.ref.id, "x"]


def test_a_ledger_out_of_reach_spares_nothing() -> None:
    ledger: Any = mock.Mock()
    ledger.images.list.side_effect = LedgerError("gone")
    provider: Any = Store()
    assert image_kills.spared(ledger, provider, [kill("x")]) == [kill("x")]
    assert image_kills.spared(None, provider, [kill("x")]) == [kill("x")]
