"""Counts of calls through the port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from tests.contract.drivers import make_order
from vmrunner.errors import VmrunnerError
from vmrunner.model import Fate, Offer, Outcome, Spec
from vmrunner.providers import Arms, Provider, Seals
from vmrunner.providers.call_counts import ProviderCalls
from vmrunner.providers.fake import Clock, Cloud, FakeProvider, Fault


def counted(cloud: Cloud) -> tuple[Any, ProviderCalls]:
    calls = ProviderCalls()
    return calls.counted(FakeProvider("fake", cloud)), calls


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.OK, "ok"),
        (Fault.LOST_RESPONSE, "uncertain"),
        (Fault.THROTTLE, "throttled"),
        (Fault.NO_CAPACITY, "no_capacity"),
        (Fault.QUOTA, "quota"),
        (Fault.CREDENTIALS, "credentials"),
        (Fault.BAD_ORDER, "bad_order"),
    ],
)
def test_each_call_is_counted_by_its_outcome(fault: Fault, outcome: str) -> None:
    cloud = Cloud(Clock())
    provider, calls = counted(cloud)
    order = make_order(provider)
    before = calls.counts()
    cloud.fail("create", fault)
    try:
        provider.create(order)
    except VmrunnerError:
        assert outcome != "ok"
    after = calls.counts()
    assert {key: n - before.get(key, 0) for key, n in after.items() if n != before.get(key, 0)} == {
        ("fake", "create", outcome): 1
    }


def test_a_sweep_is_one_call_and_says_its_holes() -> None:
    cloud = Cloud(Clock())
    provider, calls = counted(cloud)
    list(provider.sweep())
    cloud.fail("sweep", Fault.SERVER_ERROR)
    assert [page for page in provider.sweep() if page.error]
    found = {key: n for key, n in calls.counts().items() if key[1] == "sweep"}
    assert found == {("fake", "sweep", "ok"): 1, ("fake", "sweep", "partly"): 1}


def test_a_delete_that_fails_for_one_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = Cloud(Clock())
    driver = FakeProvider("fake", cloud)
    ref = driver.create(make_order(driver))
    failed = {ref: Outcome(fate=Fate.FAILED, error="no")}
    monkeypatch.setattr(FakeProvider, "delete", lambda *_, **__: failed)
    calls = ProviderCalls()
    assert calls.counted(driver).delete([ref]) == failed
    assert calls.counts() == {("fake", "delete", "partly"): 1}


def test_a_driver_can_do_what_it_could_and_no_more() -> None:
    provider, _ = counted(Cloud(Clock()))
    assert isinstance(provider, FakeProvider)
    assert not isinstance(provider, Arms | Seals)
    cloud = Cloud(Clock())
    cloud.arms = 60.0
    armed, _ = counted(cloud)
    assert isinstance(armed, Arms)


def test_a_driver_that_cannot_be_changed_works_uncounted() -> None:
    """Somebody else's may be so."""

    @dataclass(frozen=True, slots=True)
    class Frozen:
        name: str

        def offers(self, _: Spec) -> list[Offer]:
            return []

    calls = ProviderCalls()
    driver = calls.counted(cast("Provider", Frozen("theirs")))
    assert driver.offers(Spec()) == []
    assert calls.counts() == {}
