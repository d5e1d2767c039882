"""VMs of the azure driver that are not, or not where, they seem."""

from __future__ import annotations

import pytest

from tests.support.azure import Microsoft, look, make_order
from tests.support.azure import azure as azure  # the fixture
from vmrunner.model import Power
from vmrunner.providers.azure.describe import SETTLED
from vmrunner.testing.localazure import RequestFate

NOT_FOUND = RequestFate("ResourceNotFound", 404, "The Resource was not found.")


def test_a_newborn_that_one_answer_misses_lives(azure: Microsoft) -> None:
    """Azure's own places learn of a newborn one after the other."""
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    assert look(provider, order, ref) is not None
    azure.cloud.faults.fail("virtualMachines.get", NOT_FOUND)
    assert look(provider, order, ref) is None
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.power is Power.RUNNING


def test_a_newborn_that_somebody_deleted_is_dead_soon(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    assert look(provider, order, ref) is not None
    azure.machine.vanish()
    assert look(provider, order, ref) is None
    azure.clock.advance(SETTLED)
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.power is Power.DEAD


def test_a_newborn_that_we_deleted_is_dead_at_once(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    assert look(provider, order, ref) is not None
    provider.delete([ref])
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.power is Power.DEAD


@pytest.mark.parametrize("many", [False, True])
def test_who_lost_its_tags_is_known_by_its_reference(
    azure: Microsoft, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    """One `az tag create` takes away all that were there."""
    if many:
        monkeypatch.setattr("vmrunner.providers.azure.describe.VIEWS", 0)
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    if many:
        monkeypatch.setattr("vmrunner.providers.azure.describe.VIEWS", 1)
        assert look(provider, order, ref) is not None
    azure.machine.shown["tags"] = {}
    assert look(provider, order, ref) is not None
    assert look(provider, order) is None  # by its name alone it is nobody's


def test_a_vm_of_a_former_location_is_armed_there(azure: Microsoft) -> None:
    before = azure.provider()
    order = make_order(before)
    ref = before.create(order)
    armed = azure.provider(location="northeurope").arm(ref, order.instance, order.deadline)
    assert armed is not None
    assert armed.id.startswith("westeurope/")
