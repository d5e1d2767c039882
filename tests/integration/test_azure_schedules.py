"""Deadlines that Azure is given, and whether it would take one: known before the first launch."""

from __future__ import annotations

import contextlib

import pytest
from vmrunner_localclouds.azure import FORBIDDEN, INVALID, NOT_REGISTERED, UNAVAILABLE, RequestFate

from tests.support.azure import Microsoft, make_order
from tests.support.azure import azure as azure  # the fixture
from vmrunner.errors import ProviderError
from vmrunner.model import Finding, Level, Spec

SUBMIT = "virtualMachinesSubmitDeallocate"


def found(azure: Microsoft) -> Finding:
    (finding,) = [finding for finding in azure.provider().check() if finding.check == "schedule"]
    return finding


def test_doctor_arms_what_is_not_there(azure: Microsoft) -> None:
    assert found(azure).level is Level.OK
    assert azure.cloud.count(SUBMIT) == 1
    assert azure.cloud.schedules == {}


def unguarded(azure: Microsoft) -> dict[str, Level]:
    """What the first launch tells, whose offers were asked for before."""
    provider = azure.provider()
    with contextlib.suppress(ProviderError):
        provider.offers(Spec())
    return {finding.check: finding.level for finding in provider.unguarded()}


@pytest.mark.parametrize(
    ("fate", "level", "fix"),
    [
        (NOT_REGISTERED, Level.ERROR, "az provider register"),
        (FORBIDDEN, Level.ERROR, "allow Microsoft.ComputeSchedule/locations/"),
        (INVALID, Level.ERROR, "update vmrunner"),
        (UNAVAILABLE, Level.WARNING, "ask again"),
    ],
)
def test_each_refusal_to_arm_has_its_own_fix(
    azure: Microsoft, fate: RequestFate, level: Level, fix: str
) -> None:
    azure.cloud.faults.on_request = lambda request: fate if request.action == SUBMIT else None
    finding = found(azure)
    assert (finding.level, fix in finding.fix) == (level, True)
    assert unguarded(azure) == {"schedule": level, "guard": Level.WARNING}


def test_an_azure_that_would_arm_anybody_keeps_nothing(azure: Microsoft) -> None:
    """One that takes an order for a VM that is not there fails it at its time: it is cancelled."""
    provider = azure.provider()
    order = make_order(provider)
    provider.create(order)
    azure.machine.shown["name"] = azure.machine.shown["id"]
    at = azure.machine.id.lower().replace(order.instance, "vmrunner-doctor")
    azure.cloud.living[at] = azure.machine
    assert found(azure).level is Level.OK
    (schedule,) = azure.cloud.schedules.values()
    assert schedule.state == "Cancelled"
