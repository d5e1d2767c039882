"""Which images go: never one that somebody needs, whatever the others are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrunner.core.image_retention import RetainedImage, RetentionReason, plan

IMAGES = st.lists(
    st.builds(
        RetainedImage,
        ref=st.uuids().map(str),
        name=st.sampled_from(["default", "python"]),
        created=st.integers(0, 5).map(float),
        mine=st.booleans(),
        ready=st.booleans(),
        promoted=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda image: image.ref,
)


@settings(deadline=None)
@given(IMAGES, st.integers(0, 4), st.data())
def test_what_goes_is_ours_old_finished_unpromoted_and_unused(
    images: list[RetainedImage], keep: int, data: st.DataObject
) -> None:
    used = data.draw(st.sets(st.sampled_from([i.ref for i in images]))) if images else set()
    verdicts = plan(images, keep=keep, in_use=used)
    assert {v.image for v in verdicts} == set(images)
    for image in (v.image for v in verdicts if v.goes):
        assert image.mine
        assert image.ready
        assert not image.promoted
        assert image.ref not in used
        newer = [
            other
            for other in images
            if other.name == image.name
            and other.mine
            and other.ready
            and (other.created, other.ref) > (image.created, image.ref)
        ]
        assert len(newer) >= keep


@given(IMAGES, st.integers(0, 4))
def test_whatever_has_no_reason_to_stay_goes(images: list[RetainedImage], keep: int) -> None:
    stays = [v.image for v in plan(images, keep=keep, in_use=()) if v.why is RetentionReason.NEWEST]
    for name in ("default", "python"):
        assert len([image for image in stays if image.name == name]) <= keep


@given(IMAGES, st.integers(0, 4), st.data())
def test_the_plan_does_not_depend_on_the_order(
    images: list[RetainedImage], keep: int, data: st.DataObject
) -> None:
    mixed = data.draw(st.permutations(images))
    assert plan(mixed, keep=keep, in_use=()) == plan(images, keep=keep, in_use=())


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"mine": False}, RetentionReason.FOREIGN),
        ({"ready": False}, RetentionReason.UNFINISHED),
        ({"promoted": True}, RetentionReason.PROMOTED),
        ({"ref": "used"}, RetentionReason.IN_USE),
        ({}, RetentionReason.OLD),
    ],
)
def test_each_reason(more: dict[str, Any], why: RetentionReason) -> None:
    image = replace(RetainedImage(ref="a", name="default", created=1.0), **more)
    (verdict,) = plan([image], keep=0, in_use={"used"})
    assert verdict.why is why
