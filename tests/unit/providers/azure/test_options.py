"""Options of Azure: what is refused before anything is asked, and where credentials go."""

from __future__ import annotations

from typing import Any

import pytest

from vmrunner.errors import ConfigError
from vmrunner.model import Market, Offer, Scope
from vmrunner.providers import registry
from vmrunner.providers.azure import DRIVER, console, price_list, prices
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.azure.permissions import ACTION, allows
from vmrunner.providers.azure.provider import AzureProvider
from vmrunner.providers.common.cloud_options import GiB

SUBSCRIPTION = "00000000-0000-4000-8000-0000000000aa"


def options(**more: Any) -> AzureOptions:
    values: dict[str, Any] = {
        "name": "az",
        "installation": "i",
        "subscription": SUBSCRIPTION,
        "resource_group": "Builds",
        "location": "westeurope",
        "subnet": "net/default",
    }
    return AzureOptions(**(values | more))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subscription", None),
        ("subscription", "acme"),
        ("resource_group", None),
        ("resource_group", "a/b"),
        ("location", "West Europe"),
        ("zones", ("a",)),
        ("machine_types", ()),
        ("subnet", "net"),
        ("subnet", "/net/default"),
        ("subnet", "net/"),
        ("subnet", "a/b/c/d/e/f/g/h/i/j"),
        ("security_group", "/nsg"),
        ("security_group", "net/nsg"),
        ("guard", "a/b"),
        ("guard", ""),
        ("endpoint", "ftp://x"),
        ("endpoint", "http://example.org"),
        ("endpoint", "http://127.0.0.1.example.org"),
        ("endpoint", "http://127.0.0.1@example.org"),
        ("tags", {"vmrunner:role": "guard"}),
        ("tags", {"name": "mine"}),
        ("tags", {"Team": "a", "team": "b"}),
        ("tags", {"a<b": ""}),
        ("tags", {"a": "x" * 257}),
        ("tags", {str(n): "" for n in range(43)}),
    ],
)
def test_a_wrong_value_is_told_with_its_fix(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"providers.az.{field}") as refused:
        options(**{field: value}).check()
    assert refused.value.hint


@pytest.mark.parametrize(
    "endpoint", [None, "https://host/", "http://127.0.0.2:1", "http://[::1]:1"]
)
def test_these_endpoints_are_taken(endpoint: str | None) -> None:
    options(endpoint=endpoint).check()


def test_one_that_the_configuration_dropped_is_opened_by_its_scope() -> None:
    scope = Scope("azure", SUBSCRIPTION, "builds")
    scope_options = {option: getattr(scope, part) for option, part in DRIVER.told.items()}
    made = registry.load("azure", "gone", installation="i", used=["builds", "old"], **scope_options)
    assert isinstance(made, AzureProvider)
    assert made.options.groups == ("builds", "old")


def test_groups_are_one_in_any_case() -> None:
    assert options(used=("builds", "OLD")).groups == ("builds", "old")


@pytest.mark.parametrize("field", ["location", "subnet"])
def test_a_launch_needs_more(field: str) -> None:
    chosen = options(**{field: None})
    chosen.check()
    with pytest.raises(ConfigError, match=field):
        chosen.check_launch()


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://md-x.z6.blob.storage.azure.net/a/b?sig=x", True),
        ("https://acme.blob.core.windows.net/a", True),
        ("http://acme.blob.core.windows.net/a", False),
        ("https://acme.blob.core.windows.net.example.org/a", False),
        ("https://acme.blob.core.windows.net@example.org/a", False),
        ("https://acme.blob.core.windows.net:8443/a", False),
        ("https://169.254.169.254/metadata", False),
        ("file:///etc/passwd", False),
    ],
)
def test_a_log_is_fetched_from_azure_alone(url: str, wanted: bool) -> None:
    assert console.is_trusted(options(), url) is wanted


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://management.azure.com/subscriptions/1?a=b", True),
        ("https://management.azure.com:443/subscriptions/1", True),
        ("https://MANAGEMENT.azure.com/subscriptions/1", True),
        ("http://management.azure.com/subscriptions/1", False),
        ("https://management.azure.com.example/subscriptions/1", False),
        ("https://management.azure.com@example.com/", False),
        ("https://management.azure.com:8443/", False),
        ("https://management.azure.com:x/", False),
        ("/subscriptions/1", False),
        ("", False),
    ],
)
def test_tokens_go_to_the_endpoint_alone(url: str, wanted: bool) -> None:
    assert options().is_home(url) is wanted


def test_a_local_endpoint_serves_its_own_logs() -> None:
    here = options(endpoint="http://127.0.0.1:5002")
    assert console.is_trusted(here, "http://127.0.0.1:5002/log")
    assert not console.is_trusted(here, "http://127.0.0.1:5003/log")
    assert not console.is_trusted(here, "https://acme.blob.core.windows.net/a")


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ([{"actions": ["*"], "notActions": []}], True),
        ([{"actions": ["Microsoft.Compute/*/delete"]}], True),
        ([{"actions": [ACTION.lower()]}], True),
        ([{"actions": ["*/read"]}], False),
        ([{"actions": ["*"], "notActions": ["Microsoft.Compute/virtualMachines/*"]}], False),
        ([{"actions": ["*"], "notActions": [ACTION]}, {"actions": [ACTION]}], True),
        ([], False),
    ],
)
def test_what_a_role_allows(rules: list[dict[str, list[str]]], wanted: bool) -> None:
    assert allows(rules, ACTION) is wanted


def test_a_vm_is_billed_in_parts() -> None:
    offer = Offer(
        scope=Scope("azure", "s", "g"),
        machine_type="Standard_D2s_v5",
        place="westeurope",
        market=Market.SPOT,
        disk=30 * GiB,
    )
    bill = prices.bill(offer, "StandardSSD_LRS", public=True)
    assert set(bill.on) == {"Standard_D2s_v5 spot", "E4 LRS disk", "Standard IPv4"}
    assert bill.on.keys() <= prices.USD_HOUR.keys()
    assert set(bill.parked) == {"E4 LRS disk", "Standard IPv4"}
    assert set(prices.bill(offer, None, public=False).on) == {"Standard_D2s_v5 spot"}


@pytest.mark.parametrize(
    ("kind", "gib", "wanted"),
    [
        ("Premium_LRS", 33, "P6 LRS disk"),
        ("Standard_LRS", 1, "S4 LRS disk"),
        ("StandardSSD_ZRS", 129, "E15 ZRS disk"),
    ],
)
def test_a_disk_is_billed_by_its_tier(kind: str, gib: int, wanted: str) -> None:
    assert prices.disk(kind, gib * GiB) == wanted


def price(usd: float, **more: Any) -> dict[str, Any]:
    return {
        "currencyCode": "USD",
        "type": "Consumption",
        "retailPrice": usd,
        "unitOfMeasure": "1 Hour",
        "serviceName": "Virtual Machines",
        "skuName": "D2s v5",
        "armSkuName": "Standard_D2s_v5",
        "productName": "Virtual Machines Dsv5 Series",
        **more,
    }


def test_the_price_list_is_read_for_what_is_billed() -> None:
    disk = {"serviceName": "Storage", "meterName": "E4 LRS Disk", "unitOfMeasure": "1/Month"}
    items = price_list.items(
        [
            price(0.1),
            price(0.2, productName="Virtual Machines Dsv5 Series Windows"),
            price(0.01, skuName="D2s v5 Low Priority"),
            price(0.02, skuName="D2s v5 Spot"),
            price(7.3, **disk),
            price(9.0, **{**disk, "meterName": "E4 LRS Disk Mount"}),
            price(0.005, serviceName="Virtual Network"),
            price(0.3, currencyCode="EUR"),
            price(0.4, type="DevTestConsumption"),
        ]
    )
    assert items == {
        "Standard_D2s_v5": 0.1,
        "Standard_D2s_v5 spot": 0.02,
        "E4 LRS disk": pytest.approx(0.01),
        "Standard IPv4": 0.005,
    }
