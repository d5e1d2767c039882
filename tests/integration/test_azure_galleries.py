"""Versions in the gallery of a resource group: what they are called, which of them builds get, and
what of them goes, at the local Azure."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

import pytest
from azure.core.exceptions import HttpResponseError
from vmrunner_localclouds.azure.resource_ids import DEFINITION, GALLERY, VERSION

from tests.integration.test_azure_images import image_request
from tests.support.arm import Arm, arm_of, refused
from tests.support.azure import INSTALLATION, Microsoft, make_order
from tests.support.azure import azure as azure  # the fixture
from vmrunner.errors import CredentialsRefused
from vmrunner.model import Fate, Kind, Level, Ref, Spec
from vmrunner.providers.azure import galleries
from vmrunner.providers.azure.catalog import into_gallery
from vmrunner.providers.port_images import HASH, CloudImage, ImageRequest

GROUP: Final = "/subscriptions/s/resourceGroups/g"


def store(azure: Microsoft, **more: Any) -> Any:
    return azure.provider(**{"image": None, **more}).imaging()


def version(azure: Microsoft, request: ImageRequest, **more: Any) -> str:
    """A version as Packer leaves it, in the gallery that was prepared for it; its reference."""
    bench = store(azure).bench(request)
    bench.prepare()
    variables = bench.variables
    source = {"id": azure.site.image}
    body = {
        "location": azure.site.location,
        "tags": {**variables["run_tags"], **variables["image_tags"], **more},
        "properties": {"storageProfile": {"source": source}},
    }
    with arm_of(azure.cloud, azure.clock) as arm:
        family = arm.compute.gallery_image_versions
        made = family.begin_create_or_update(
            azure.site.group,
            *(variables[f"azure_gallery{end}"] for end in ("", "_image", "_version")),
            body,
        )
        return str(made.result().id).lower()


def finished(azure: Microsoft) -> CloudImage:
    """A version that its build has finished."""
    images = store(azure)
    made = images.find(version(azure, image_request()))
    images.finish(made)
    return images.find(made.ref)  # type: ignore[no-any-return]


@pytest.mark.parametrize("recipe", ["default", "g.visor_2", "a" * 60])
@pytest.mark.parametrize("created", [1_800_000_000.0, 1_767_225_600.0])
def test_a_version_is_found_by_its_rows_name(recipe: str, created: float) -> None:
    request = replace(image_request(), recipe=recipe, created=created)
    image = galleries.image_of("Some-Group", request.name)
    assert image is not None
    assert re.fullmatch(r"[A-Za-z0-9_]{1,80}", image.gallery)
    assert all(0 <= int(part) < 2**31 for part in image.version.split("."))
    assert all(part == str(int(part)) for part in image.version.split("."))
    assert galleries.image_of("some-group", request.name) == image
    assert galleries.name_of(image, {HASH: request.hash}) == request.name
    later = replace(
        request, image=f"{request.image[:-1]}{'0' if request.image[-1] != '0' else '1'}"
    )
    assert galleries.image_of("some-group", later.name) != image


def test_a_name_that_no_request_has_is_no_version() -> None:
    for name in ("vmrunner-default-1", "mine", "", "vmrunner-x-01234567-20270115080000-abcdeu"):
        assert galleries.image_of("group", name) is None
    image = galleries.GalleryImage("g", "d", "1.0.0")
    assert galleries.name_of(image, {}) == "d/1.0.0"
    assert galleries.gallery_of("a-b") != galleries.gallery_of("a_b")


def test_gallery_and_definition_are_made_once(azure: Microsoft) -> None:
    for _ in range(2):
        bench = store(azure, tags={"team": "core"}).bench(image_request())
        assert azure.cloud.count("galleries.put") == (1 if _ else 0)  # a plan makes nothing
        bench.prepare()
    assert azure.cloud.count("definitions.put") == 1
    (gallery,) = [
        gallery
        for gallery in azure.cloud.shelf(GALLERY).values()
        if gallery["name"] == bench.variables["azure_gallery"]
    ]
    assert gallery["tags"]["team"] == "core"
    assert azure.cloud.rejected == []


def test_the_promoted_version_is_what_builds_get(azure: Microsoft) -> None:
    azure.cloud.image(
        azure.site.group,
        "old",
        tags={"vmrunner:image-of": INSTALLATION, "vmrunner:promoted": "100"},
    )
    first, second = (finished(azure) for _ in range(2))
    images = store(azure)
    assert {first.ref, second.ref} <= {image.ref for image in images.images()}
    images.promote(second, 200.0)
    assert [image.ref for image in images.images() if image.promoted] == [second.ref]
    (offer, *_) = azure.provider(image=None).offers(Spec())
    assert offer.image.lower() == second.ref
    assert images.chosen(images.images()) == {second.ref}
    assert images.chosen(images.images(), first.name) == {first.ref}
    images.promote(images.find("old"), 300.0)
    assert images.chosen(images.images()) == {images.find("old").ref}
    assert all(not image.promoted for image in images.images() if image.ref == second.ref)


@pytest.mark.parametrize("end", ["", "/versions/latest"])
def test_all_versions_of_a_named_definition_are_in_use(azure: Microsoft, end: str) -> None:
    """Azure takes the latest of them, whichever that will be."""
    both = {finished(azure).ref for _ in range(2)}
    definition = next(iter(both)).partition("/versions/")[0] + end
    provider = azure.provider(image=definition)
    assert provider.imaging().chosen(store(azure).images()) == both
    provider.create(make_order(provider))
    assert both <= provider.imaging().in_use()


def test_an_unfinished_version_is_swept_and_deleted(azure: Microsoft) -> None:
    mine, kept = version(azure, request := image_request()), version(azure, image_request())
    provider = azure.provider(image=None)
    shown = [r for page in provider.sweep() if page.kind is Kind.IMAGE for r in page.resources]
    assert {
        f"/providers/microsoft.compute/{resource.ref.id}" in mine + kept for resource in shown
    } == {True}
    assert {resource.expires_at for resource in shown} == {request.finish_by}
    assert request.builder in {resource.instance for resource in shown}
    images = store(azure)
    images.finish(images.find(kept))
    fates = {
        ref.id: outcome.fate for ref, outcome in provider.delete([r.ref for r in shown]).items()
    }
    assert {fate for at, fate in fates.items() if mine.endswith(at)} == {Fate.ACCEPTED}
    assert {fate for at, fate in fates.items() if kept.endswith(at)} == {Fate.MISSING}
    azure.clock.advance(60)
    assert [image.ref for image in images.images()] == [kept]
    gone = next(resource.ref for resource in shown if mine.endswith(resource.ref.id))
    assert provider.delete([gone])[gone].fate is Fate.MISSING
    for _ in range(2):
        assert images.remove(images.find(kept) or CloudImage(
            ref=kept, name="", created=0.0, tags={}
        )) == []  # fmt: skip
    assert images.find(kept) is None


def test_a_version_of_another_group_is_another(azure: Microsoft) -> None:
    ref = version(azure, request := image_request())
    azure.cloud.group("new")
    elsewhere = azure.provider(image=None, resource_group="new", used=(azure.site.group,))
    assert elsewhere.imaging().find_by_name(request.name) is None
    former = elsewhere.imaging(elsewhere.home._replace(place=azure.site.group))
    found = former.find_by_name(request.name)
    assert found is not None
    assert (found.ref, found.name) == (ref, request.name)
    shown = {r.ref for page in elsewhere.sweep() for r in page.resources}
    at = ref.partition("/microsoft.compute/")[2]
    assert Ref(elsewhere.home._replace(place=azure.site.group), Kind.IMAGE, at) in shown


def test_a_former_role_keeps_managed_images_going(azure: Microsoft) -> None:
    tags = {"vmrunner:image-of": INSTALLATION, "vmrunner:promoted": "100"}
    mine = azure.cloud.image(azure.site.group, "mine", tags=tags)
    azure.cloud.image(azure.site.group, name := image_request().name, tags=tags)
    azure.cloud.faults.deny("definitions.list", "versions.get", "versions.delete", "galleries.get")
    provider = azure.provider(image=None)
    assert provider.offers(Spec())[0].image == mine["id"]
    assert provider.imaging().find(name).name == name
    with pytest.raises(CredentialsRefused):  # whether it is a version, nobody can tell
        provider.imaging().find(image_request().name)
    pages = [page for page in provider.sweep() if page.error]
    assert {page.kind for page in pages} == {Kind.IMAGE}
    messages = [finding.message for finding in provider.check() if finding.level is Level.WARNING]
    assert any("galleries/images/versions/delete is denied" in message for message in messages)
    with pytest.raises(CredentialsRefused, match=r"Microsoft\.Compute/galleries/read"):
        provider.imaging().bench(image_request()).prepare()


@pytest.mark.parametrize(
    ("options", "gallery"),
    [
        ({"image": None}, True),
        ({"image": "mine"}, False),
        ({"image": f"{GROUP}/providers/Microsoft.Compute/images/i"}, False),
        ({"image": "vmrunner-default-01234567-20270115080000-abcdef"}, True),
        ({"image": "Debian:debian-13:13-gen2:latest"}, True),
        ({"image": "mine", "images": "gallery"}, True),
        ({"image": None, "images": "managed"}, False),
    ],
)
def test_what_is_made_where_a_managed_image_is_named(
    azure: Microsoft, options: dict[str, Any], gallery: bool
) -> None:
    provider = azure.provider(**options)
    assert into_gallery(provider.options) is gallery
    variables = provider.imaging().bench(image_request()).variables
    assert ("azure_gallery" in variables) is gallery


# --- the local Azure's own words ------------------------------------------------------------------


def put(arm: Arm, family: str, names: tuple[str, ...], **properties: Any) -> Any:
    body = {"location": arm.site.location, "properties": properties}
    made = getattr(arm.compute, family).begin_create_or_update(arm.group, *names, body)
    return made.result()


def test_what_azure_refuses_of_galleries_is_refused(azure: Microsoft) -> None:
    """Names, numbers, order, generation and Trusted Launch, as Microsoft's pages have them."""
    kind = {"osType": "Linux", "osState": "Generalized", "hyperVGeneration": "V2"}
    kind |= {"identifier": {"publisher": "p", "offer": "o", "sku": "s"}}  # type: ignore[dict-item]
    source = {"storageProfile": {"source": {"id": azure.site.image}}}
    with arm_of(azure.cloud, azure.clock) as arm:
        versions = "gallery_image_versions"
        assert refused(lambda: put(arm, "galleries", ("my-gallery",)))[0] == 400
        assert refused(lambda: put(arm, "gallery_images", ("g", "d"), **kind))[0] == 404
        put(arm, "galleries", ("g",))
        put(arm, "gallery_images", ("g", "d"), **kind)
        assert refused(lambda: put(arm, "gallery_images", ("g", "e"), **kind))[0] == 409
        for name in ("1.0", "1.0.x", f"1.0.{2**31}"):
            assert (
                refused(lambda name=name: put(arm, versions, ("g", "d", name), **source))[0] == 400
            )
        put(arm, versions, ("g", "d", "1.0.0"), **source)
        image = azure.cloud.resource(azure.site.image) or {}
        image["properties"]["hyperVGeneration"] = "V1"
        assert refused(lambda: put(arm, versions, ("g", "d", "1.0.1"), **source))[0] == 409
        arm.create("vm-1", arm.body("vm-1", securityProfile={"securityType": "TrustedLaunch"}))
        of_vm = {"storageProfile": {"source": {"virtualMachineId": arm.machine.id}}}
        with pytest.raises(HttpResponseError, match="cannot be used in image with"):
            put(arm, versions, ("g", "d", "1.0.2"), **of_vm)
        whole = arm.compute.gallery_images.begin_delete
        with pytest.raises(HttpResponseError, match="nested resources exist"):
            whole(arm.group, "g", "d")
    shelves = (GALLERY, DEFINITION, VERSION)
    assert all(any("/galleries/g" in at for at in azure.cloud.shelf(shelf)) for shelf in shelves)
