"""The list of retail prices, without authentication: those of the cloud's `prices`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from vmrunner_localclouds.azure import filters
from vmrunner_localclouds.azure.api_error import Json
from vmrunner_localclouds.azure.requests import AzureRequest

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

PATH: Final = "/api/retail/prices"
_PAGE: Final = 3  # prices in one answer, so that a client must turn pages


def retail(cloud: LocalAzure, request: AzureRequest) -> Json:
    """Answer a question for prices. Raises `ArmRefusal`."""
    filter_text = request.query.get("$filter", "")
    wanted = filters.of_prices(filter_text)
    found = [item for item in cloud.prices if wanted(item)]
    begin = int(request.query.get("$skip") or 0)
    end = begin + _PAGE
    next_link = (
        f"{cloud.url}{PATH}?$filter={quote(filter_text)}&$skip={end}" if end < len(found) else None
    )
    return {
        "BillingCurrency": "USD",
        "CustomerEntityId": "Retail",
        "CustomerEntityType": "Retail",
        "Items": found[begin:end],
        "NextPageLink": next_link,
        "Count": len(found[begin:end]),
    }


def price(location: str, size: str, usd: float, **more: object) -> Json:
    """One price as the list writes it: a size's, for an hour of Linux, unless `more` says
    otherwise."""
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": usd,
        "unitPrice": usd,
        "armRegionName": location,
        "location": location,
        "effectiveStartDate": "2026-11-01T00:00:00Z",
        "meterId": "00000000-0000-4000-8000-000000000000",
        "meterName": size.removeprefix("Standard_").replace("_", " "),
        "productId": "DZH318Z0BQ4L",
        "skuId": "DZH318Z0BQ4L/0001",
        "productName": "Virtual Machines Series",
        "skuName": size.removeprefix("Standard_").replace("_", " "),
        "serviceName": "Virtual Machines",
        "serviceId": "DZH313Z7MMC8",
        "serviceFamily": "Compute",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": size,
        **more,
    }
