"""The azure driver at a local Azure whose requests fail."""

from __future__ import annotations

import pytest
from vmrunner_localclouds.azure import (
    AFTER_ALL,
    COMPUTE_THROTTLED,
    CONFLICT,
    FORBIDDEN,
    GARBAGE,
    HALF_MADE,
    INTERNAL,
    INVALID,
    LOST_ANSWER,
    LOST_REQUEST,
    NO_ROOM,
    NO_ROOM_IN_ZONE,
    NO_SKU,
    NOT_REGISTERED,
    OVERCONSTRAINED,
    QUOTA,
    QUOTA_LATER,
    THROTTLED,
    UNHEARD_GUEST,
    FailedLater,
    RequestFate,
)

from tests.support.azure import Microsoft, look, make_order, swept
from tests.support.azure import azure as azure  # the fixture
from vmrunner.errors import (
    BadOrder,
    CredentialsRefused,
    NoCapacity,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Uncertain,
)
from vmrunner.lib.token_bucket import FIRST_PAUSE, LONGEST_TOLD
from vmrunner.model import Fate, Kind, Level, Market, Power, Scope, Spec
from vmrunner.providers.azure.provider import KIND
from vmrunner.providers.azure.sweep import READERS

PUT = "virtualMachines.put"
NO_SPOT = RequestFate(
    "AzureSpotFeatureNotEnabledForSubscription",
    400,
    "Subscription not enabled with Azure Spot Virtual Machine feature.",
)


@pytest.mark.parametrize(
    ("fate", "kind"),
    [
        (NO_SKU, NoCapacity),
        (QUOTA, QuotaExceeded),
        (THROTTLED, Throttled),
        (COMPUTE_THROTTLED, Throttled),
        (FORBIDDEN, CredentialsRefused),
        (NOT_REGISTERED, CredentialsRefused),
        (INVALID, BadOrder),
        (INTERNAL, Uncertain),
        (LOST_REQUEST, Uncertain),
        (NO_ROOM, NoCapacity),
        (NO_ROOM_IN_ZONE, NoCapacity),
        (OVERCONSTRAINED, NoCapacity),
        (QUOTA_LATER, QuotaExceeded),
    ],
)
def test_a_create_that_fails_is_told_in_our_words(
    azure: Microsoft, fate: RequestFate | FailedLater, kind: type[ProviderError]
) -> None:
    provider = azure.provider()
    order = make_order(provider)
    azure.cloud.faults.fail(PUT, fate)
    with pytest.raises(kind):
        provider.create(order)
    azure.clock.advance(60)
    assert [r.ref for r in swept(provider) if r.ref.kind is Kind.INSTANCE] == []


TIMED_OUT = RequestFate("RequestTimeout", 408, "nobody knows", happens=True)


@pytest.mark.parametrize("fate", [LOST_ANSWER, AFTER_ALL, TIMED_OUT])
def test_an_order_sent_again_is_one_vm(azure: Microsoft, fate: RequestFate) -> None:
    provider = azure.provider()
    order = make_order(provider)
    azure.cloud.faults.fail(PUT, fate)
    with pytest.raises(Uncertain):
        provider.create(order)
    ref = provider.create(order)
    assert azure.provider().create(order) == ref
    assert len(azure.cloud.alive) == 1


def test_a_conflict_is_looked_at(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    azure.cloud.faults.fail(PUT, CONFLICT)
    with pytest.raises(Uncertain, match="not there"):
        provider.create(order)
    ref = provider.create(order)
    azure.cloud.faults.fail(PUT, CONFLICT)
    assert provider.create(order) == ref
    shown = azure.machine.shown  # names of tags may come in another case
    shown["tags"] = {name.upper(): value for name, value in shown["tags"].items()}
    assert provider.create(order) == ref


def test_anothers_vm_of_that_name_is_none_of_ours(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    provider.create(order)
    azure.machine.shown["tags"]["vmrunner:build"] = "another"
    with pytest.raises(Uncertain, match="not of this order"):
        provider.create(order)


def test_a_zone_without_room_is_left_out_for_a_while(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    azure.cloud.dry.add(("Standard_D2s_v5", "1", "on-demand"))
    with pytest.raises(NoCapacity):
        provider.create(order)
    assert [o.place for o in provider.offers(Spec())] == ["westeurope-2"]
    other = make_order(provider)
    ref = provider.create(other)
    assert look(provider, other, ref) is not None
    assert [m.instance for m in azure.cloud.alive] == [other.instance]
    azure.clock.advance(121)
    assert provider.offers(Spec())[0].place == "westeurope-1"


def test_a_full_subnet_is_a_lack_of_room(azure: Microsoft) -> None:
    """Each VM that ends gives its address back: nothing is wrong with the order."""
    (subnet,) = azure.cloud.resource(azure.site.network)["properties"]["subnets"]  # type: ignore[index]
    subnet["properties"]["addressPrefix"] = "10.8.0.0/29"
    provider = azure.provider(zones=())
    for _ in range(3):
        provider.create(make_order(provider))
    with pytest.raises(NoCapacity, match="SubnetIsFull"):
        provider.create(make_order(provider))
    azure.cloud.rejected.clear()


def test_who_may_have_no_spot_gets_on_demand(azure: Microsoft) -> None:
    """As in a free or sponsored subscription: no size of that market is tried again at once."""
    provider = azure.provider(spot="prefer", machine_types=("Standard_D4s_v5", "Standard_D2s_v5"))
    order = make_order(provider)
    assert order.offer.market is Market.SPOT
    azure.cloud.faults.fail(PUT, NO_SPOT)
    with pytest.raises(NoCapacity, match="not enabled"):
        provider.create(order)
    assert {offer.market for offer in provider.offers(Spec())} == {Market.ON_DEMAND}


def test_a_create_half_made_leaves_what_a_sweep_finds(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    azure.cloud.faults.fail(PUT, HALF_MADE)
    with pytest.raises(ProviderError):
        provider.create(order)
    leftovers = swept(provider)
    assert {r.ref.kind for r in leftovers} >= {Kind.DISK, Kind.INTERFACE, Kind.ADDRESS}
    assert {r.instance for r in leftovers} == {order.instance}
    azure.clock.advance(600)
    provider.delete([r.ref for r in leftovers])
    azure.clock.advance(60)
    assert swept(provider) == []


def test_what_azure_calls_failed_may_run(azure: Microsoft) -> None:
    azure.cloud.operation_seconds = 300
    provider = azure.provider()
    order = make_order(provider)
    azure.cloud.faults.fail(PUT, UNHEARD_GUEST)
    ref = provider.create(order)
    azure.clock.advance(600)
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.power is Power.RUNNING
    assert seen.address is not None


def test_one_that_cannot_be_deleted_blocks_no_other(azure: Microsoft) -> None:
    provider = azure.provider()
    refs = [provider.create(make_order(provider)) for _ in range(3)]
    azure.cloud.faults.fail("virtualMachines.delete", FORBIDDEN)
    outcomes = provider.delete(refs)
    assert sorted(outcome.fate for outcome in outcomes.values()) == [
        Fate.ACCEPTED,
        Fate.ACCEPTED,
        Fate.FAILED,
    ]
    azure.clock.advance(60)
    assert len(azure.cloud.alive) == 1


def test_a_kind_that_cannot_be_listed_is_incomplete_alone(azure: Microsoft) -> None:
    provider = azure.provider()
    provider.create(make_order(provider))
    azure.cloud.faults.deny("disks.list")
    pages = list(provider.sweep())
    assert {page.kind for page in pages if page.error} == {Kind.DISK}
    assert {r.ref.kind for p in pages for r in p.resources} == {
        Kind.INSTANCE,
        Kind.INTERFACE,
        Kind.ADDRESS,
    }


def test_neither_look_nor_delete_asks_who_we_are(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    azure.cloud.faults.deny("virtualMachines.list")
    fresh = azure.provider()
    assert look(fresh, order, ref) is not None
    assert fresh.delete([ref])[ref].fate is Fate.ACCEPTED


def test_who_may_not_delete_launches_nothing(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    azure.cloud.faults.deny("virtualMachines.delete")
    fresh = azure.provider()
    for launch in (lambda: fresh.offers(Spec()), lambda: fresh.create(order)):
        with pytest.raises(CredentialsRefused, match="may not delete what it would launch"):
            launch()
    assert azure.cloud.machines == []
    findings = {f.check: f for f in fresh.check()}
    assert (findings["delete"].level, bool(findings["delete"].fix)) == (Level.ERROR, True)
    assert findings["image"].level is Level.OK  # one that fails hinders no other
    azure.cloud.faults.allow("virtualMachines.delete")
    azure.clock.advance(31)  # a denial is asked about anew
    assert fresh.create(order).id == order.instance


def test_rights_that_cannot_be_told_hinder_nothing(azure: Microsoft) -> None:
    azure.cloud.faults.deny("permissions.list")
    provider = azure.provider()
    provider.create(make_order(provider))
    finding = next(f for f in provider.check() if f.check == "delete")
    assert finding.level is Level.WARNING


def test_a_failed_look_is_no_death(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    assert look(provider, order, ref) is not None
    azure.cloud.faults.fail("virtualMachines.get", INTERNAL)
    with pytest.raises(Uncertain):
        look(provider, order, ref)
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.power is Power.RUNNING


def test_who_may_not_list_ends_what_is_known(azure: Microsoft) -> None:
    ref = azure.provider().create(make_order(azure.provider()))
    azure.cloud.faults.deny("virtualMachines.list")
    later = azure.provider()
    assert ref.scope in later.scopes
    assert later.delete([ref])[ref].fate is Fate.ACCEPTED
    with pytest.raises(CredentialsRefused):
        later.offers(Spec())


@pytest.mark.parametrize("state", ["Failed", "Blocked", "Cancelled"])
def test_a_schedule_that_will_not_fire_is_none(azure: Microsoft, state: str) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    azure.cloud.schedules_become = state
    with pytest.raises(ProviderError, match=state):
        provider.arm(ref, order.instance, order.deadline)


LISTS = tuple(
    f"{kind}.list"
    for kind in (
        *("virtualMachines", "disks", "networkInterfaces", "publicIPAddresses"),
        *("snapshots", "images"),
    )
)


@pytest.mark.parametrize("denied", [(), LISTS], ids=["asked", "denied"])
def test_a_deleted_group_is_read_whole_and_empty(azure: Microsoft, denied: tuple[str, ...]) -> None:
    """The rights that were given in a group go with it."""
    provider = azure.provider()
    provider.create(make_order(provider))
    azure.cloud.remove_group(azure.site.group)
    azure.cloud.faults.deny(*denied)
    for reader in (provider, azure.provider()):
        assert reader.scopes == {Scope(KIND, azure.cloud.subscription, azure.site.group)}
        pages = list(reader.sweep())
        assert {page.kind for page in pages} == {kind for kind, *_ in READERS}
        assert not [page for page in pages if page.error or page.resources]
        whole = {page.kind: not page.more for page in pages}  # by the last page of each
        assert set(whole.values()) == {True}
    with pytest.raises(ProviderError):
        azure.provider().offers(Spec())


@pytest.mark.parametrize("again", [FORBIDDEN, INTERNAL, GARBAGE._replace(status=404)])
def test_a_group_that_may_be_there_is_not_empty(azure: Microsoft, again: RequestFate) -> None:
    provider = azure.provider()
    azure.cloud.remove_group(azure.site.group)
    azure.cloud.faults.fail("resourceGroups.get", *[again] * len(LISTS))
    assert {page.kind for page in provider.sweep() if page.error} == {k for k, *_ in READERS}


def test_a_group_made_again_is_read_by_its_lists(azure: Microsoft) -> None:
    """Its new lists let nobody in: nothing of it can be told."""
    provider = azure.provider()
    azure.cloud.remove_group(azure.site.group)
    azure.cloud.group(azure.site.group)
    azure.cloud.faults.deny(*LISTS)
    assert all(page.error for page in provider.sweep())
    azure.cloud.faults.allow(*LISTS)
    assert not any(page.error for page in provider.sweep())


def test_a_scope_that_denies_lists_is_asked_once(azure: Microsoft) -> None:
    azure.cloud.faults.deny("virtualMachines.list")
    provider = azure.provider()
    for _ in range(5):
        assert provider.scopes
    assert azure.cloud.count("virtualMachines.list") == 1


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("40", 40.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", FIRST_PAUSE),  # that is past
        ("86400", LONGEST_TOLD),
        ("-5", FIRST_PAUSE),
        ("soon", FIRST_PAUSE),
    ],
)
def test_a_throttled_call_is_made_again_when_azure_says(
    azure: Microsoft, header: str, pause: float
) -> None:
    provider = azure.provider()
    refs = [provider.create(make_order(provider)) for _ in range(2)]
    azure.cloud.throttle_seconds = header
    azure.cloud.faults.fail("virtualMachines.delete", THROTTLED)
    assert provider.delete(refs[:1])[refs[0]].fate is Fate.FAILED
    assert azure.cloud.count("virtualMachines.delete") == 1  # the SDK sends none again
    then = azure.clock()
    while provider.delete(refs[:1])[refs[0]].fate is Fate.FAILED:
        azure.clock.advance(1)
    assert pause <= azure.clock() - then <= pause + 2
    assert azure.cloud.count("virtualMachines.delete") == 2


def test_a_pause_holds_no_other_kind_of_call_up(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    azure.cloud.throttle_seconds = "300"
    azure.cloud.faults.fail(PUT, THROTTLED)
    with pytest.raises(Throttled):
        provider.create(make_order(provider))
    then = azure.clock()
    assert look(provider, order, ref) is not None
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED
    assert azure.clock() == then


def test_nothing_is_sent_that_nobody_asked_for(azure: Microsoft) -> None:
    """The SDK would register providers in the subscription, and wait for that without end."""
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    submit = "virtualMachinesSubmitDeallocate"
    azure.cloud.faults.fail(submit, NOT_REGISTERED)
    before = len(azure.cloud.requests)
    with pytest.raises(CredentialsRefused, match="az provider register"):
        provider.arm(ref, order.instance, order.deadline)
    assert [request.action for request in azure.cloud.requests[before:]] == [submit]


def test_a_create_that_takes_long_leaves_others_their_reads(azure: Microsoft) -> None:
    """Of 250, and 25 a second more, which looks and sweeps need: 64 creates wait at once."""
    azure.cloud.operation_seconds = 20
    azure.cloud.poll_seconds = 0.0
    provider = azure.provider()
    order = make_order(provider)
    azure.cloud.faults.fail(PUT, NO_ROOM)
    before, then = len(azure.cloud.requests), azure.clock()
    with pytest.raises(NoCapacity):
        provider.create(order)
    assert azure.clock() - then < 26
    reads = [request for request in azure.cloud.requests[before:] if request.verb == "GET"]
    assert len(reads) <= 17
