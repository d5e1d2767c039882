"""Prices of clouds, by their real clients: asked beside everything else, kept with their date, and
frozen with the next VM."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest
from vmrunner_localclouds.ec2.faults import UNAVAILABLE

from tests.support.ec2 import REGION, Amazon, make_order
from tests.support.ec2 import aws as aws  # the fixture
from tests.support.gce import Google
from tests.support.gce import gce as gce  # the fixture
from vmrunner.core.pricing import HOURS_OF_MONTH
from vmrunner.ledger import Ledger, prices
from vmrunner.model import Market, PriceSource, Rate, Role, Scope, Spec
from vmrunner.providers.hourly_rates import rate_of
from vmrunner.providers.port import Provider
from vmrunner.services.prices import FRESH, refresh, refreshed_beside

GIB = 1 << 30


@pytest.fixture
def url(tmp_path: Path) -> str:
    """SQLite alone: what is kept of prices is tested with the ledger."""
    return f"sqlite:///{tmp_path}/data/ledger.db"


def rate(ledger: Ledger, provider: Provider, spec: Spec) -> Rate:
    offer = provider.offers(spec)[0]
    return rate_of(provider, offer, Role.BUILD, ledger.prices.of(offer.scope), 0.0)


def test_ec2s_price_list_is_read_and_kept(ledger: Ledger, aws: Amazon) -> None:
    provider = aws.provider(instance_types=("m7i.large",))
    offer = provider.offers(Spec(disk=20 * GIB))[0]
    before = rate(ledger, provider, Spec(disk=20 * GIB))
    assert (before.source, before.at) == (PriceSource.SHIPPED, 1_735_689_600.0)  # 2025-01-01
    assert refresh(ledger, {"aws": provider}) == ["aws"]
    stored = ledger.prices.of(offer.scope)
    assert {item: price.usd_hour for item, price in stored.items()} == pytest.approx(
        {"m7i.large": 0.1117, "gp3 GiB": 0.088 / HOURS_OF_MONTH, "public IPv4": 0.005}
    )
    after = rate(ledger, provider, Spec(disk=20 * GIB))
    assert after.usd_hour == pytest.approx(0.1117 + 20 * 0.088 / HOURS_OF_MONTH + 0.005)
    assert after.parked_usd_hour == pytest.approx(20 * 0.088 / HOURS_OF_MONTH)
    assert after.source is PriceSource.CLOUD
    assert after.at == pytest.approx(time.time(), abs=60)


def test_a_spot_vm_has_the_price_of_its_dearest_zone(ledger: Ledger, aws: Amazon) -> None:
    aws.cloud.spot_prices["m7i.large"] = {"a": 0.031, "b": 0.037, "c": 0.029}
    provider = aws.provider(instance_types=("m7i.large",), address="private")
    refresh(ledger, {"aws": provider})
    offer = provider.offers(Spec(spot=True))[0]
    assert offer.market is Market.SPOT
    found = rate(ledger, provider, Spec(spot=True))
    disk = offer.disk / GIB * 0.088 / HOURS_OF_MONTH
    assert found.usd_hour == pytest.approx(0.037 + disk), "and no address"


def test_who_may_not_see_spot_prices_has_the_others(ledger: Ledger, aws: Amazon) -> None:
    aws.cloud.spot_prices["m7i.large"] = {"a": 0.031}
    aws.cloud.faults.deny("DescribeSpotPriceHistory")
    provider = aws.provider(instance_types=("m7i.large",))
    assert refresh(ledger, {"aws": provider}) == ["aws"]
    assert rate(ledger, provider, Spec()).source is PriceSource.CLOUD
    assert rate(ledger, provider, Spec(spot=True)).source is PriceSource.SHIPPED


def test_a_type_that_nobody_knows_has_no_price(ledger: Ledger, aws: Amazon) -> None:
    provider = aws.provider(instance_types=("m5.8xlarge",))
    refresh(ledger, {"aws": provider})
    assert rate(ledger, provider, Spec()) == Rate()


def test_a_launch_asks_for_no_price(ledger: Ledger, aws: Amazon) -> None:
    provider = aws.provider()
    assert rate(ledger, provider, Spec(spot=True)).usd_hour is not None
    provider.create(make_order(provider))
    requested = {request.action for request in aws.cloud.requests}
    assert "RunInstances" in requested
    assert not requested & {"GetProducts", "DescribeSpotPriceHistory"}


def test_prices_are_asked_for_when_they_are_old(
    ledger: Ledger, aws: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers = {"aws": aws.provider()}
    assert refresh(ledger, providers) == ["aws"]
    assert refresh(ledger, providers) == []
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + FRESH)
    assert refresh(ledger, providers) == ["aws"]


def test_a_silent_cloud_keeps_no_other_from_it(
    ledger: Ledger, aws: Amazon, caplog: pytest.LogCaptureFixture
) -> None:
    aws.cloud.faults.fail("GetProducts", *[UNAVAILABLE] * 8)
    assert refresh(ledger, {"a": aws.provider(), "z": other()}) == ["z"]
    assert "prices of a:" in caplog.text
    assert ledger.prices.of(Scope("ec2", "1", REGION)) == {}


def test_what_another_node_is_told_at_once_is_no_failure(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = Scope("other", "account", "place")
    ledger.prices.store(scope, {"m": 1.0}, 10.0)
    monkeypatch.setattr(prices, "_FORGET", lambda *_, **__: None)  # it was not there yet
    ledger.prices.store(scope, {"m": 1.0}, 10.0)
    assert ledger.prices.of(scope)["m"].usd_hour == 1.0


def test_a_command_does_its_work_meanwhile(ledger: Ledger) -> None:
    begun, done = threading.Event(), threading.Event()

    class Slow:
        """A cloud that answers once the command's own work is done."""

        scopes = frozenset({Scope("slow", "account", "place")})

        def told_prices(self) -> Any:
            begun.set()
            assert done.wait(30)
            return {}

    with refreshed_beside(ledger, {"s": cast("Provider", Slow())}, 30.0):
        assert begun.wait(30)
        done.set()


def test_a_command_waits_no_longer_than_it_may(ledger: Ledger) -> None:
    answered = threading.Event()

    class Slow:
        """A cloud that keeps its answer back."""

        scopes = frozenset({Scope("slow", "account", "place")})

        def told_prices(self) -> Any:
            answered.wait(30)
            return {}

    with refreshed_beside(ledger, {"s": cast("Provider", Slow())}, 0.01):
        pass
    assert not answered.is_set()
    answered.set()
    with refreshed_beside(ledger, {"z": other()}, 30.0):
        pass
    assert ledger.prices.of(Scope("other", "account", "place"))["m"].usd_hour == 1.0


def other() -> Provider:
    class Told:
        """Another cloud."""

        scopes = frozenset({Scope("other", "account", "place")})

        def told_prices(self) -> Any:
            return {Scope("other", "account", "place"): {"m": 1.0}}

    return cast("Provider", Told())


def test_googles_catalog_makes_prices_of_machine_types(ledger: Ledger, gce: Google) -> None:
    region = gce.zone.rpartition("-")[0]
    here, elsewhere = [region], ["mars-east1"]
    gce.cloud.prices = [
        ("E2 Instance Core running in Americas", "h", 0.02, here),
        ("E2 Instance Core running in Mars", "h", 0.9, elsewhere),
        ("E2 Instance Ram running in Americas", "GiBy.h", 0.003, here),
        ("Spot Preemptible E2 Instance Core running in Americas", "h", 0.008, here),
        ("Spot Preemptible E2 Instance Ram running in Americas", "GiBy.h", 0.001, here),
        ("Balanced PD Capacity in Americas", "GiBy.mo", 0.1, here),
        ("External IP Charge on a Standard VM", "h", 0.005, ["global"]),
        ("External IP Charge on a Spot Preemptible VM", "h", 0.0025, ["global"]),
        ("Commitment v1: E2 Core in Americas for 1 Year", "h", 0.01, here),
    ]
    provider = gce.provider(machine_types=("e2-standard-2",))
    assert rate(ledger, provider, Spec()).source is PriceSource.SHIPPED
    assert refresh(ledger, {"gcp": provider}) == ["gcp"]
    machine, disk = 2 * 0.02 + 8 * 0.003, 20 * 0.1 / HOURS_OF_MONTH
    found = rate(ledger, provider, Spec(disk=20 * GIB))
    assert found.usd_hour == pytest.approx(machine + disk + 0.005)
    assert found.source is PriceSource.CLOUD
    spot = rate(ledger, provider, Spec(disk=20 * GIB, spot=True))
    assert spot.usd_hour == pytest.approx(2 * 0.008 + 8 * 0.001 + disk + 0.0025)
