"""Sizes by what their SKUs tell: which images they boot, and where an ephemeral disk has room."""

from __future__ import annotations

import pytest
from vmrunner_localclouds.azure import price

from tests.support.azure import Microsoft, make_order
from tests.support.azure import azure as azure  # the fixture
from vmrunner.errors import BadOrder
from vmrunner.model import Level, Spec
from vmrunner.providers.azure.provider import AzureProvider

NEW, OLD = "Standard_D2s_v6", "Standard_D2s_v5"


def types(provider: AzureProvider) -> list[str]:
    return list(dict.fromkeys(offer.machine_type for offer in provider.offers(Spec())))


def levels(provider: AzureProvider) -> list[Level]:
    return [finding.level for finding in provider.check() if finding.check == "machine types"]


def test_a_size_that_boots_no_image_is_not_offered(azure: Microsoft) -> None:
    """A managed image boots from SCSI alone, and sizes of the sixth generation have NVMe."""
    provider = azure.provider(machine_types=(NEW, OLD))
    assert types(provider) == [OLD]
    provider.create(make_order(provider))
    assert levels(provider) == [Level.OK, Level.WARNING]
    assert azure.cloud.rejected == []


def test_where_no_size_boots_an_image_it_is_said_why(azure: Microsoft) -> None:
    provider = azure.provider(machine_types=(NEW,))
    with pytest.raises(BadOrder, match="D2s_v6 has NVMe disks, and vmrunner boots from SCSI"):
        provider.offers(Spec())
    assert levels(provider) == [Level.OK, Level.ERROR]
    first = azure.cloud.image(azure.site.group, "first")
    with pytest.raises(BadOrder, match="is not of generation V2"):
        azure.provider(machine_types=("Standard_A2_v2",)).offers(Spec())
    first["properties"]["hyperVGeneration"] = "V1"
    assert types(azure.provider(machine_types=("Standard_A2_v2",), image="first"))


@pytest.mark.parametrize(
    ("size", "controller"), [(NEW, "NVMe"), ("Standard_E2bs_v5", None), (OLD, None)]
)
def test_an_image_of_a_gallery_boots_on_either_disk(
    azure: Microsoft, size: str, controller: str | None
) -> None:
    provider = azure.provider(machine_types=(size,), image=azure.site.version)
    order = make_order(provider)
    provider.create(order)
    sent = [
        request.resource
        for request in azure.cloud.requests
        if request.action == "virtualMachines.put"
    ]
    assert sent[0]["properties"]["storageProfile"].get("diskControllerType") == controller
    # Another process that sends the identical order, and knows nothing of sizes.
    azure.provider(machine_types=(size,), image=azure.site.version).create(order)
    again = [
        request.body for request in azure.cloud.requests if request.action == "virtualMachines.put"
    ]
    assert again[0] == again[1]


def test_a_gallery_that_is_unreadable_is_left_to_azure(azure: Microsoft) -> None:
    azure.cloud.faults.deny("definitions.get")
    provider = azure.provider(machine_types=(NEW, OLD), image=azure.site.version)
    assert types(provider) == [NEW, OLD]


def test_an_image_of_a_gallery_that_is_gone_is_told(azure: Microsoft) -> None:
    gone = azure.site.version.replace("1.0.0", "9.9.9")
    with pytest.raises(BadOrder, match=r"9\.9\.9"):
        azure.provider(image=gone).offers(Spec())


def test_an_ephemeral_disk_of_the_sixth_generation_is_on_nvme(azure: Microsoft) -> None:
    size = "Standard_D2ds_v6"
    provider = azure.provider(
        machine_types=(size,), image=azure.site.version, os_disk="ephemeral", disk=30 << 30
    )
    provider.create(make_order(provider))
    disk = azure.machine.shown["properties"]["storageProfile"]["osDisk"]
    assert disk["diffDiskSettings"]["placement"] == "NvmeDisk"


def test_a_size_in_another_case_has_its_price(azure: Microsoft) -> None:
    azure.cloud.prices = [price("westeurope", OLD, 0.1)]
    (told_price,) = azure.provider(machine_types=(OLD.upper(),)).told_prices().values()
    assert told_price[OLD] == 0.1
