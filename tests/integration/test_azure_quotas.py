"""Offers of Azure within the subscription's quotas, at a local one."""

from __future__ import annotations

import pytest
from vmrunner_localclouds.azure import FORBIDDEN, QUOTA

from tests.support.azure import Microsoft, make_order
from tests.support.azure import azure as azure  # the fixture
from vmrunner.errors import QuotaExceeded
from vmrunner.model import Market, Spec
from vmrunner.providers.azure.provider import AzureProvider
from vmrunner.providers.azure.quotas import FITS, FULL

HERE, USAGES = "westeurope", "usages.list"
SIZES = ("Standard_D4s_v5", "Standard_D2as_v5")


def offered(provider: AzureProvider, spec: Spec | None = None) -> list[tuple[Market, str]]:
    return [(offer.market, offer.machine_type) for offer in provider.offers(spec or Spec())]


def test_what_does_not_fit_a_quota_is_not_offered(
    azure: Microsoft, caplog: pytest.LogCaptureFixture
) -> None:
    provider = azure.provider(machine_types=SIZES, zones=(), spot="prefer")
    azure.cloud.quotas[HERE] |= {"standardDSv5Family": 2, "lowPriorityCores": 3}
    assert offered(provider) == [(Market.SPOT, SIZES[1]), (Market.ON_DEMAND, SIZES[1])]
    assert "standardDSv5Family 0 of 2: one VM needs 4" in caplog.text
    assert "lowPriorityCores 0 of 3: one VM needs 4" in caplog.text


def test_a_location_without_public_addresses_is_not_offered(azure: Microsoft) -> None:
    """A new subscription has twenty, and each VM takes one until it is deleted."""
    azure.cloud.quotas[HERE]["PublicIPAddresses"] = 1
    provider = azure.provider(zones=())
    provider.create(make_order(provider))
    azure.clock.advance(FITS)
    with pytest.raises(QuotaExceeded, match="PublicIPAddresses 1 of 1: one VM needs 1"):
        provider.offers(Spec())
    assert offered(azure.provider(zones=(), address="private"))
    azure.cloud.faults.deny("usages.list")  # with a role that may read neither
    assert offered(azure.provider(zones=()))


def test_each_reason_is_told_when_nothing_fits(azure: Microsoft) -> None:
    provider = azure.provider(machine_types=SIZES, zones=())
    azure.cloud.quotas[HERE] |= {"standardDSv5Family": 0, "virtualMachines": 0}
    with pytest.raises(QuotaExceeded) as refused:
        provider.offers(Spec())
    assert "Standard_D4s_v5 on-demand: standardDSv5Family 0 of 0: one VM needs 4" in str(refused)
    assert "Standard_D2as_v5 on-demand: virtualMachines 0 of 0: one VM needs 1" in str(refused)
    assert refused.value.hint


def test_a_quota_that_is_free_again_is_seen(azure: Microsoft) -> None:
    provider = azure.provider(zones=())
    azure.cloud.quotas[HERE]["cores"] = 2
    ref = provider.create(make_order(provider))
    azure.clock.advance(FITS)
    with pytest.raises(QuotaExceeded, match="cores 2 of 2"):
        provider.offers(Spec())
    provider.delete([ref])
    azure.clock.advance(FULL)
    assert offered(provider) == [(Market.ON_DEMAND, "Standard_D2s_v5")]


def test_usages_are_asked_for_seldom(azure: Microsoft) -> None:
    provider = azure.provider()
    for _ in range(20):
        provider.create(make_order(provider))
    assert azure.cloud.count(USAGES) == 2  # of sizes, and of addresses
    azure.cloud.quotas[HERE]["cores"] = 0
    azure.clock.advance(FITS)
    for _ in range(20):
        with pytest.raises(QuotaExceeded):
            provider.offers(Spec())
    assert azure.cloud.count(USAGES) == 4


def test_a_refusal_for_a_quota_is_looked_into(azure: Microsoft) -> None:
    """Others use the subscription too."""
    provider = azure.provider(machine_types=SIZES, zones=())
    order = make_order(provider)
    azure.cloud.quotas[HERE]["standardDSv5Family"] = 0
    azure.cloud.faults.fail("virtualMachines.put", QUOTA)
    with pytest.raises(QuotaExceeded):
        provider.create(order)
    azure.clock.advance(121)  # the pool is left out no more
    assert offered(provider) == [(Market.ON_DEMAND, SIZES[1])]
    assert azure.cloud.count(USAGES) == 4


def test_usages_that_cannot_be_read_hinder_nothing(azure: Microsoft) -> None:
    azure.cloud.faults.fail(USAGES, FORBIDDEN)
    provider = azure.provider()
    for _ in range(5):
        assert len(provider.offers(Spec())) == 2
    assert azure.cloud.count(USAGES) == 1
