"""The fake cloud lies exactly as it is told to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.contract.drivers import make_order
from vmrunner.errors import BadOrder, NoCapacity, Throttled, Uncertain
from vmrunner.model import Fate, Key, Kind, Power, Resource
from vmrunner.providers.fake import SCOPE, Clock, Cloud, FakeProvider, Fault


@pytest.fixture
def cloud() -> Cloud:
    return Cloud(Clock())


@pytest.fixture
def provider(cloud: Cloud) -> FakeProvider:
    return FakeProvider("fake", cloud)


def shown(provider: FakeProvider) -> list[Resource]:
    return [r for page in provider.sweep() for r in page.resources]


@pytest.mark.parametrize(
    ("fault", "error", "count"),
    [
        (Fault.LOST_REQUEST, Uncertain, 0),
        (Fault.SERVER_ERROR, Uncertain, 0),
        (Fault.LOST_RESPONSE, Uncertain, 1),
        (Fault.THROTTLE, Throttled, 0),
        (Fault.NO_CAPACITY, NoCapacity, 0),
    ],
)
def test_a_fault_hits_one_call(cloud, provider, fault, error, count) -> None:
    order = make_order(provider)
    cloud.fail("create", fault)
    with pytest.raises(error):
        provider.create(order)
    assert len(cloud.machines) == count
    provider.create(order)
    assert len(cloud.machines) == 1


def test_a_late_request_arrives_when_nobody_waits_any_more(cloud, provider) -> None:
    cloud.fail("create", Fault.LATE, seconds=30)
    with pytest.raises(Uncertain):
        provider.create(make_order(provider))
    assert shown(provider) == []
    cloud.clock.advance(30)
    assert len(shown(provider)) == 1


def test_the_same_id_with_other_parameters_is_not_the_same(cloud, provider) -> None:
    order = make_order(provider)
    provider.create(order)
    with pytest.raises(Uncertain):
        provider.create(replace(order, user_data=b"other"))


def test_a_token_may_be_forgotten(cloud, provider) -> None:
    cloud.token_seconds = 60
    order = make_order(provider)
    assert provider.create(order) == provider.create(order)
    cloud.clock.advance(61)
    provider.create(order)
    assert len(cloud.of(order.instance)) == 2


def test_newborns_are_hidden_and_a_delete_does_not_find_them(cloud, provider) -> None:
    cloud.visibility_lag = 10
    order = make_order(provider)
    ref = provider.create(order)
    key = Key(SCOPE, order.instance)
    assert provider.look([key]) == {}
    assert provider.delete([ref])[ref].fate is Fate.MISSING
    cloud.clock.advance(10)
    assert provider.look([key])[key].power is Power.RUNNING


def test_newborns_flicker_for_a_while(cloud, provider) -> None:
    cloud.unsteady = 10
    key = Key(SCOPE, (order := make_order(provider)).instance)
    provider.create(order)
    assert {key in provider.look([key]) for _ in range(50)} == {True, False}
    assert {len(cloud.visible(SCOPE, Kind.INSTANCE)) for _ in range(50)} == {0, 1}
    cloud.clock.advance(10)
    assert all(key in provider.look([key]) for _ in range(50))


def test_the_stubborn(cloud, provider) -> None:
    refs = {n: provider.create(make_order(provider)) for n in ("protected", "stuck", "never", "ok")}
    machines = {name: cloud.machines[ref] for name, ref in refs.items()}
    machines["protected"].protected = True
    machines["stuck"].stuck = True
    machines["never"].undeletable = True
    outcomes = provider.delete(list(refs.values()))
    fates = {name: outcomes[ref].fate for name, ref in refs.items()}
    assert fates == {
        "protected": Fate.FAILED,
        "stuck": Fate.ACCEPTED,
        "never": Fate.FAILED,
        "ok": Fate.ACCEPTED,
    }
    cloud.clock.advance(1000)
    assert {r.ref for r in shown(provider)} == {refs["protected"], refs["stuck"], refs["never"]}
    provider.delete(list(refs.values()), force=True)
    assert {r.ref for r in shown(provider)} == {refs["never"]}


def test_a_delete_may_come_to_nothing(cloud, provider) -> None:
    cloud.delete_seconds = 5
    ref = provider.create(make_order(provider))
    cloud.machines[ref].reverts = 1
    provider.delete([ref])
    assert not cloud.machines[ref].alive
    cloud.clock.advance(5)
    assert shown(provider)
    assert cloud.machines[ref].alive


def test_disks_stay_when_told_to(cloud, provider) -> None:
    cloud.disks = cloud.disks_stay = True
    ref = provider.create(make_order(provider))
    (disk,) = [r for r in shown(provider) if r.ref.kind is Kind.DISK]
    assert disk.parent == ref
    assert provider.delete([disk.ref])[disk.ref].error == "in use"
    provider.delete([ref])
    (disk,) = shown(provider)
    assert disk.parent is None
    provider.delete([disk.ref])
    assert shown(provider) == []


def test_ends_of_guests(cloud, provider) -> None:
    order = make_order(provider)
    machine = cloud.machines[provider.create(order)]
    cloud.poweroff_kills = False
    cloud.power_off(machine)
    key = Key(SCOPE, order.instance)
    assert provider.look([key])[key].power is Power.STOPPED
    cloud.preempt(machine)
    assert provider.look([key])[key].preempted
    cloud.clock.advance(machine.tombstone)
    assert provider.look([key]) == {}


def test_deadlines_of_the_cloud_and_of_the_guest(cloud, provider) -> None:
    cloud.guest_timer = 0.0
    lively, hung = (cloud.machines[provider.create(make_order(provider))] for _ in range(2))
    hung.hung = True
    cloud.clock.advance(700)
    assert [m.died_at is None for m in (lively, hung) if cloud.settle() is None] == [False, True]
    cloud.native_deadline = True
    third = cloud.machines[provider.create(make_order(provider))]
    third.hung = True
    cloud.clock.advance(700)
    cloud.settle()
    assert third.died_at is not None


def test_pages_fail_in_part_and_zones_as_a_whole(cloud) -> None:
    provider = FakeProvider("fake", cloud, page_size=2)
    for _ in range(5):
        provider.create(make_order(provider))
    pages = [p for p in provider.sweep() if p.kind is Kind.INSTANCE]
    assert [(len(p.resources), p.more) for p in pages] == [(2, True), (2, True), (1, False)]
    cloud.fail("sweep", Fault.OK, Fault.PARTIAL_PAGE)
    pages = [p for p in provider.sweep() if p.kind is Kind.INSTANCE]
    assert [(len(p.resources), p.error) for p in pages] == [(2, None), (1, "partial")]
    cloud.unreachable.add(SCOPE)
    assert all(page.error for page in provider.sweep())
    with pytest.raises(Uncertain):
        provider.create(make_order(provider))


def test_a_scope_may_change_under_a_provider(cloud, provider) -> None:
    order = make_order(provider)
    ref = provider.create(order)
    other = SCOPE._replace(account="another")
    provider.scopes = [other]
    assert provider.look([Key(SCOPE, order.instance)]) == {}
    assert provider.delete([ref])[ref].fate is Fate.FAILED
    assert shown(provider) == []
    with pytest.raises(BadOrder):
        provider.create(make_order(FakeProvider("x", cloud)))


def test_calls_are_counted_and_may_be_judged_one_by_one(cloud, provider) -> None:
    cloud.on_call = lambda call: Fault.THROTTLE if call.method == "create" else None
    with pytest.raises(Throttled):
        provider.create(make_order(provider))
    cloud.on_call = None
    cloud.skew = 3600
    assert provider.now() == cloud.clock() + 3600
    assert cloud.counts["create"] == 1
