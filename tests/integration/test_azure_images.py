"""Images of the azure driver at the local Azure: which one builds get, and what goes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.azure import GENERATION, INSTALLATION, Microsoft, make_order
from tests.support.azure import azure as azure  # the fixture
from vmrunner.errors import BadOrder, ConfigError
from vmrunner.lib import ids
from vmrunner.model import Role, Spec
from vmrunner.providers.port_images import CREATED, OWNER, CloudImage, ImageRequest, KeepsImages

PACKER: Final = Path(__file__).parents[2] / "packer"


def image(azure: Microsoft, name: str, created: int, *, owner: str = INSTALLATION) -> str:
    tags = {OWNER: owner, CREATED: str(created), "vmrunner:recipe": "default"}
    return str(azure.cloud.image(azure.site.group, name, tags=tags)["id"])


def store(azure: Microsoft, **more: Any) -> Any:
    provider = azure.provider(**{"image": None, **more})
    assert isinstance(provider, KeepsImages)
    return provider.imaging()


def named(found: list[CloudImage], name: str) -> CloudImage:
    (made,) = [one for one in found if one.name == name]
    return made


def wish() -> ImageRequest:
    return ImageRequest(
        image=ids.image_id(),
        builder=ids.instance_id(),
        installation=INSTALLATION,
        generation=GENERATION,
        recipe="default",
        hash="0123456789abcdef",
        supervisor="x",
        created=1_800_000_000.0,
        deadline=1_800_003_600.0,
        max_ttl=14_400.0,
    )


def test_the_last_promoted_is_what_builds_get(azure: Microsoft) -> None:
    first, second = image(azure, "first", 1), image(azure, "second", 2)
    image(azure, "theirs", 3, owner="another")
    images = store(azure)
    assert [one.name for one in images.images()] == ["first", "second"]
    with pytest.raises(BadOrder, match="no promoted image"):
        azure.provider(image=None).offers(Spec())
    images.promote(named(images.images(), "second"), 100.0)
    images.promote(named(images.images(), "first"), 100.0)  # within the same second
    assert {one.name for one in images.images() if one.promoted} == {"first"}
    (offer, *_) = azure.provider(image=None).offers(Spec())
    assert offer.image.lower() == first.lower()
    assert images.chosen(images.images()) == {first.lower()}
    assert images.chosen(images.images(), "second") == {second.lower()}
    assert images.chosen(images.images(), "nothing") == frozenset()


def test_what_a_vm_was_made_from_is_in_use(azure: Microsoft) -> None:
    made = image(azure, "mine", 1)
    provider = azure.provider(image="mine")
    provider.create(make_order(provider))
    assert provider.imaging().in_use() == {made.lower()}


def test_removed_is_gone_and_missing_is_success(azure: Microsoft) -> None:
    image(azure, "mine", 1)
    images = store(azure)
    made = images.find("mine")
    assert made is not None
    assert images.find_by_name("mine") == images.find(made.ref) == made
    assert (made.installation, made.recipe, made.created) == (INSTALLATION, "default", 1.0)
    for _ in range(2):
        assert images.remove(made) == []
    assert images.find("mine") is None
    assert images.leftovers([], 0.0) == []


def test_a_configured_image_is_not_promoted_over(azure: Microsoft) -> None:
    image(azure, "mine", 1)
    images = store(azure, image="other")
    with pytest.raises(ConfigError, match=r"providers.azure.image: other"):
        images.promote(images.find("mine"), 1.0)


def test_packers_template_takes_what_the_driver_says(azure: Microsoft) -> None:
    wanted = wish()
    bench = store(azure, machine_types=("Standard_D2ps_v5", "Standard_D2s_v5")).bench(wanted)
    known = {
        name
        for file in PACKER.glob("*.pkr.hcl")
        for name in re.findall(r'variable "(\w+)"', file.read_text())
    }
    assert bench.variables.keys() <= known
    assert 'source "azure-arm" "vmrunner"' in (PACKER / "azure.pkr.hcl").read_text()
    assert bench.source == "azure-arm.vmrunner"
    assert bench.variables["azure_vm_size"] == "Standard_D2s_v5"  # images are for that processor
    assert bench.variables["azure_builder_name"] == wanted.builder
    assert bench.variables["azure_subnet"] == "default"
    assert bench.variables["run_tags"]["vmrunner:role"] == Role.IMAGE.value
    assert bench.variables["image_tags"][OWNER] == INSTALLATION
