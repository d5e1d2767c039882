"""Images of the azure driver at the local Azure: which one builds get, and what goes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
from vmrunner_localclouds.azure import INVALID

from tests.support.azure import GENERATION, INSTALLATION, Microsoft, look, make_order
from tests.support.azure import azure as azure  # the fixture
from vmrunner.errors import BadOrder, ConfigError, Throttled
from vmrunner.lib import ids
from vmrunner.model import Fate, Kind, Level, Page, Role, Scope, Spec
from vmrunner.providers.azure.boots import AT_ONCE, AT_ONCE_OF_VERSION
from vmrunner.providers.port_images import (
    CREATED,
    FINISH_BY,
    IMAGE,
    OWNER,
    PROMOTED,
    CloudImage,
    ImageRequest,
    KeepsImages,
)

PACKER: Final = Path(__file__).parents[2] / "packer"


def image(azure: Microsoft, name: str, created: int, *, owner: str = INSTALLATION) -> str:
    tags = {OWNER: owner, CREATED: str(created), "vmrunner:recipe": "default"}
    return str(azure.cloud.image(azure.site.group, name, tags=tags)["id"])


def store(azure: Microsoft, **more: Any) -> Any:
    provider = azure.provider(**{"image": None, **more})
    assert isinstance(provider, KeepsImages)
    return provider.imaging()


def named(found: list[CloudImage], name: str) -> CloudImage:
    (made,) = [image for image in found if image.name == name]
    return made


def image_request() -> ImageRequest:
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
    assert [image.name for image in images.images()] == ["first", "second"]
    with pytest.raises(BadOrder, match="no promoted image"):
        azure.provider(image=None).offers(Spec())
    images.promote(named(images.images(), "second"), 100.0)
    images.promote(named(images.images(), "first"), 100.0)  # within the same second
    assert {image.name for image in images.images() if image.promoted} == {"first"}
    (offer, *_) = azure.provider(image=None).offers(Spec())
    assert offer.image.lower() == first.lower()
    assert images.chosen(images.images()) == {first.lower()}
    assert images.chosen(images.images(), "second") == {second.lower()}
    assert images.chosen(images.images(), "nothing") == frozenset()


def test_images_of_a_former_group_are_looked_for_there(azure: Microsoft) -> None:
    """A row tells the group of its image: one of that name elsewhere is another."""
    former_group, here = azure.site.group, azure.cloud.group("new")["name"]
    mine = azure.cloud.image(former_group, "made", tags={OWNER: INSTALLATION, FINISH_BY: "1"})
    other = azure.cloud.image(here, "made", tags={OWNER: INSTALLATION, FINISH_BY: "1"})
    provider = azure.provider(image=None, resource_group=here, used=(former_group,))
    former = provider.imaging(Scope("azure", azure.site.subscription, former_group))
    made = named(former.images(), "made")
    assert former.find_by_name("made") == made
    assert made.ref == str(mine["id"]).lower()
    former.finish(made)
    assert [FINISH_BY in version["tags"] for version in (mine, other)] == [False, True]
    former.remove(made)
    assert former.images() == []
    assert [image.ref for image in provider.imaging().images()] == [str(other["id"]).lower()]


def test_what_a_vm_was_made_from_is_in_use(azure: Microsoft) -> None:
    made = image(azure, "mine", 1)
    provider = azure.provider(image="mine")
    provider.create(make_order(provider))
    assert provider.imaging().in_use() == {made.lower()}


def test_one_managed_image_starts_twenty_at_once(azure: Microsoft) -> None:
    """Of more Azure lets some time out; of an image in a gallery it serves them."""
    azure.cloud.boot_seconds = 60
    azure.cloud.quotas["westeurope"] = {}
    provider = azure.provider()
    orders = [make_order(provider) for _ in range(AT_ONCE + 1)]
    for order in orders[:-1]:
        provider.create(order)
    for _ in range(2):
        with pytest.raises(Throttled, match="20 VMs boot from one image"):
            provider.create(orders[-1])
    provider.create(orders[0])  # the same again is no more
    gallery = azure.provider(image=azure.site.version)
    gallery.create(make_order(gallery))
    azure.clock.advance(60)
    assert look(provider, orders[0]) is not None
    provider.create(orders[-1])
    with pytest.raises(Throttled):
        provider.create(make_order(provider))
    assert {machine.failure for machine in azure.cloud.machines} == {None}


def test_one_replica_of_a_version_starts_fifty_at_once(azure: Microsoft) -> None:
    azure.cloud.boot_seconds = 60
    azure.cloud.quotas["westeurope"] = {}
    provider = azure.provider(image=azure.site.version)
    for _ in range(AT_ONCE_OF_VERSION):
        provider.create(make_order(provider))
    with pytest.raises(Throttled, match="50 VMs boot from one image"):
        provider.create(make_order(provider))
    assert {machine.failure for machine in azure.cloud.machines} == {None}


def test_a_start_that_was_refused_counts_no_more(azure: Microsoft) -> None:
    azure.cloud.boot_seconds = 60
    provider = azure.provider(zones=())
    for _ in range(AT_ONCE + 5):
        azure.cloud.faults.fail("virtualMachines.put", INVALID)
        with pytest.raises(BadOrder):
            provider.create(make_order(provider))
    provider.create(make_order(provider))


def test_an_order_that_cannot_be_sent_counts_no_more(
    azure: Microsoft, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure.cloud.boot_seconds = 60
    provider = azure.provider(zones=())
    with monkeypatch.context() as patched:
        patched.setattr("vmrunner.providers.azure.create_request.USER_DATA", 1)
        for _ in range(AT_ONCE + 5):
            with pytest.raises(BadOrder, match="user-data"):
                provider.create(make_order(provider))
    provider.create(make_order(provider))


def test_a_start_that_was_deleted_counts_no_more(azure: Microsoft) -> None:
    """A build that was cancelled while its VM booted, which nobody ever saw running."""
    azure.cloud.boot_seconds = 60
    azure.cloud.quotas["westeurope"] = {}
    provider = azure.provider()
    for _ in range(AT_ONCE + 5):
        provider.delete([provider.create(make_order(provider))])
    provider.create(make_order(provider))


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
    wanted = image_request()
    bench = store(azure, machine_types=("Standard_D2ps_v5", "Standard_D2s_v5")).bench(wanted)
    given = {
        name
        for file in PACKER.glob("*.pkr.hcl")
        for name in re.findall(r'variable "(\w+)"', file.read_text())
    }
    assert bench.variables.keys() <= given
    assert 'source "azure-arm" "vmrunner"' in (PACKER / "azure.pkr.hcl").read_text()
    assert bench.source == "azure-arm.vmrunner"
    assert bench.variables["azure_vm_size"] == "Standard_D2s_v5"  # images are for that processor
    assert bench.variables["azure_builder_name"] == wanted.builder
    assert bench.variables["azure_subnet"] == "default"
    assert bench.variables["run_tags"]["vmrunner:role"] == Role.IMAGE.value
    assert bench.variables["image_tags"][OWNER] == INSTALLATION


def swept(azure: Microsoft) -> list[str]:
    """The images that a sweep shows, by name."""
    pages = azure.provider().sweep()
    return [
        resource.ref.id for page in pages if page.kind is Kind.IMAGE for resource in page.resources
    ]


def half_made(azure: Microsoft, name: str, **more: Any) -> dict[str, str]:
    """An image that its build has not finished, with the tags that Packer gives it; those."""
    request = image_request()
    tags = {**request.tags, "vmrunner:installation": INSTALLATION, "vmrunner:role": "image"}
    tags |= {"vmrunner:expires-at": str(int(request.deadline)), **more.pop("tags", {})}
    shown = azure.cloud.image(azure.site.group, name, tags=tags)
    shown["properties"] |= more
    return tags


def test_a_sweep_shows_what_no_build_finished(azure: Microsoft) -> None:
    tags = half_made(azure, "mine", provisioningState="Failed")
    pages = [page for page in azure.provider().sweep() if page.kind is Kind.IMAGE]
    (made,) = [resource for page in pages for resource in page.resources]
    assert [page.more for page in pages] == [True, False]
    assert (made.ref.id, made.role, made.alive) == ("mine", Role.IMAGE, True)
    assert made.tag("installation") == INSTALLATION
    assert (made.instance, made.expires_at) == (tags["vmrunner:builder"], 1_800_004_500.0)


def test_no_sweep_shows_an_image_that_lasts(azure: Microsoft) -> None:
    """Of former versions: with its builder's deadline; and one that such a one promoted."""
    image(azure, "plain", 1)
    old = half_made(azure, "old")
    azure.cloud.image(azure.site.group, "old", tags={k: old[k] for k in old if k != FINISH_BY})
    half_made(azure, "promoted-by-another-version", tags={PROMOTED: "1"})
    assert swept(azure) == []
    half_made(azure, "finished")
    half_made(azure, "promoted")
    assert swept(azure) == ["finished", "promoted"]
    images = store(azure)
    for _ in range(2):
        images.finish(images.find("finished"))
    images.promote(images.find("promoted"), 5.0)
    assert swept(azure) == []
    finished = images.find("finished")
    assert finished.installation == INSTALLATION
    assert {IMAGE, CREATED} <= finished.tags.keys()


def test_what_was_finished_since_a_sweep_is_not_deleted(azure: Microsoft) -> None:
    for name in ("left", "finished", "promoted"):
        half_made(azure, name)
    provider = azure.provider()
    found = {r.ref.id: r.ref for page in provider.sweep() for r in page.resources}
    images = store(azure)
    images.finish(images.find("finished"))
    images.promote(images.find("promoted"), 5.0)
    outcomes = provider.delete([found[name] for name in ("left", "finished", "promoted")])
    fates = {ref.id: outcome.fate for ref, outcome in outcomes.items()}
    assert fates == {
        "left": Fate.ACCEPTED,
        "finished": Fate.MISSING,
        "promoted": Fate.MISSING,
    }
    azure.clock.advance(60)
    assert [image.name for image in images.images()] == ["finished", "promoted"]
    assert provider.delete([found["left"]])[found["left"]].fate is Fate.MISSING


def test_a_role_without_images_sweeps_all_else(azure: Microsoft) -> None:
    """Roles of former versions: the rest is read and ended, and doctor says what is missing."""
    azure.cloud.disk(azure.site.group, "left")
    half_made(azure, "mine")
    provider = azure.provider()
    (ref,) = [
        resource.ref
        for page in provider.sweep()
        if page.kind is Kind.IMAGE
        for resource in page.resources
    ]
    azure.cloud.faults.deny("images.list", "images.delete")
    pages: list[Page] = list(provider.sweep())
    assert {page.kind for page in pages if page.error} == {Kind.IMAGE}
    assert [resource.ref.id for page in pages for resource in page.resources] == ["left"]
    findings = {f.check: f for f in provider.check() if f.level is Level.WARNING}
    assert "image" in findings["sweep"].message
    assert "Microsoft.Compute/images/delete is denied" in findings["delete"].message
    assert all("azure/roles/vmrunner.json" in findings[name].fix for name in ("sweep", "delete"))
    outcome = provider.delete([ref])[ref]
    assert (outcome.fate, "images/delete" in outcome.error) == (Fate.FAILED, True)
