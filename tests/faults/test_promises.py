"""Wishes beside the machine, where nobody could keep them: no VM is made."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.world import World
from tests.support.units import UnitBox
from vmrunner.model import AllowList, Reason, Result
from vmrunner.providers.fake import FakeProvider


def test_no_vm_is_made_that_nobody_holds_to_its_list(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that was submitted elsewhere, or whose provider could once."""
    world = make_world()
    network = AllowList(("a.example.org",))
    first = world.submit(network=network)
    world.node()
    world.settle()
    assert world.truth.builds.get(first.id).result is Result.SUCCESS
    monkeypatch.setattr(FakeProvider, "holds_allow_lists", False)
    build = world.submit(network=network)
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.result, done.reason) == (Result.ERROR, Reason.IMAGE)
    assert "cannot hold an allow-list" in done.message
    assert world.truth.instances.list(build=build.id) == []


def test_no_unit_is_started_that_lacks_what_is_asked(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider of a build that waits became one that starts its container image itself."""
    world = make_world()
    wanting, plain = world.submit(docker=True), world.submit()
    monkeypatch.setattr(FakeProvider, "box", UnitBox(), raising=False)
    world.node()
    world.settle()
    refused = world.truth.builds.get(wanting.id)
    assert (refused.result, refused.reason) == (Result.ERROR, Reason.IMAGE)
    assert refused.message.startswith("docker: true: provider ")
    assert world.truth.instances.list(build=wanting.id) == []
    assert world.truth.builds.get(plain.id).result is Result.SUCCESS
