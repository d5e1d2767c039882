"""Images in the ledger: the intent first, one end, and open until the builder is gone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from vmrunner.errors import ConfigError, Conflict, NotFound
from vmrunner.ledger import Ledger
from vmrunner.lib import ids
from vmrunner.model import ImageState, MadeImage, Scope
from vmrunner.runtime.provider_set import ProviderSet

SCOPE = Scope("ec2", "123456789012", "eu-west-1")


def image(**more: Any) -> MadeImage:
    made = MadeImage(
        id=ids.image_id(),
        provider="aws",
        scope=SCOPE,
        name="vmrunner-default-1",
        recipe="default",
        hash="0123456789abcdef0123",
        builder=ids.instance_id(),
        state=ImageState.BUILDING,
        created_at=1000.0,
        deadline=4600.0,
    )
    return replace(made, **more)


def test_what_is_written_is_read_back(ledger: Ledger) -> None:
    made = image()
    ledger.images.add(made)
    assert ledger.images.list() == ledger.images.open() == [made]
    ledger.images.ready(made.id, "ami-1", ("snap-1", "snap-2"))
    ready = replace(made, state=ImageState.READY, ref="ami-1", snapshots=("snap-1", "snap-2"))
    assert ledger.images.open() == [ready]
    ledger.images.close(made.id, 2000.0)
    assert ledger.images.open() == []
    assert ledger.images.list() == [replace(ready, closed_at=2000.0)]


def test_an_image_ends_once(ledger: Ledger) -> None:
    made = image()
    ledger.images.add(made)
    ledger.images.fail(made.id, "packer failed")
    ledger.images.ready(made.id, "ami-1", ())
    (found,) = ledger.images.list()
    assert (found.state, found.ref, found.message) == (ImageState.FAILED, None, "packer failed")
    ledger.images.close(made.id, 2000.0)
    ledger.images.close(made.id, 3000.0)
    assert ledger.images.list()[0].closed_at == 2000.0


def test_each_provider_promotes_one_image_and_no_retired_one(ledger: Ledger) -> None:
    first, second, other = image(), image(), image(provider="google")
    for number, made in enumerate((first, second, other)):
        ledger.images.add(made)
        ledger.images.ready(made.id, f"ami-{number}", ())

    def promoted() -> dict[str, float | None]:
        return {i.ref or "": i.promoted_at for i in ledger.images.list() if i.promoted_at}

    ledger.images.promote("google", "ami-2", 1.0)
    ledger.images.promote("aws", "ami-0", 2.0)
    ledger.images.promote("aws", "ami-1", 3.0)
    assert promoted() == {"ami-1": 3.0, "ami-2": 1.0}
    ledger.images.retire("aws", "ami-1")
    assert promoted() == {"ami-2": 1.0}
    states = {i.ref: i.state for i in ledger.images.list()}
    assert states["ami-1"] is ImageState.RETIRED


def test_an_image_is_found_by_what_is_written_of_it(ledger: Ledger) -> None:
    first, second = image(id="im-01aaa"), image(id="im-01aab")
    for made in (first, second):
        ledger.images.add(made)
    ledger.images.ready(first.id, "ami-1", ())
    assert ledger.images.find("01aab") == ledger.images.find("im-01aab") == second
    assert ledger.images.find("ami-1").id == first.id
    with pytest.raises(Conflict, match="several images"):
        ledger.images.find("im-01a")
    for word in ("im-2", "", "ami-2"):
        with pytest.raises(NotFound):
            ledger.images.find(word)


def test_where_images_or_builders_are_is_swept(ledger: Ledger) -> None:
    ready, gone = image(), image(scope=SCOPE._replace(place="sa-east-1"))
    for made in (ready, gone):
        ledger.images.add(made)
        ledger.images.close(made.id, 9.0)
    ledger.images.ready(ready.id, "ami-1", ())
    ledger.images.fail(gone.id, "no disk")
    ledger.images.add(image(scope=SCOPE._replace(place="us-east-2")))
    ledger.images.add(image(provider="other", scope=SCOPE._replace(place="eu-west-3")))
    assert {s.place for s in ledger.images.places("aws")} == {"eu-west-1", "us-east-2"}


def test_a_builder_holds_its_provider_when_the_configuration_drops_it(ledger: Ledger) -> None:
    """As an open VM does: else nobody would sweep where it is."""
    driver = SimpleNamespace(scopes=frozenset[Scope]())
    settings = SimpleNamespace(providers={})
    given: Any = settings, lambda: ledger, lambda _: driver, lambda *_: driver
    providers = ProviderSet(*given)
    made = image()
    ledger.images.add(made)
    with pytest.raises(ConfigError, match=str(SCOPE)):
        providers.get("aws")
    ledger.images.fail(made.id, "it ended")
    ledger.images.close(made.id, 2000.0)
    with pytest.raises(ConfigError) as caught:
        providers.get("aws")
    assert str(SCOPE) not in str(caught.value)
