"""The policy that denies what has no tags, evaluated as IAM does: it stops whoever would move a
deadline, and no call of vmrunner's own or of Packer's for it."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any, Final

import pytest

from tests.support.ec2 import GENERATION, INSTALLATION, REGION, amazon, make_order
from vmrunner.model import TAG, Role, tags_of
from vmrunner.providers.port_guard import Policy
from vmrunner.providers.port_images import OWNER, ImageRequest

WISH: Final = ImageRequest(
    image="im-1",
    builder="vm-1",
    installation=INSTALLATION,
    generation=GENERATION,
    recipe="debian-13",
    hash="0" * 64,
    supervisor="1" * 64,
    created=0.0,
    deadline=1.0,
    max_ttl=3600.0,
)


def matches(conditions: dict[str, Any], context: dict[str, list[str]]) -> bool:
    for operator, keys in conditions.items():
        for key, wanted in keys.items():
            have = context.get(key, [])
            wants = [wanted] if isinstance(wanted, str) else wanted
            if operator == "Null":
                fits = (not have) is (wanted == "true")
            else:
                assert operator == "ForAnyValue:StringLike"
                fits = any(fnmatchcase(action, want) for action in have for want in wants)
            if not fits:
                return False
    return True


def denied(policy: dict[str, Any], action: str, **context: list[str]) -> list[str]:
    """Which statements deny it. In a key of `context` `__` stands for the colon."""
    keys = {key.replace("__", ":"): values for key, values in context.items()}
    return [
        statement["Sid"]
        for statement in policy["Statement"]
        if statement["Action"] == f"ec2:{action}" and matches(statement["Condition"], keys)
    ]


def test_our_own_calls_pass_and_no_deadline_is_moved() -> None:
    with amazon() as aws:
        provider = aws.provider()
        policy = json.loads(provider.guard().policy(Policy.DENY_UNTAGGED))
        image = aws.cloud.image(REGION, "vmrunner-1", tags={OWNER: INSTALLATION})
        old = aws.cloud.image(REGION, "vmrunner-0", tags={OWNER: INSTALLATION})
        images = aws.provider(image="vmrunner-*").imaging()
        for ref in (old, image):
            made = images.find(ref)
            assert made is not None
            images.promote(made, aws.cloud.now())
        bench = images.bench(WISH)
        order = make_order(provider)
        requests = [r for r in aws.cloud.requests if r.action in ("CreateTags", "DeleteTags")]
    assert {request.action for request in requests} == {"CreateTags", "DeleteTags"}
    for request in requests:
        keys = [value for name, value in request.params.items() if name.endswith(".Key")]
        assert denied(policy, request.action, aws__TagKeys=keys) == []
    made_by_packer = bench.variables["image_tags"]
    assert denied(policy, "CreateTags", aws__TagKeys=list(made_by_packer)) == []
    for resource in (order, WISH.order(order.offer.scope, "m7i.large")):
        tags = tags_of(resource)
        assert resource.role in (Role.BUILD, Role.IMAGE)
        at_birth = denied(
            policy, "CreateTags", aws__TagKeys=list(tags), ec2__CreateAction=["RunInstances"]
        )
        assert at_birth == []
        for key in (key for key in tags if key.startswith(TAG)):
            assert denied(policy, "CreateTags", aws__TagKeys=["Name", key])


@pytest.mark.parametrize("missing", ["installation", "expires-at"])
def test_nothing_is_born_without_owner_and_deadline(missing: str) -> None:
    with amazon() as aws:
        policy = json.loads(aws.provider().guard().policy(Policy.DENY_UNTAGGED))
    given = {f"aws__RequestTag/{TAG}{name}": ["x"] for name in ("installation", "expires-at")}
    assert denied(policy, "RunInstances", **given) == []
    del given[f"aws__RequestTag/{TAG}{missing}"]
    assert denied(policy, "RunInstances", **given)
    mine = {f"aws__ResourceTag/{TAG}installation": [INSTALLATION]}
    assert denied(policy, "DeleteTags", **mine)
