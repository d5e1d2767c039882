"""What may go wrong on the way to EC2, one by one over HTTP: what the driver says of it, and what
is true then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from vmrunner_localclouds.ec2 import (
    AFTER_ALL,
    DENIED,
    GARBAGE,
    INTERNAL,
    LOST_ANSWER,
    LOST_REQUEST,
    NO_CAPACITY,
    THROTTLED,
    UNAVAILABLE,
    RequestFate,
)

from tests.support.ec2 import KINDS, REGION, Amazon, fleet, look, make_order, swept
from tests.support.ec2 import virtual_aws as virtual_aws  # the fixture
from vmrunner.errors import (
    BadOrder,
    CredentialsRefused,
    NoCapacity,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Uncertain,
)
from vmrunner.model import Fate, Kind, Power, Spec

# --- birth ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "error", "count"),
    [
        (LOST_REQUEST, Uncertain, 0),
        (LOST_ANSWER, Uncertain, 1),
        (INTERNAL, Uncertain, 0),
        (AFTER_ALL, Uncertain, 1),
        (UNAVAILABLE, Uncertain, 0),
        (GARBAGE, Uncertain, 0),
        (GARBAGE._replace(happens=True), Uncertain, 1),
        (RequestFate("RequestTimeout", 400, "the socket was idle"), Uncertain, 0),
        (RequestFate("TimedOut", 408, "nobody knows", happens=True), Uncertain, 1),
        (THROTTLED, Throttled, 0),
        (RequestFate("Throttling", 400, "Rate exceeded"), Throttled, 0),
        (NO_CAPACITY, NoCapacity, 0),
        (RequestFate("InsufficientFreeAddressesInSubnet", 400, "none left"), NoCapacity, 0),
        (RequestFate("SpotMaxPriceTooLow", 400, "it is dearer"), NoCapacity, 0),
        (RequestFate("Unsupported", 400, "not in this zone"), NoCapacity, 0),
        (RequestFate("VcpuLimitExceeded", 400, "more than your limit"), QuotaExceeded, 0),
        (RequestFate("MaxSpotInstanceCountExceeded", 400, "too many"), QuotaExceeded, 0),
        (DENIED, CredentialsRefused, 0),
        (RequestFate("ExpiredToken", 400, "it is expired"), CredentialsRefused, 0),
        (RequestFate("RequestExpired", 400, "the clock"), CredentialsRefused, 0),
        (RequestFate("AuthFailure", 401, "not validated"), CredentialsRefused, 0),
        (RequestFate("InvalidParameterValue", 400, "what is this"), BadOrder, 0),
        (RequestFate("InvalidAMIID.NotFound", 400, "it was deregistered"), BadOrder, 0),
    ],
    ids=lambda value: (
        value.code + ".happens" * value.happens if isinstance(value, RequestFate) else ""
    ),
)
def test_a_failed_launch_is_sent_again_and_is_one_machine(
    aws: Amazon, trouble: RequestFate, error: type[ProviderError], count: int
) -> None:
    provider = aws.provider()
    order = make_order(provider)
    aws.cloud.faults.fail("RunInstances", trouble)
    with pytest.raises(error) as caught:
        provider.create(order)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert len(aws.cloud.machines) == count
    assert aws.cloud.count("RunInstances") == 1  # nobody else sends it again
    ref = aws.provider().create(order)  # another process, the identical order
    (machine,) = aws.cloud.machines
    assert machine.id == ref.id


def test_with_other_parameters_it_exists_and_is_found(aws: Amazon) -> None:
    provider = aws.provider()
    order = make_order(provider)
    ref = provider.create(order)
    other = replace(order, user_data=b"#cloud-config\n{a: 1}\n")
    assert provider.create(other) == ref
    # So it is when it cannot be seen yet: nobody knows then.
    aws.cloud.visibility_lag = 5
    order = make_order(provider)
    ref = provider.create(order)
    with pytest.raises(Uncertain, match="IdempotentParameterMismatch"):
        provider.create(replace(order, deadline=order.deadline + 1))
    aws.clock.advance(5)
    assert provider.create(replace(order, deadline=order.deadline + 1)) == ref


def test_a_machine_that_is_dead_is_not_born_again(aws: Amazon) -> None:
    provider = aws.provider()
    order = make_order(provider)
    ref = provider.create(order)
    provider.delete([ref])
    assert provider.create(order) == ref
    seen = look(provider, order)
    assert seen is not None
    assert seen.power is Power.DEAD
    aws.clock.advance(aws.cloud.tombstone)
    with pytest.raises(Uncertain, match="IdempotentInstanceTerminated"):
        provider.create(order)
    assert len(aws.cloud.machines) == 1


def test_user_data_that_is_too_long_asks_nobody(aws: Amazon) -> None:
    provider = aws.provider()
    order = make_order(provider, user_data=b"x" * 16385)
    with pytest.raises(BadOrder, match="user-data: 16385 bytes, EC2 takes 16384"):
        provider.create(order)
    assert aws.cloud.count("RunInstances") == 0


def test_a_storm_of_throttles_is_answered_by_waiting(aws: Amazon) -> None:
    """Others use up the account's rate: each refusal makes the next call wait longer."""
    provider = aws.provider()
    order = make_order(provider)
    aws.cloud.faults.fail("RunInstances", *[THROTTLED] * 4)
    for _ in range(4):
        with pytest.raises(Throttled):
            provider.create(order)
    provider.create(order)
    assert aws.waited == [pytest.approx(seconds, abs=0.6) for seconds in (1, 2, 4, 8)]


def test_without_the_right_to_simulate_the_first_newborn_tells(aws: Amazon) -> None:
    aws.cloud.faults.deny("SimulatePrincipalPolicy")
    provider = aws.provider()
    provider.create(make_order(provider))
    assert aws.cloud.count("TerminateInstances") == 1  # a dry run
    assert len(aws.cloud.alive) == 1
    provider.create(make_order(provider))
    assert aws.cloud.count("TerminateInstances") == 1
    # And where it tells that we may not, there is no second one.
    aws.cloud.faults.deny("TerminateInstances")
    provider = aws.provider()
    order, another = make_order(provider), make_order(provider)
    provider.create(order)
    with pytest.raises(CredentialsRefused, match="may not terminate what it would launch"):
        provider.create(another)
    with pytest.raises(CredentialsRefused):
        provider.offers(Spec())
    assert len(aws.cloud.machines) == 3


def test_a_simulation_that_says_nothing_is_no_answer(aws: Amazon) -> None:
    for trouble in (LOST_REQUEST, INTERNAL, RequestFate("NoSuchEntity", 404, "no such role")):
        aws.cloud.faults.fail("SimulatePrincipalPolicy", trouble)
        provider = aws.provider()
        provider.create(make_order(provider))
    assert aws.cloud.count("TerminateInstances") == 3
    assert len(aws.cloud.alive) == 3


# --- looking -------------------------------------------------------------------------------------


def test_a_newborn_that_is_not_visible_is_missing_not_dead(aws: Amazon) -> None:
    aws.cloud.visibility_lag = 5
    provider = aws.provider()
    order = make_order(provider)
    ref = provider.create(order)
    assert look(provider, order, ref) is None
    assert look(provider, order) is None
    assert Kind.INSTANCE not in {r.ref.kind for r in swept(provider)}
    assert provider.delete([ref])[ref].fate is Fate.MISSING
    aws.clock.advance(5)
    assert look(provider, order, ref) is not None
    assert aws.cloud.alive


@pytest.mark.parametrize("trouble", [LOST_REQUEST, INTERNAL, THROTTLED, DENIED, GARBAGE])
def test_a_failed_look_says_nothing_of_its_machine(aws: Amazon, trouble: RequestFate) -> None:
    """And everything of the others: `test_ec2_outages.py`."""
    provider = aws.provider()
    order = make_order(provider)
    ref = provider.create(order)
    aws.cloud.faults.on_request = lambda r: trouble if r.action == "DescribeInstances" else None
    with pytest.raises(ProviderError):
        look(provider, order, ref)
    aws.cloud.faults.on_request = None
    assert look(provider, order, ref) is not None


def test_a_kind_that_may_not_be_read_hinders_no_other(aws: Amazon) -> None:
    """What stopped a whole janitor: one resource type that its role could not read."""
    provider = aws.provider()
    provider.create(make_order(provider))
    aws.cloud.faults.deny("DescribeVolumes")
    pages = list(provider.sweep())
    (failed,) = [page for page in pages if page.error]
    assert failed.kind is Kind.DISK
    assert "UnauthorizedOperation" in str(failed.error)
    ended = {page.kind for page in pages if not page.error and not page.more}
    assert ended == KINDS - {Kind.DISK}
    assert {r.ref.kind for r in swept(provider)} == {Kind.INSTANCE, Kind.INTERFACE}


@pytest.mark.parametrize("trouble", [LOST_REQUEST, LOST_ANSWER, INTERNAL, THROTTLED, GARBAGE])
def test_a_failed_page_is_read_again_then_listing_is_incomplete(
    aws: Amazon, trouble: RequestFate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.providers.ec2.sweep.PAGE", 5)
    provider = aws.provider()
    for _ in range(12):
        provider.create(make_order(provider))

    def instances() -> list[tuple[int, bool, bool]]:
        pages = [page for page in provider.sweep() if page.kind is Kind.INSTANCE]
        return [(len(page.resources), page.more, page.error is not None) for page in pages]

    whole = [(5, True, False), (5, True, False), (2, False, False)]
    assert instances() == whole
    aws.cloud.faults.fail("DescribeInstances", None, trouble)
    assert instances() == whole
    aws.cloud.faults.fail("DescribeInstances", None, trouble, trouble)
    aws.cloud.faults.fail("DescribeNetworkInterfaces", INTERNAL)  # nor zone by zone
    assert instances()[:2] == [(5, True, False), (0, False, True)]


def test_a_region_that_is_down_or_off_hinders_no_other(aws: Amazon) -> None:
    far = "us-east-2"
    provider = aws.provider(used=(far,))
    provider.create(make_order(provider))
    aws.cloud.disabled.add(far)
    pages = list(provider.sweep())
    assert {page.scope.place for page in pages if page.error} == {far}
    whole = {page.kind for page in pages if page.scope.place == REGION and not page.error}
    assert whole == KINDS


def test_who_we_are_cannot_be_told(aws: Amazon) -> None:
    aws.cloud.faults.on_request = lambda r: LOST_REQUEST if r.service == "sts" else None
    provider = aws.provider()
    assert provider.scopes == frozenset()
    with pytest.raises(Uncertain):
        next(provider.sweep())
    with pytest.raises(Uncertain):
        provider.offers(Spec())
    assert aws.cloud.count("GetCallerIdentity") == 3
    assert provider.scopes == frozenset()
    assert aws.cloud.count("GetCallerIdentity") == 3  # it does not ask at every question
    aws.cloud.faults.on_request = None
    assert provider.offers(Spec())
    assert provider.now() == pytest.approx(aws.clock(), abs=5)


# --- ending --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble", [LOST_REQUEST, LOST_ANSWER, INTERNAL, AFTER_ALL, THROTTLED, GARBAGE, DENIED]
)
def test_a_failed_delete_is_told_for_each_and_asked_again(
    aws: Amazon, trouble: RequestFate
) -> None:
    provider, refs = fleet(aws, 3)
    aws.cloud.faults.on_request = lambda r: trouble if r.action == "TerminateInstances" else None
    outcomes = provider.delete(refs)
    assert {outcome.fate for outcome in outcomes.values()} == {Fate.FAILED}
    assert all(outcome.error for outcome in outcomes.values())
    assert bool(aws.cloud.alive) is not trouble.happens
    aws.cloud.faults.on_request = None
    outcomes = provider.delete(refs)
    assert {outcome.fate for outcome in outcomes.values()} == {Fate.ACCEPTED}
    assert aws.cloud.alive == []


def test_one_that_may_not_be_terminated_saves_no_other(aws: Amazon) -> None:
    provider, refs = fleet(aws, 9)
    poison = refs[4].id

    def deny(request: Any) -> RequestFate | None:
        mine = request.action == "TerminateInstances" and poison in request.all("InstanceId")
        return DENIED if mine else None

    aws.cloud.faults.on_request = deny
    outcomes = provider.delete(refs)
    assert {ref.id for ref, outcome in outcomes.items() if outcome.fate is Fate.FAILED} == {poison}
    assert [machine.id for machine in aws.cloud.alive] == [poison]


def test_protection_that_cannot_be_lifted_is_said(aws: Amazon) -> None:
    provider, refs = fleet(aws, 3)
    aws.cloud.by_id[refs[1].id].protected = True
    aws.cloud.faults.deny("ModifyInstanceAttribute")
    outcomes = provider.delete(refs)
    failed = outcomes[refs[1]]
    assert failed.fate is Fate.FAILED
    assert "allow ModifyInstanceAttribute" in failed.error
    assert [machine.id for machine in aws.cloud.alive] == [refs[1].id]
    aws.cloud.faults.allow("ModifyInstanceAttribute")
    assert provider.delete([refs[1]])[refs[1]].fate is Fate.ACCEPTED
