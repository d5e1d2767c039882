"""The catalog of Cloud Billing: what the cloud's `prices` say, in Google's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.gce.requests import GceRequest

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce

PATH: Final = "/v1/services/6F81-5844-456A/skus"
_PAGE: Final = 3  # SKUs in one answer, so that a client must turn pages


def skus(cloud: LocalGce, request: GceRequest) -> Json:
    """Answer services.skus.list."""
    begin = int(request.query.get("pageToken") or 0)
    page = cloud.prices[begin : begin + _PAGE]
    next_token = str(begin + _PAGE) if begin + _PAGE < len(cloud.prices) else ""
    return {
        "skus": [
            sku(begin + n, description, unit, usd, regions)
            for n, (description, unit, usd, regions) in enumerate(page)
        ],
        "nextPageToken": next_token,
    }


def sku(number: int, description: str, unit: str, usd: float, regions: list[str]) -> Json:
    """One price as the catalog writes it: a tier of nothing, then that of the price."""
    spot = "Spot" in description
    rates = [
        {"startUsageAmount": amount, "unitPrice": _money(price)}
        for amount, price in ((0, 0.0), (1, usd))
    ]
    return {
        "name": f"services/6F81-5844-456A/skus/{number:04}",
        "skuId": f"{number:04}",
        "description": description,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": "Compute",
            "resourceGroup": "",
            "usageType": "Preemptible" if spot else "OnDemand",
        },
        "serviceRegions": regions,
        "pricingInfo": [
            {
                "effectiveTime": "2026-11-01T00:00:00Z",
                "pricingExpression": {"usageUnit": unit, "tieredRates": rates},
            }
        ],
        "serviceProviderName": "Google",
    }


def _money(usd: float) -> Json:
    units = int(usd)
    return {"currencyCode": "USD", "units": str(units), "nanos": round((usd - units) * 1e9)}
