"""One PUT of a VM, held against the types of Microsoft's own client."""

from __future__ import annotations

import base64
import typing
from dataclasses import replace
from typing import Any

import pytest
from azure.mgmt.compute import models
from azure.mgmt.compute import types as compute

from vmrunner.errors import BadOrder
from vmrunner.model import Market, Network, Offer, Order, Role, Scope, tags_of
from vmrunner.providers.azure.create_request import image_reference, machine
from vmrunner.providers.azure.options import AzureOptions

SUBSCRIPTION = "00000000-0000-4000-8000-0000000000aa"
IMAGE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/builds/providers/Microsoft.Compute/images/i"


def options(**more: Any) -> AzureOptions:
    values: dict[str, Any] = {
        "name": "azure",
        "installation": "00000000-0000-4000-8000-000000000001",
        "subscription": SUBSCRIPTION,
        "resource_group": "Builds",
        "location": "westeurope",
        "subnet": "net/default",
    }
    return AzureOptions(**(values | more))


def order(**more: Any) -> Order:
    offer = Offer(
        scope=Scope("azure", SUBSCRIPTION, "builds"),
        machine_type="Standard_D2s_v5",
        place="westeurope-2",
        image=IMAGE,
        disk=30 << 30,
    )
    return Order(
        instance="vm-01m8bpp14crr8dkdy9gq3zh714",
        build="b-1",
        installation="00000000-0000-4000-8000-000000000001",
        generation="00000000-0000-4000-8000-000000000002",
        role=Role.BUILD,
        offer=replace(offer, **more),
        deadline=1_800_000_000.0,
        user_data=b"#cloud-config\n{}\n",
        max_ttl=14_400.0,
        tags={"a/b": "c"},
    )


def put(*, local: str = "", wanted: Order | None = None, **more: Any) -> dict[str, Any]:
    return machine(wanted or order(), options(**more), local=local)


def children(made: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return its disk, its interface and its address."""
    properties = made["properties"]
    (interface,) = properties["networkProfile"]["networkInterfaceConfigurations"]
    (config,) = interface["properties"]["ipConfigurations"]
    address = config["properties"].get("publicIPAddressConfiguration")
    return properties["storageProfile"]["osDisk"], interface, address


@pytest.mark.parametrize("local", ["", "CacheDisk", "ResourceDisk"])
@pytest.mark.parametrize("market", list(Market))
@pytest.mark.parametrize("address", ["public", "private"])
def test_the_clients_types_know_every_field(local: str, market: Market, address: str) -> None:
    more = {"address": address, "security_group": "nsg"}
    made = put(local=local, wanted=order(market=market), **more)
    _known(made, compute.VirtualMachine, "")


def _known(value: Any, hint: Any, path: str) -> None:
    """Every field of a request is one of the client's own types."""
    origin = typing.get_origin(hint)
    if getattr(origin, "__name__", "") in ("Required", "NotRequired"):
        _known(value, typing.get_args(hint)[0], path)
    elif origin is list:
        for part in value:
            _known(part, typing.get_args(hint)[0], path)
    elif isinstance(value, dict) and hasattr(hint, "__annotations__"):
        hints = typing.get_type_hints(hint, {**vars(models), **vars(compute)})
        for key, part in value.items():
            assert key in hints, f"{path}.{key}"
            _known(part, hints[key], f"{path}.{key}")


def test_all_of_it_is_ours_and_dies_with_it() -> None:
    made = put()
    disk, interface, address = children(made)
    wanted = {"a_b" if key == "a/b" else key: value for key, value in tags_of(order()).items()}
    assert made["tags"] == interface["tags"] == address["tags"] == wanted
    assert disk["deleteOption"] == "Delete"
    assert interface["properties"]["deleteOption"] == "Delete"
    assert address["properties"]["deleteOption"] == "Delete"
    assert {disk["name"], interface["name"], address["name"]} == {order().instance}


def test_nobody_gets_in_but_by_its_user_data() -> None:
    profile = put()["properties"]["osProfile"]
    linux = profile["linuxConfiguration"]
    assert base64.b64decode(profile["customData"]) == order().user_data
    assert profile["allowExtensionOperations"] is False
    assert linux["provisionVMAgent"] is False
    assert linux["disablePasswordAuthentication"] is True
    assert "adminPassword" not in profile
    assert "identity" not in put()
    (key,) = linux["ssh"]["publicKeys"]
    assert len(base64.b64decode(key["keyData"].split()[1])) == 4 + 11 + 4 + 32


def test_where_and_how_it_is_made() -> None:
    made = put(wanted=order(market=Market.SPOT), tags={"team": "core"})
    assert (made["location"], made["zones"]) == ("westeurope", ["2"])
    assert made["tags"]["team"] == "core"
    properties = made["properties"]
    assert (properties["priority"], properties["evictionPolicy"]) == ("Spot", "Delete")
    assert properties["billingProfile"] == {"maxPrice": -1}
    assert "zones" not in put(wanted=order(place="westeurope"))
    assert children(put(address="private"))[2] is None
    assert children(put())[0]["diskSizeGB"] == 30
    (disk, *_) = children(put(local="CacheDisk"))
    assert disk["diffDiskSettings"] == {"option": "Local", "placement": "CacheDisk"}
    assert disk["caching"] == "ReadOnly"


@pytest.mark.parametrize(("network", "group"), [(Network.OPEN, "builds"), (Network.NONE, "shut")])
def test_a_build_without_network_has_its_own_group(network: Network, group: str) -> None:
    chosen = options(security_group="builds", security_group_none="shut")
    (_, interface, _) = children(machine(replace(order(), network=network), chosen, local=""))
    assert interface["properties"]["networkSecurityGroup"]["id"].endswith(f"Groups/{group}")


def test_an_unknown_field_would_be_noticed() -> None:
    made = put()
    made["properties"]["osProfile"]["linuxConfiguration"]["nothing"] = 1
    with pytest.raises(AssertionError, match="nothing"):
        _known(made, compute.VirtualMachine, "")


def test_the_same_order_is_the_same_request() -> None:
    assert put() == put()


def test_user_data_has_a_limit() -> None:
    with pytest.raises(BadOrder, match="user-data"):
        put(wanted=replace(order(), user_data=b"x" * 49_153))


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (IMAGE, {"id": IMAGE}),
        (
            "Debian:debian-13:13-gen2:latest",
            {"publisher": "Debian", "offer": "debian-13", "sku": "13-gen2", "version": "latest"},
        ),
        ("/CommunityGalleries/g", {"communityGalleryImageId": "/CommunityGalleries/g"}),
        ("/SharedGalleries/g", {"sharedGalleryImageId": "/SharedGalleries/g"}),
    ],
)
def test_each_kind_of_image_has_its_field(image: str, wanted: dict[str, str]) -> None:
    assert image_reference(image) == wanted
