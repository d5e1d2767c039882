"""What is checked alike of the options of every cloud."""

from __future__ import annotations

import pytest

from vmrunner.errors import BadOrder, ConfigError
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.common.cloud_options import CloudOptions, GiB
from vmrunner.providers.ec2.options import Ec2Options
from vmrunner.providers.gce.options import GceOptions

OPTIONS = CloudOptions(name="cloud", installation="i", disk=20 * GiB)


def test_a_builder_runs_what_images_are_built_on() -> None:
    types = {"t2a-standard-4": ["arm64"], "e2-standard-2": ["x86_64"], "n2-standard-2": ["x86_64"]}
    assert OPTIONS.builders_type("types", types) == "e2-standard-2"
    assert OPTIONS.builders_type("types", {"old": []}) == "old", "it does not say what it is"


@pytest.mark.parametrize(
    ("types", "word"), [({"t2a-standard-4": ["arm64"]}, "t2a-standard-4"), ({}, "none to be had")]
)
def test_where_no_type_does_it_is_told_with_the_fix(types: dict[str, list[str]], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OPTIONS.builders_type("types", types)
    message = str(caught.value)
    assert message.startswith(f"providers.cloud.types: {word}: images are made for x86_64")
    assert caught.value.hint


def test_a_disk_is_as_asked_or_configured_and_large_enough() -> None:
    assert OPTIONS.disk_size(30 * GiB, "debian", 10 * GiB) == 30 * GiB
    assert OPTIONS.disk_size(None, "debian", 10 * GiB) == 20 * GiB
    bare = CloudOptions(name="cloud", installation="i")
    assert bare.disk_size(None, "debian", 10 * GiB) == 10 * GiB
    with pytest.raises(BadOrder, match=r"disk = 5 GiB: image debian needs 10 GiB"):
        OPTIONS.disk_size(5 * GiB, "debian", 10 * GiB)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (Ec2Options(name="cloud", installation="i", region="eu-west-1"), "subnets"),
        (GceOptions(name="cloud", installation="i"), "zones"),
        (AzureOptions(name="cloud", installation="i"), "location"),
    ],
    ids=["ec2", "gce", "azure"],
)
def test_an_order_is_refused_naming_the_option_it_lacks(options: CloudOptions, key: str) -> None:
    with pytest.raises(BadOrder, match=rf"providers\.cloud\.{key}: none") as caught:
        options.demand_launch()
    assert caught.value.hint
