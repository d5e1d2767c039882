"""A part of EC2 that is away, one zone, one region, or STS, hides and saves nothing in the others;
and nobody's tags make a VM ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from vmrunner_localclouds.ec2 import DENIED, LOST_REQUEST, UNAVAILABLE, Ec2Request, RequestFate

from tests.support.ec2 import (
    GENERATION,
    INSTALLATION,
    KINDS,
    REGION,
    Amazon,
    credentials,
    fleet,
    look,
    make_order,
    swept,
)
from tests.support.ec2 import virtual_aws as virtual_aws  # the fixture
from tests.support.sshd import wait_for
from vmrunner.errors import CredentialsRefused, ProviderError, Uncertain
from vmrunner.model import TAG, Fate, Key, Kind, Order, Page, Power, Ref, Spec, tags_of
from vmrunner.providers.ec2.provider import Ec2Provider

FAR = "us-east-2"
ZONE = f"{REGION}a"


def born(provider: Ec2Provider, place: str) -> tuple[Key, Ref]:
    """A VM in this subnet, and its row's key."""
    offer = next(offer for offer in provider.offers(Spec()) if offer.place == place)
    order = make_order(provider, offer=offer)
    ref = provider.create(order)
    return Key(offer.scope, order.instance, ref.id), ref


def instances(provider: Ec2Provider) -> list[Page]:
    return [page for page in provider.sweep() if page.kind is Kind.INSTANCE]


# --- a zone --------------------------------------------------------------------------------------


def test_a_disrupted_zone_hides_no_vm_of_another(aws: Amazon) -> None:
    provider = aws.provider()
    here, far_subnet = aws.site.subnets[:2]
    lost, _ = born(provider, here)
    seen, ref = born(provider, far_subnet)
    ended, gone = born(provider, far_subnet)
    provider.delete([gone])
    aws.cloud.outages.add(ZONE)
    sights = provider.look([lost, seen, ended])
    assert {key: instance.power for key, instance in sights.items()} == {
        seen: Power.RUNNING,
        ended: Power.DEAD,
    }
    pages = instances(provider)
    assert [r.ref for page in pages for r in page.resources] == [ref]
    whole, zone = [page.error for page in pages if page.error is not None]
    assert "Unavailable" in whole
    assert zone.startswith(f"zone {ZONE}: ")
    with pytest.raises(Uncertain):
        provider.look([lost])  # of this one nobody knows anything
    aws.cloud.outages.clear()
    assert set(provider.look([lost, seen, ended])) == {lost, seen, ended}
    assert all(page.error is None for page in instances(provider))


def test_in_a_zone_outage_a_vm_is_found_and_forced(aws: Amazon) -> None:
    provider = aws.provider()
    key, ref = born(provider, aws.site.subnets[1])
    aws.cloud.outages.add(ZONE)
    assert provider.look([key._replace(ref=None)])[key._replace(ref=None)].ref == ref
    aws.cloud.by_id[ref.id].stuck = True
    provider.delete([ref])
    aws.clock.advance(600)
    provider.delete([ref], force=True)
    assert aws.cloud.by_id[ref.id].state == "terminated"


# --- a region ------------------------------------------------------------------------------------


def test_a_silent_region_is_asked_once_and_hinders_no_other(aws: Amazon) -> None:
    provider = aws.provider(used=(FAR,))
    order = make_order(provider)
    ref = provider.create(order)
    lost = Key(order.offer.scope._replace(place=FAR), "vm-far", "i-0123456789abcdef0")

    def dead(request: Ec2Request) -> RequestFate | None:
        if request.region != FAR:
            return None
        aws.clock.advance(30)
        return LOST_REQUEST

    aws.cloud.faults.on_request = dead
    pages = list(provider.sweep())
    kinds = KINDS
    assert {p.kind for p in pages if p.scope.place == REGION and not p.error and not p.more} == (
        kinds
    )
    assert {page.kind for page in pages if page.scope.place == FAR and page.error} == kinds
    assert ref in {r.ref for page in pages for r in page.resources}
    assert sum(request.region == FAR for request in aws.cloud.requests) == 1
    key = Key(order.offer.scope, order.instance, ref.id)
    assert set(provider.look([lost, key])) == {key}
    with pytest.raises(ProviderError):
        provider.look([lost])


def test_a_region_that_answers_slowly_has_limited_time(aws: Amazon) -> None:
    provider = aws.provider(used=(FAR,))

    def slow(request: Ec2Request) -> None:
        if request.region == FAR and request.service == "ec2":
            aws.clock.advance(121)

    aws.cloud.faults.on_request = slow
    pages = [page for page in provider.sweep() if page.scope.place == FAR]
    late = {page.kind: page.error for page in pages if page.error is not None}
    assert late.keys() == KINDS - {Kind.INSTANCE}
    assert all("not asked: 120 s are over" in error for error in late.values())


# --- who we are ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", [UNAVAILABLE, DENIED], ids=["away", "denied"])
def test_without_sts_ec2_tells_the_account_and_nothing_launches(
    aws: Amazon, fate: RequestFate
) -> None:
    provider, (ref,) = fleet(aws, 1)
    aws.cloud.faults.on_request = lambda r: fate if r.action == "GetCallerIdentity" else None
    with credentials(AWS_ACCESS_KEY_ID="AKIAROTATED000000000"):
        fresh = aws.provider()
        assert fresh.scopes == provider.scopes
        assert ref in {r.ref for r in swept(fresh)}
        with pytest.raises((Uncertain, CredentialsRefused)):
            fresh.offers(Spec())
        assert fresh.delete([ref])[ref].fate is Fate.ACCEPTED
    assert aws.cloud.alive == []
    other = "AKIAOTHEROTHEROTHER0"
    aws.cloud.accounts[other] = "210987654321"
    with credentials(AWS_ACCESS_KEY_ID=other):
        assert aws.provider().scopes == frozenset()  # there is nothing that could tell


# --- whose VM it is ------------------------------------------------------------------------------


def copies(order: Order) -> list[dict[str, str]]:
    """Tags that carry an id of ours, the last with all that a copy of our VM would have."""
    named = {f"{TAG}instance": order.instance, "Name": "prod-db"}
    ours = {f"{TAG}installation": INSTALLATION, f"{TAG}generation": GENERATION}
    return [
        named,
        {**tags_of(order), f"{TAG}installation": "11111111-2222-4333-8444-555555555555"},
        {**ours, **named},
        tags_of(order),
    ]


def test_a_copied_id_makes_no_vm_ours(aws: Amazon) -> None:
    """Each of them is older than ours."""
    victims = [aws.plant() for _ in range(4)]
    aws.clock.advance(60)
    provider = aws.provider()
    order = make_order(provider)
    for victim, tags in zip(victims, copies(order), strict=True):
        victim.backend.tags[victim.id] = tags
    assert look(provider, order) is None
    ref = provider.create(order)
    instance = look(provider, order)
    assert instance is not None
    assert instance.ref == ref
    other = replace(order, user_data=b"#cloud-config\n{a: 1}\n")
    assert provider.create(other) == ref  # IdempotentParameterMismatch: it exists
    provider.delete([ref])
    instance = look(provider, order)
    assert instance is not None
    assert (instance.ref, instance.power) == (ref, Power.DEAD)
    assert all(victim.alive for victim in victims)


def test_a_spot_vm_is_found_by_name_despite_its_token(aws: Amazon) -> None:
    provider = aws.provider(spot="only")
    order = make_order(provider)
    ref = provider.create(order)
    aws.cloud.by_id[ref.id].moto.client_token = "0c1f-of-ec2"
    instance = look(provider, order)
    assert instance is not None
    assert instance.ref == ref


def test_our_id_does_not_find_anothers_spot_vm(aws: Amazon) -> None:
    """Of a spot VM the token tells nothing: its tags must."""
    provider = aws.provider(spot="only")
    order = make_order(provider)
    provider.create(replace(order, installation="11111111-2222-4333-8444-555555555555"))
    assert look(provider, order) is None


# --- what does not die at once -------------------------------------------------------------------


def test_a_vm_that_is_shutting_down_is_still_there(aws: Amazon) -> None:
    provider, (ref,) = fleet(aws, 1)
    aws.cloud.by_id[ref.id].stuck = True
    provider.delete([ref])
    (vm,) = swept(provider, lambda page: page.kind is Kind.INSTANCE)
    assert (vm.ref, vm.power, vm.alive) == (ref, Power.STOPPING, True)


@pytest.mark.parametrize("code", ["IncorrectInstanceState", "UnsupportedOperation", "NeverHeardOf"])
def test_whatever_is_wrong_with_one_saves_no_other(aws: Amazon, code: str) -> None:
    provider, refs = fleet(aws, 5)
    aws.cloud.faults.on_request = lambda request: (
        RequestFate(code, 400, "this one cannot be terminated")
        if request.action == "TerminateInstances" and refs[2].id in request.all("InstanceId")
        else None
    )
    outcomes = provider.delete(refs)
    assert [ref for ref, outcome in outcomes.items() if outcome.fate is Fate.FAILED] == [refs[2]]
    assert [machine.id for machine in aws.cloud.alive] == [refs[2].id]


@pytest.mark.parametrize("both", [False, True])
def test_stop_protection_is_lifted_too(aws: Amazon, both: bool) -> None:
    provider, refs = fleet(aws, 3)
    machine = aws.cloud.by_id[refs[1].id]
    machine.stop_protected, machine.protected = True, both
    assert {outcome.fate for outcome in provider.delete(refs).values()} == {Fate.ACCEPTED}
    assert aws.cloud.alive == []


def test_a_delete_keeps_no_other_kind_waiting(aws: Amazon) -> None:
    """While who sweeps ends the machines of a page, all else is listed."""
    provider = aws.provider()
    born(provider, aws.site.subnets[0])
    pages = provider.sweep()
    while (page := next(pages)).kind is not Kind.INSTANCE:
        pass
    assert page.resources
    others = {"DescribeVolumes", "DescribeImages"}
    wait_for(lambda: others <= {request.action for request in aws.cloud.requests})
    assert {page.kind for page in pages} > {Kind.DISK, Kind.IMAGE}
