"""What the failures of Compute Engine's calls mean for the core."""

from __future__ import annotations

import pytest
from vmrunner_localclouds.gce import (
    FORBIDDEN,
    GARBAGE,
    INTERNAL,
    LOST_ANSWER,
    LOST_REQUEST,
    NOT_CONFIGURED,
    THROTTLED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    RequestFate,
)

from tests.support.gce import Google, make_order
from tests.support.gce import gce as gce  # the fixture
from vmrunner.errors import CredentialsRefused, ProviderError, Throttled, Uncertain
from vmrunner.model import Spec

INSERT = "instances.insert"


TIMED_OUT = RequestFate("timedOut", 408, "nobody knows", happens=True)


@pytest.mark.parametrize(
    "trouble", [LOST_REQUEST, LOST_ANSWER, INTERNAL, UNAVAILABLE, GARBAGE, TIMED_OUT]
)
def test_an_uncertain_create_sent_again_is_one_vm(gce: Google, trouble: RequestFate) -> None:
    provider = gce.provider()
    order = make_order(provider)
    gce.cloud.faults.fail(INSERT, trouble)
    with pytest.raises(Uncertain):
        provider.create(order)
    ref = provider.create(order)
    assert provider.create(order) == ref
    assert len(gce.cloud.machines) == 1


@pytest.mark.parametrize("trouble", [FORBIDDEN, INTERNAL, LOST_ANSWER, THROTTLED])
def test_an_unreadable_operation_may_have_succeeded(gce: Google, trouble: RequestFate) -> None:
    gce.cloud.operation_seconds = 5
    provider = gce.provider()
    order = make_order(provider)
    gce.cloud.faults.fail("zoneOperations.wait", trouble)
    with pytest.raises(Uncertain):
        provider.create(order)
    provider.create(order)
    assert len(gce.cloud.machines) == 1


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (THROTTLED, Throttled),
        (FORBIDDEN, CredentialsRefused),
        (NOT_CONFIGURED, CredentialsRefused),
        (UNAUTHENTICATED, CredentialsRefused),
    ],
)
def test_a_refusal_is_one(gce: Google, trouble: RequestFate, error: type[ProviderError]) -> None:
    provider = gce.provider()
    order = make_order(provider)
    gce.cloud.faults.fail(INSERT, trouble)
    with pytest.raises(error) as raised:
        provider.create(order)
    assert error is Throttled or raised.value.hint
    assert gce.cloud.machines == []


def test_who_may_not_delete_what_was_born_launches_no_second(gce: Google) -> None:
    provider = gce.provider()
    first, second = make_order(provider), make_order(provider)
    gce.cloud.faults.deny("instances.delete")
    provider.create(first)
    with pytest.raises(CredentialsRefused, match="may not delete what it would launch"):
        provider.create(second)
    with pytest.raises(CredentialsRefused):
        provider.offers(Spec())
    assert len(gce.cloud.machines) == 1
