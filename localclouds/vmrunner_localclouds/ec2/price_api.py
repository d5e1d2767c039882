"""The price list, and the history of spot prices: what the cloud's `prices` say, in AWS's words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

from vmrunner_localclouds.ec2.api_error import Ec2Refusal

if TYPE_CHECKING:
    from vmrunner_localclouds.ec2.cloud import LocalCloud
    from vmrunner_localclouds.ec2.requests import Ec2Request

#: Regions in which AWS has the price list.
HOMES: Final = ("us-east-1", "eu-central-1", "ap-south-1")
_PAGE: Final = 2  # products in one answer, so that a client must turn pages


def products(cloud: LocalCloud, request: Ec2Request) -> tuple[str, str]:
    """Answer GetProducts."""
    if request.region not in HOMES:
        raise Ec2Refusal("InvalidParameterException", f"no price list in {request.region}")
    wanted = {
        condition["Field"]: condition["Value"] for condition in request.params.get("Filters", ())
    }
    region = wanted.get("regionCode", "")
    service = request.params["ServiceCode"]
    found = [
        _product(service, product, attributes, unit, usd)
        for product, attributes, unit, usd in _all(cloud, service, region)
        if all(attributes.get(name) == value for name, value in wanted.items())
    ]
    begin = int(request.params.get("NextToken") or 0)
    answer: dict[str, Any] = {
        "FormatVersion": "aws_v1",
        "PriceList": [json.dumps(item) for item in found[begin : begin + _PAGE]],
    }
    if begin + _PAGE < len(found):
        answer["NextToken"] = str(begin + _PAGE)
    return "application/x-amz-json-1.1", json.dumps(answer)


def _all(
    cloud: LocalCloud, service: str, region: str
) -> list[tuple[str, dict[str, str], str, float]]:
    """Family, attributes, unit and USD of every product of a region."""
    location = {"regionCode": region}
    if service == "AmazonVPC":
        group = location | {"group": "VPCPublicIPv4Address"}
        return [
            ("VpcPublicIPv4Address", group | {"usagetype": "PublicIPv4:IdleAddress"}, "Hrs", 0.5),
            (
                "VpcPublicIPv4Address", group | {"usagetype": "PublicIPv4:InUseAddress"}, "Hrs",
                cloud.address_price,
            ),
        ]  # fmt: skip
    found = []
    for name, usd in cloud.prices.items():
        machine = location | {"instanceType": name, "tenancy": "Shared", "preInstalledSw": "NA"}
        machine |= {"marketoption": "OnDemand", "capacitystatus": "Used"}
        linux, windows = {"operatingSystem": "Linux"}, {"operatingSystem": "Windows"}
        found += [
            ("Compute Instance", machine | linux, "Hrs", usd),
            ("Compute Instance", machine | linux, "Hrs", 0.0),  # a reservation's own hours
            ("Compute Instance", machine | windows, "Hrs", 2 * usd),
            ("Compute Instance", machine | linux | {"tenancy": "Dedicated"}, "Hrs", 3 * usd),
        ]
    volume = location | {"productFamily": "Storage", "volumeApiName": "gp3"}
    found.append(("Storage", volume, "GB-Mo", cloud.disk_price))
    return found


def _product(
    service: str, family: str, attributes: dict[str, str], unit: str, usd: float
) -> dict[str, Any]:
    dimension = {
        "unit": unit,
        "pricePerUnit": {"USD": f"{usd:.10f}"},
        "beginRange": "0",
        "endRange": "Inf",
        "description": f"${usd} per {unit}",
    }
    term = {"priceDimensions": {"SKU.JRTCKXETXF.6YS6EN2CT7": dimension}, "sku": "SKU"}
    return {
        "product": {"productFamily": family, "attributes": attributes, "sku": "SKU"},
        "serviceCode": service,
        "terms": {"OnDemand": {"SKU.JRTCKXETXF": term}},
        "version": "20261101000000",
    }


def spot_history(cloud: LocalCloud, request: Ec2Request) -> tuple[str, str]:
    """Answer DescribeSpotPriceHistory: one price now for each type and zone."""
    items = "".join(
        f"<item><instanceType>{escape(name)}</instanceType>"
        f"<productDescription>Linux/UNIX</productDescription><spotPrice>{usd:.6f}</spotPrice>"
        "<timestamp>2026-01-01T00:00:00.000Z</timestamp>"
        f"<availabilityZone>{request.region}{zone}</availabilityZone></item>"
        for name in request.all("InstanceType")
        for zone, usd in cloud.spot_prices.get(name, {}).items()
    )
    text = (
        '<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        f"<requestId>local</requestId><spotPriceHistorySet>{items}</spotPriceHistorySet>"
        "<nextToken/></DescribeSpotPriceHistoryResponse>"
    )
    return "text/xml", text
