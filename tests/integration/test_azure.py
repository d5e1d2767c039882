"""The azure driver at the local Azure: birth, life, death, and what is left."""

from __future__ import annotations

from typing import Any

import pytest
from vmrunner_localclouds.azure import NO_ROOM_IN_ZONE, fixtures, price

from tests.support.azure import INSTALLATION, Microsoft, look, make_order, swept
from tests.support.azure import azure as azure  # the fixture
from vmrunner.errors import BadOrder
from vmrunner.model import Fate, Finding, Key, Kind, Level, Market, Power, Ref, Role, Spec
from vmrunner.providers import Arms, Parks, registry
from vmrunner.providers.azure import deadline_schedules, guard
from vmrunner.providers.azure.describe import SETTLED


def of(found: list[Finding], check: str) -> Finding:
    return next(finding for finding in found if finding.check == check)


def test_a_driver_that_parks_and_arms_says_so(azure: Microsoft) -> None:
    driver = registry.find("azure")
    assert driver is not None
    assert driver.parks
    assert isinstance(azure.provider(), Parks)
    assert isinstance(azure.provider(), Arms)


def test_offers_go_by_market_type_and_zone(azure: Microsoft) -> None:
    provider = azure.provider(machine_types=("Standard_D4s_v5", "Standard_D2s_v5"), spot="prefer")
    offers = [(o.market, o.machine_type, o.place) for o in provider.offers(Spec())]
    assert offers == [
        (market, size, f"westeurope-{zone}")
        for market in (Market.SPOT, Market.ON_DEMAND)
        for size in ("Standard_D4s_v5", "Standard_D2s_v5")
        for zone in "12"
    ]
    (large,) = {o.machine_type for o in provider.offers(Spec(cpus=3))}
    assert large == "Standard_D4s_v5"
    (anywhere,) = azure.provider(zones=()).offers(Spec())
    assert anywhere.place == "westeurope"
    with pytest.raises(BadOrder, match="none of Standard_D2s_v5"):
        azure.provider().offers(Spec(cpus=64))
    with pytest.raises(BadOrder, match="none of Standard_D2ps_v5"):  # it is for another processor
        azure.provider(machine_types=("Standard_D2ps_v5",)).offers(Spec())


def test_a_size_that_nobody_may_have_is_left_out(azure: Microsoft) -> None:
    azure.cloud.restricted.add(("westeurope", "Standard_D4s_v5"))
    provider = azure.provider(machine_types=("Standard_D4s_v5", "Standard_D2s_v5"))
    assert {o.machine_type for o in provider.offers(Spec())} == {"Standard_D2s_v5"}
    finding = of(list(provider.check()), "machine types")
    assert (finding.level, "Standard_D4s_v5" in finding.message) == (Level.WARNING, True)


def test_a_vm_with_a_place_is_two_calls(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    before = len(azure.cloud.requests)
    provider.create(order)
    made = [request.action for request in azure.cloud.requests[before:]]
    assert made == ["virtualMachines.put", "virtualMachines.get"]


def test_all_of_a_vm_dies_with_it(azure: Microsoft) -> None:
    azure.cloud.delete_seconds = 30
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    kinds = {r.ref.kind for r in swept(provider)}
    assert kinds == {Kind.INSTANCE, Kind.DISK, Kind.INTERFACE, Kind.ADDRESS}
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED
    dying = look(provider, order, ref)
    assert dying is not None
    assert dying.power is Power.STOPPING
    azure.clock.advance(30)
    dead = look(provider, order, ref)
    assert dead is not None
    assert (dead.power, dead.preempted) == (Power.DEAD, False)
    assert swept(provider) == []
    assert provider.delete([ref])[ref].fate is Fate.MISSING
    assert azure.cloud.rejected == []


@pytest.mark.parametrize(
    ("address", "expands"), [("public", True), ("public", False), ("private", True)]
)
def test_it_is_reached_at_its_address(azure: Microsoft, address: str, *, expands: bool) -> None:
    azure.cloud.boot_seconds = 100
    azure.cloud.expands = expands
    provider = azure.provider(address=address)
    order = make_order(provider)
    ref = provider.create(order)
    booting = look(provider, order, ref)
    assert booting is not None
    assert (booting.power, booting.address) == (Power.PENDING, None)
    azure.clock.advance(100)
    up = look(provider, order, ref)
    assert up is not None
    assert up.power is Power.RUNNING
    assert up.address is not None
    assert up.address.host.startswith("10.8." if address == "private" else "198.18.")
    assert azure.cloud.count("publicIPAddresses.get") == (not expands)
    before = azure.cloud.count("networkInterfaces.get")
    look(provider, order, ref)
    assert azure.cloud.count("networkInterfaces.get") == before  # it is known


def test_what_was_never_seen_may_be_a_newborn(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    missing = Ref(order.offer.scope, Kind.INSTANCE, order.instance)
    assert look(provider, order, missing) is None
    ref = provider.create(order)
    assert look(provider, order) is not None
    azure.clock.advance(SETTLED)
    azure.machine.vanish()
    gone = look(provider, order, ref)
    assert gone is not None
    assert gone.power is Power.DEAD
    assert look(azure.provider(), order, ref) is None  # another process saw nothing


def test_a_guest_that_switches_itself_off_lives_and_bills(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    azure.machine.power_off()
    off = look(provider, order, ref)
    assert off is not None
    assert (off.power, off.self_ended, off.address) == (Power.STOPPED, False, None)
    assert azure.machine.billed
    assert [r.alive for r in swept(provider) if r.ref.kind is Kind.INSTANCE] == [True]


def test_a_spot_vm_that_azure_took_back_is_told(azure: Microsoft) -> None:
    provider = azure.provider(spot="only")
    taken, ended = make_order(provider), make_order(provider)
    refs = provider.create(taken), provider.create(ended)
    for order, ref in zip((taken, ended), refs, strict=True):
        assert look(provider, order, ref) is not None
    (machine,) = azure.cloud.of(taken.instance)
    machine.evict()
    provider.delete([refs[1]])
    azure.clock.advance(60)
    sights = [look(provider, o, r) for o, r in zip((taken, ended), refs, strict=True)]
    assert [(s.power, s.preempted) for s in sights if s] == [
        (Power.DEAD, True),
        (Power.DEAD, False),
    ]
    assert swept(provider) == []


def test_of_many_those_that_change_are_asked(azure: Microsoft, monkeypatch: Any) -> None:
    monkeypatch.setattr("vmrunner.providers.azure.describe.VIEWS", 2)
    provider = azure.provider()
    orders = [make_order(provider) for _ in range(5)]
    keys = [Key(o.offer.scope, o.instance, provider.create(o).id) for o in orders]
    with monkeypatch.context() as busy:
        busy.setattr("vmrunner.providers.azure.client.AzureClient.spare", lambda _: 0)
        assert len(azure.provider().look(keys)) == 2
    assert provider.look(keys).keys() == set(keys)  # there are reads enough for all newborns
    before = azure.cloud.count("virtualMachines.get")
    (machine,) = azure.cloud.of(orders[4].instance)
    machine.power_off()
    sights = [provider.look(keys)[keys[4]].power for _ in range(3)]
    assert sights[-1] is Power.STOPPED  # in its turn
    assert azure.cloud.count("virtualMachines.get") == before + 6
    machine.vanish()
    azure.clock.advance(SETTLED)
    assert any(
        keys[4] in (s := provider.look(keys)) and s[keys[4]].power is Power.DEAD for _ in range(4)
    )


def test_a_deadline_is_armed_and_disarmed(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    armed = provider.arm(ref, order.instance, order.deadline)
    assert armed is not None
    assert armed.kind is Kind.SCHEDULE
    azure.clock.advance(order.deadline + deadline_schedules.AFTER - azure.clock() - 1)
    assert azure.machine.billed
    azure.clock.advance(120)
    azure.cloud.settle()
    assert not azure.machine.billed
    assert azure.machine.alive  # its disk and its address are for the reaper
    provider.delete([ref])
    assert provider.delete([armed])[armed].fate is not Fate.FAILED
    other = make_order(provider)
    living = provider.create(other)
    schedule = provider.arm(living, other.instance, other.deadline)
    assert schedule is not None
    assert provider.delete([schedule])[schedule].fate is Fate.ACCEPTED
    azure.clock.advance(3600)
    (machine,) = azure.cloud.of(other.instance)
    assert machine.billed


def test_many_deadlines_are_disarmed_by_one_call(azure: Microsoft) -> None:
    provider = azure.provider()
    orders = [make_order(provider) for _ in range(3)]
    armed = [
        provider.arm(provider.create(order), order.instance, order.deadline) for order in orders
    ]
    schedules = [ref for ref in armed if ref is not None]
    outcomes = provider.delete(schedules)
    assert [outcomes[ref].fate for ref in schedules] == [Fate.ACCEPTED] * 3
    assert azure.cloud.count("virtualMachinesCancelOperations") == 1
    azure.clock.advance(7200)
    azure.cloud.settle()
    assert all(azure.cloud.of(order.instance)[0].billed for order in orders)


def test_an_ephemeral_disk_is_where_there_is_room(azure: Microsoft) -> None:
    provider = azure.provider(machine_types=("Standard_D2ds_v5",), os_disk="ephemeral")
    order = make_order(provider)
    ref = provider.create(order)
    assert azure.machine.ephemeral
    assert {r.ref.kind for r in swept(provider)} == {Kind.INSTANCE, Kind.INTERFACE, Kind.ADDRESS}
    assert provider.arm(ref, order.instance, order.deadline) is None
    assert "disk" not in " ".join(provider.bill(order.offer, Role.BUILD).on)
    large = make_order(provider, Spec(disk=200 << 30))
    provider.create(large)
    assert not azure.cloud.of(large.instance)[0].ephemeral
    assert "disk" in " ".join(provider.bill(large.offer, Role.BUILD).on)
    waiting = make_order(provider, pool="fast")
    provider.create(waiting)
    assert not azure.cloud.of(waiting.instance)[0].ephemeral
    for role in (Role.POOL, Role.IMAGE):
        assert "disk" in " ".join(provider.bill(waiting.offer, role).on)


@pytest.mark.parametrize(
    ("cache", "gib", "wanted"), [(50, 40, "CacheDisk"), (50, 60, None), (5, 10, "ResourceDisk")]
)
def test_an_ephemeral_disk_is_told_where_it_fits(
    azure: Microsoft, monkeypatch: pytest.MonkeyPatch, cache: int, gib: int, wanted: str | None
) -> None:
    """Left to itself, Azure takes the cache where there is one, however small."""
    size = "Standard_D2s_v3"
    monkeypatch.setitem(fixtures.SIZES, size, fixtures.SIZES[size]._replace(cache=cache))
    provider = azure.provider(machine_types=(size,), os_disk="ephemeral")
    provider.create(make_order(provider, Spec(disk=gib << 30)))
    disk = azure.machine.shown["properties"]["storageProfile"]["osDisk"]
    assert disk.get("diffDiskSettings", {}).get("placement") == wanted


def test_leftovers_of_a_forgetful_cloud_are_swept(azure: Microsoft) -> None:
    azure.cloud.keeps_children = {
        "Microsoft.Compute/disks",
        "Microsoft.Network/networkInterfaces",
        "Microsoft.Network/publicIPAddresses",
    }
    azure.cloud.disks_inherit_tags = False
    provider = azure.provider()
    ref = provider.create(make_order(provider))
    provider.delete([ref])
    leftovers = swept(provider)
    assert {r.ref.kind for r in leftovers} == {Kind.DISK, Kind.INTERFACE, Kind.ADDRESS}
    assert all(r.tag("installation") == INSTALLATION for r in leftovers)
    outcomes = provider.delete([r.ref for r in leftovers])
    assert Fate.FAILED not in {outcome.fate for outcome in outcomes.values()}
    assert swept(provider) == []


def test_the_serial_log_is_read_where_azure_says(azure: Microsoft) -> None:
    provider = azure.provider()
    ref = provider.create(make_order(provider))
    azure.machine.serial = b"x" * 100_000 + b"the end\xff\n"
    log = provider.console(ref)
    assert log.endswith("the end\ufffd\n")
    assert len(log) <= 64 << 10


def test_prices_are_told(azure: Microsoft) -> None:
    azure.cloud.prices += [
        price("westeurope", "Standard_D2s_v5", 0.1),
        price("westeurope", "Standard_D2s_v5", 0.03, skuName="D2s v5 Spot"),
        price("northeurope", "Standard_D2s_v5", 0.9),
    ]
    provider = azure.provider()
    (scope,) = provider.scopes
    assert provider.told_prices() == {scope: {"Standard_D2s_v5": 0.1, "Standard_D2s_v5 spot": 0.03}}


def test_the_doctor_refuses_a_group_of_others(azure: Microsoft) -> None:
    provider = azure.provider()
    assert [f.level for f in provider.check() if f.check == "group"] == [Level.OK]
    azure.cloud.disk(azure.site.group, "data")
    (bad,) = [f for f in provider.check() if f.check == "group" and f.level is Level.ERROR]
    assert "disk data" in bad.message
    assert bad.fix


def test_the_doctor_tells_a_quota_that_is_used_up(azure: Microsoft) -> None:
    azure.cloud.quotas["westeurope"]["cores"] = 1
    findings = [
        f for f in azure.provider().check() if f.check == "quota" and f.level is Level.ERROR
    ]
    assert ["cores 0 of 1" in finding.message for finding in findings] == [True]


def test_a_group_that_is_not_there_is_told(azure: Microsoft) -> None:
    provider = azure.provider(resource_group="nowhere")
    (finding,) = provider.check()
    assert (finding.check, finding.level) == ("group", Level.ERROR)
    with pytest.raises(BadOrder, match="ResourceGroupNotFound"):
        provider.offers(Spec())


def test_a_mistyped_group_hides_no_former_one(azure: Microsoft) -> None:
    former = azure.provider()
    order = make_order(former)
    ref = former.create(order)
    provider = azure.provider(resource_group="nowhere", used=(azure.site.group,))
    assert ref.scope in provider.scopes
    assert ref in {found.ref for found in swept(provider)}
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED


def test_a_subscription_that_is_not_there_is_no_scope(azure: Microsoft) -> None:
    provider = azure.provider(subscription="00000000-0000-4000-8000-00000000000f")
    assert provider.scopes == frozenset()
    assert all(page.error for page in provider.sweep())


def test_what_is_parked_boots_again(azure: Microsoft) -> None:
    azure.cloud.stop_seconds, azure.cloud.boot_seconds = 30, 10
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    azure.clock.advance(10)
    provider.park(ref)
    assert azure.machine.state == "deallocating"  # accepted, and not waited for
    azure.clock.advance(30)
    off = look(provider, order, ref)
    assert off is not None
    assert off.power is Power.STOPPED
    assert not azure.machine.billed
    provider.wake(ref)
    azure.clock.advance(10)
    up = look(provider, order, ref)
    assert up is not None
    assert up.address is not None


def test_a_wake_without_room_is_refused(azure: Microsoft) -> None:
    from vmrunner.errors import NoCapacity

    provider = azure.provider()
    ref = provider.create(make_order(provider))
    provider.park(ref)
    azure.clock.advance(60)
    azure.cloud.faults.fail("virtualMachines.start", NO_ROOM_IN_ZONE)
    with pytest.raises(NoCapacity):
        provider.wake(ref)


def test_the_guard_is_seen_with_the_roles_it_ends(azure: Microsoft) -> None:
    assert azure.provider().guarded_roles() is None
    provider = azure.provider()
    provider.offers(Spec())
    assert [f.level for f in provider.unguarded()] == [Level.WARNING]
    provider = azure.provider(guard="guards")
    provider.offers(Spec())
    assert provider.guarded_roles() is None
    assert [f.level for f in provider.unguarded()] == [Level.ERROR]
    azure.cloud.group("guards")
    tags = {guard.ROLES: "build, pool, image"}
    name, now = guard.name_of(INSTALLATION), azure.clock()
    app = azure.cloud.site("guards", name, last_pass=now, tags=tags)
    assert provider.guarded_roles() == {"build", "pool", "image"}
    assert provider.unguarded() == ()
    app["properties"]["state"] = "Stopped"
    assert provider.guarded_roles() is None
    (finding,) = provider.unguarded()
    assert "Stopped" in finding.message
