"""Images of the gce driver at the local Compute Engine that no build finished, without a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.gce import GENERATION, INSTALLATION, Google, google
from vmrunner.core import audit_rules
from vmrunner.errors import ConfigError
from vmrunner.lib import ids
from vmrunner.model import Kind, Level, Limits
from vmrunner.providers.gce.labels import labels
from vmrunner.providers.gce.provider import GceProvider
from vmrunner.providers.port_images import FINISH_BY, ImageRequest
from vmrunner.reaper import expired


@pytest.fixture
def gce() -> Iterator[Google]:
    with google() as made:
        yield made


def left(
    gce: Google, name: str, family: str = "vmrunner-unfinished", *, marked: bool = True, **more: Any
) -> ImageRequest:
    """What Packer leaves of a build that began now; its request."""
    now = gce.cloud.now()
    request = ImageRequest(
        image=ids.image_id(),
        builder=ids.instance_id(),
        installation=INSTALLATION,
        generation=GENERATION,
        recipe="default",
        hash="0123456789abcdef",
        supervisor="x",
        created=now,
        deadline=now + 3600,
        max_ttl=14_400.0,
    )
    tags = {key: value for key, value in request.tags.items() if marked or key != FINISH_BY}
    gce.cloud.image(name, family=family, labels=labels(tags), **more)
    return request


def images_left(gce: Google) -> set[str]:
    return {name for name in gce.cloud.images(gce.project) if name != "vmrunner-1"}


def late(gce: Google, provider: GceProvider) -> list[str]:
    """What the audit tells."""
    pages = list(provider.sweep())
    found = audit_rules.by_tags(provider.now(), pages, Limits(), INSTALLATION)
    return sorted(line.ref.id for line in found if line.ref)


def reap(gce: Google, provider: GceProvider) -> None:
    expired.delete_expired(
        None, {"google": provider}, Limits(), INSTALLATION, sleep=gce.clock.sleep
    )
    gce.clock.advance(30)


def test_what_no_build_finished_ends_and_all_else_stays(gce: Google) -> None:
    for state in ("PENDING", "FAILED", "READY"):
        made = left(gce, state.lower(), status=state)
    lasting = {"promoted": "vmrunner", "candidate": "vmrunner-candidates", "theirs": "theirs"}
    for name, family in lasting.items():
        left(gce, name, family)
    left(gce, "of-a-family-of-that-name", marked=False)
    left(gce, "finished")
    provider = gce.provider()
    images = provider.imaging()
    finished = images.find("finished")
    assert finished is not None
    images.finish(finished)
    assert gce.cloud.images(gce.project)["finished"]["family"] == "vmrunner-candidates"
    gce.clock.advance(4500 - 60)
    reap(gce, provider)
    assert {"pending", "failed", "ready"} <= images_left(gce)
    assert late(gce, provider) == []
    gce.clock.advance(120)
    assert made.finish_by < provider.now()
    assert late(gce, provider) == [
        f"global/images/{name}" for name in ("failed", "pending", "ready")
    ]
    reap(gce, provider)
    assert images_left(gce) == {*lasting, "of-a-family-of-that-name", "finished"}
    assert late(gce, provider) == []


def test_who_may_not_list_images_sweeps_all_else(gce: Google) -> None:
    left(gce, "left")
    gce.cloud.faults.deny("images.list")
    provider = gce.provider()
    pages = list(provider.sweep())
    assert {page.kind for page in pages if page.error} == {Kind.IMAGE}
    findings = [finding for finding in provider.check() if finding.check == "sweep"]
    assert [(finding.level, "image" in finding.message) for finding in findings] == [
        (Level.WARNING, True)
    ]
    assert "gcp/role.yaml" in findings[0].fix


def test_nothing_is_promoted_into_a_family_of_leftovers(gce: Google) -> None:
    """Its label stays on it: there a sweep would end it."""
    left(gce, "made")
    provider = gce.provider(image="family/team-unfinished")
    images = provider.imaging()
    made = images.find("made")
    assert made is not None
    with pytest.raises(ConfigError, match="what no build finished"):
        images.promote(made, provider.now())
