"""Locks at Azure: who may delete by every role deletes nothing in a group with one."""

from __future__ import annotations

import pytest

from tests.support.azure import Microsoft, make_order
from tests.support.azure import azure as azure  # the fixture
from vmrunner.errors import CredentialsRefused
from vmrunner.model import Fate, Level, Spec
from vmrunner.providers.common.permissions import GRANTED, REFUSED


@pytest.mark.parametrize("level", ["CanNotDelete", "ReadOnly"])
def test_nothing_is_launched_where_nothing_can_be_deleted(azure: Microsoft, level: str) -> None:
    order = make_order(azure.provider())
    azure.cloud.locks[azure.site.group] = level
    provider = azure.provider()
    for launch in (lambda: provider.offers(Spec()), lambda: provider.create(order)):
        with pytest.raises(CredentialsRefused, match="lock keep") as refused:
            launch()
        assert "az lock delete" in refused.value.hint
    assert azure.cloud.machines == []
    delete_check = next(finding for finding in provider.check() if finding.check == "delete")
    assert (delete_check.level, "az lock delete" in delete_check.fix) == (Level.ERROR, True)
    del azure.cloud.locks[azure.site.group]
    azure.clock.advance(REFUSED)
    assert provider.create(order).id == order.instance


def test_a_delete_that_a_lock_refused_stops_launching(azure: Microsoft) -> None:
    provider = azure.provider()
    ref = provider.create(make_order(provider))
    azure.clock.advance(REFUSED)
    azure.cloud.locks[azure.site.group] = "CanNotDelete"
    assert provider.offers(Spec())  # nobody has noticed
    outcome = provider.delete([ref])[ref]
    assert outcome.fate is Fate.FAILED
    assert "ScopeLocked" in str(outcome.error)
    with pytest.raises(CredentialsRefused, match="lock keep"):
        provider.offers(Spec())


def test_a_lock_on_one_vm_stops_no_other(azure: Microsoft) -> None:
    provider = azure.provider()
    ref = provider.create(make_order(provider))
    azure.machine.locked = True
    for _ in range(5):
        azure.clock.advance(1)
        assert provider.delete([ref])[ref].fate is Fate.FAILED
        assert provider.offers(Spec())
    assert azure.cloud.count("locks.list") == 1


def test_locks_that_cannot_be_read_hinder_nothing(azure: Microsoft) -> None:
    azure.cloud.faults.deny("locks.list")
    provider = azure.provider()
    provider.create(make_order(provider))
    delete_check = next(finding for finding in provider.check() if finding.check == "delete")
    assert delete_check.level is Level.WARNING
    assert "locks/read" in delete_check.message


def test_rights_and_locks_are_asked_for_seldom(azure: Microsoft) -> None:
    provider = azure.provider()
    for _ in range(10):
        provider.create(make_order(provider))
    azure.clock.advance(GRANTED)
    provider.offers(Spec())
    assert [azure.cloud.count(action) for action in ("permissions.list", "locks.list")] == [2, 2]
