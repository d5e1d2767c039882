"""Parking at EC2: stopped to wait, with its disk, and started for its build."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from vmrunner_localclouds.ec2 import (
    AFTER_ALL,
    LOST_ANSWER,
    LOST_REQUEST,
    NO_CAPACITY,
    THROTTLED,
    RequestFate,
)

from deploy.aws import guard
from tests.support.ec2 import INSTALLATION, REGION, Amazon, amazon, fleet, look, make_order, swept
from vmrunner.errors import BadOrder, NoCapacity, QuotaExceeded, Throttled, Uncertain, VmrunnerError
from vmrunner.model import Order, Power, Ref, Role
from vmrunner.providers.ec2.provider import Ec2Provider

QUOTA = RequestFate("VcpuLimitExceeded", 400, "You have requested more vCPU capacity")


@pytest.fixture
def aws() -> Iterator[Amazon]:
    with amazon() as made:
        made.cloud.boot_seconds = made.cloud.delete_seconds = 5
        yield made


def parked(aws: Amazon) -> tuple[Ec2Provider, Order, Ref]:
    """A pool's VM that is stopped, and was born an hour ago."""
    provider = aws.provider(address="public")
    order = make_order(
        provider,
        role=Role.POOL,
        build=None,
        pool="fast",
        deadline=float(int(provider.now() + 7200)),
    )
    ref = provider.create(order)
    aws.clock.advance(3600)
    provider.park(ref)
    aws.clock.advance(5)
    return provider, order, ref


def test_a_stop_waits_for_no_guest(aws: Amazon) -> None:
    """Nobody in a guest may answer; EC2 waits for minutes then, at full price."""
    aws.cloud.shutdown_seconds = 300
    provider, order, ref = parked(aws)
    asleep = look(provider, order, ref)
    assert asleep is not None
    assert asleep.power is Power.STOPPED


def test_it_is_seen_as_what_it_is_and_read_anew(aws: Amazon) -> None:
    provider, order, ref = parked(aws)
    asleep = look(provider, order, ref)
    assert asleep is not None
    assert (asleep.power, asleep.self_ended, asleep.address) == (Power.STOPPED, False, None)
    assert asleep.created_at == aws.clock() - 3605
    provider.wake(ref)
    waking = look(provider, order, ref)
    assert waking is not None
    assert waking.power is Power.PENDING
    aws.clock.advance(5)
    awake = look(provider, order, ref)
    assert awake is not None
    assert (awake.power, awake.self_ended) == (Power.RUNNING, False)
    assert awake.address is not None
    assert awake.created_at == asleep.created_at  # LaunchTime says something else by now
    (resource,) = [r for r in swept(provider) if r.ref == ref]
    assert resource.created_at == asleep.created_at
    before = awake.address
    provider.park(ref)
    stopping = look(provider, order, ref)
    assert stopping is not None
    assert (stopping.power, stopping.self_ended) == (Power.STOPPING, False)
    aws.clock.advance(5)
    provider.wake(ref)
    aws.clock.advance(5)
    again = look(provider, order, ref)
    assert again is not None
    assert again.address not in (None, before)


def test_one_that_still_stops_is_woken_later(aws: Amazon) -> None:
    provider, _, ref = parked(aws)
    provider.wake(ref)
    aws.clock.advance(5)
    provider.park(ref)
    with pytest.raises(Uncertain, match="not in a state from which it can be started"):
        provider.wake(ref)
    aws.clock.advance(5)
    provider.wake(ref)


def test_one_that_does_not_run_yet_is_parked_later(aws: Amazon) -> None:
    provider, (ref,) = fleet(aws, 1)
    with pytest.raises(Uncertain):
        provider.park(ref)
    aws.clock.advance(5)
    provider.park(ref)


@pytest.mark.parametrize(
    ("fate", "error"),
    [
        (NO_CAPACITY, NoCapacity),
        (QUOTA, QuotaExceeded),
        (THROTTLED, Throttled),
        (LOST_REQUEST, Uncertain),
        (LOST_ANSWER, Uncertain),
        (AFTER_ALL, Uncertain),
    ],
)
def test_what_a_refused_start_means(
    aws: Amazon, fate: RequestFate, error: type[VmrunnerError]
) -> None:
    provider, order, ref = parked(aws)
    aws.cloud.faults.fail("StartInstances", fate)
    with pytest.raises(error):
        provider.wake(ref)
    provider.wake(ref)
    aws.clock.advance(5)
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.power is Power.RUNNING


def test_what_cannot_be_parked_is_a_bad_order(aws: Amazon) -> None:
    provider, (gone, protected) = fleet(aws, 2)
    spots = aws.provider(spot="only")
    spot = spots.create(make_order(spots))
    aws.clock.advance(5)
    aws.cloud.by_id[protected.id].stop_protected = True
    provider.delete([gone])
    for ref in (gone, protected, spot):
        with pytest.raises(BadOrder):
            provider.park(ref)
    for _ in range(2):  # shutting down, terminated, and forgotten
        for call in (provider.park, provider.wake):
            with pytest.raises(BadOrder):
                call(gone)
        aws.clock.advance(aws.cloud.tombstone + 5)


def test_another_account_is_neither_parked_nor_woken(aws: Amazon) -> None:
    provider, _, ref = parked(aws)
    far = ref._replace(scope=ref.scope._replace(account="210987654321"))
    calls = len(aws.cloud.requests)
    for call in (provider.park, provider.wake):
        with pytest.raises(Uncertain):
            call(far)
    actions = {request.action for request in aws.cloud.requests[calls:]}
    assert not actions & {"StopInstances", "StartInstances"}


def test_the_guard_alone_ends_one_that_is_parked(
    aws: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VM that is stopped has no timer of its own any more."""
    _, order, ref = parked(aws)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.cloud.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    settings = guard.Settings(installation=INSTALLATION, regions=(REGION,))
    for late, ended in ((-1, []), (guard.GRACE, []), (guard.GRACE + 1, [ref.id])):
        aws.clock.advance(order.deadline + late - aws.cloud.now())
        report = guard.guard(settings, aws.cloud.now())
        assert [line["id"] for line in report["ended"]] == ended
    aws.clock.advance(5)
    assert not aws.cloud.alive
    assert aws.cloud.by_id[ref.id].state == "terminated"
