"""A zone of Compute Engine that is away, or a project that cannot be asked about: what is elsewhere
is seen, and what is past its deadline is ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from vmrunner_localclouds.gce import (
    FORBIDDEN,
    GARBAGE,
    INTERNAL,
    LOST_REQUEST,
    THROTTLED,
    GceRequest,
    RequestFate,
)

from tests.support.gce import Google, make_order
from tests.support.gce import gce as gce  # the fixture
from vmrunner.errors import ProviderError
from vmrunner.model import Fate, Key, Kind, Power, Ref, Spec
from vmrunner.providers.gce.provider import GceProvider


def born(provider: GceProvider, zone: int) -> Ref:
    order = make_order(provider)
    offer = provider.offers(Spec())[zone]
    return provider.create(replace(order, offer=offer))


def key(ref: Ref) -> Key:
    return Key(ref.scope, ref.id, ref.id)


# --- looking -------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [LOST_REQUEST, INTERNAL, THROTTLED, FORBIDDEN, GARBAGE])
def test_a_zone_that_cannot_be_looked_at_hides_no_other(gce: Google, trouble: RequestFate) -> None:
    provider = gce.provider()
    away, near = born(provider, 0), born(provider, 1)
    gce.cloud.faults.on_request = lambda r: (
        trouble if r.path.get("zone") == away.scope.place else None
    )
    assert set(provider.look([key(away), key(near)])) == {key(near)}
    with pytest.raises(ProviderError):
        provider.look([key(away)])


def test_a_look_lists_only_the_ids_it_was_given(
    gce: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.providers.gce.describe.PAGE", 2)
    provider = gce.provider()
    refs = [born(provider, 0) for _ in range(5)]
    gce.cloud.requests.clear()
    assert set(provider.look([key(refs[3])])) == {key(refs[3])}
    assert gce.cloud.count("instances.list") == 1
    monkeypatch.setattr("vmrunner.providers.gce.describe.NAMES", 2)
    assert len(provider.look([key(ref) for ref in refs])) == 5


def test_former_operations_of_a_zone_are_not_read_again(
    gce: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.providers.gce.describe.PAGE", 5)
    provider = gce.provider()
    former = [born(provider, 0) for _ in range(6)]
    provider.delete(former)
    ref = born(provider, 0)
    provider.delete([ref])
    gce.cloud.requests.clear()
    assert provider.look([key(ref)])[key(ref)].power is Power.DEAD
    assert gce.cloud.count("zoneOperations.list") == 1


def test_our_id_on_somebodys_vm_is_not_found_by_name(gce: Google) -> None:
    provider = gce.provider()
    order = make_order(provider)
    for labels in (
        {"vmrunner-instance": order.instance, "vmrunner-role": "build"},
        {"vmrunner-installation": order.installation, "vmrunner-instance": order.instance},
    ):
        gce.insert(order.instance, labels=labels)
        assert provider.look([Key(order.offer.scope, order.instance)]) == {}
        gce.cloud.machines[-1].vanish()


# --- sweeping ------------------------------------------------------------------------------------


def kinds_seen(provider: GceProvider, zone: str) -> tuple[set[Kind], set[Kind]]:
    """The kinds of which something was shown in this zone, and those that are incomplete there."""
    pages = [page for page in provider.sweep() if page.scope.place == zone]
    return (
        {page.kind for page in pages if page.resources},
        {page.kind for page in pages if page.error},
    )


@pytest.mark.parametrize("partial", [True, False])
def test_a_zone_that_is_away_is_the_only_hole(gce: Google, *, partial: bool) -> None:
    """Whether a list over all zones leaves it out or fails with it."""
    provider = gce.provider()
    near, away = born(provider, 0), gce.site.zones[1]
    gce.cloud.partial_lists = partial
    gce.cloud.unreachable.add(f"zones/{away}")
    vms = {Kind.INSTANCE, Kind.DISK}
    assert kinds_seen(provider, near.scope.place) == (vms, set())
    assert kinds_seen(provider, away) == (set(), vms)
    assert gce.cloud.rejected == []  # such as returnPartialSuccess, which is gone


def test_a_broken_list_is_made_again_zone_by_zone(
    gce: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.providers.gce.sweep.PAGE", 2)
    provider = gce.provider()
    refs = {born(provider, zone) for zone in (0, 0, 0, 1)}
    gce.cloud.faults.fail("instances.aggregatedList", None, INTERNAL, INTERNAL)
    pages = [page for page in provider.sweep() if page.kind is Kind.INSTANCE]
    assert {r.ref for page in pages for r in page.resources} == refs
    last = {page.scope: page for page in pages}
    assert all(not page.more and page.error is None for page in last.values())


def test_who_may_not_list_is_not_asked_for_each_zone(gce: Google) -> None:
    provider = gce.provider()
    gce.cloud.faults.deny("instances.aggregatedList")
    list(provider.sweep())
    assert gce.cloud.count("instances.list") == 0


def test_a_silent_place_is_not_asked_for_other_kinds(gce: Google) -> None:
    provider = gce.provider()
    near, away = born(provider, 0), gce.site.zones[1]
    calls: Counter[str] = Counter()

    def silent(request: GceRequest) -> RequestFate | None:
        place = request.path.get("zone", "")
        if not (request.action.endswith("aggregatedList") or place == away):
            return None
        calls[f"{request.action} {place}".strip()] += 1
        gce.clock.advance(30)
        return LOST_REQUEST

    gce.cloud.faults.on_request = silent
    began = gce.clock()
    assert kinds_seen(provider, near.scope.place)[0] == {Kind.INSTANCE, Kind.DISK}
    assert calls == {
        "instances.aggregatedList": 1,
        f"instances.list {away}": 1,
        "addresses.aggregatedList": 1,
    }
    assert gce.clock() - began < 100


# --- the project itself --------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [INTERNAL, LOST_REQUEST, FORBIDDEN])
def test_an_unreadable_project_saves_no_doomed_vm(gce: Google, trouble: RequestFate) -> None:
    ref = born(gce.provider(), 0)
    gce.cloud.faults.on_request = lambda r: trouble if r.action == "projects.get" else None
    provider = gce.provider()  # a process that knows nothing yet
    assert provider.scopes == frozenset()
    with pytest.raises(ProviderError):
        provider.offers(Spec())
    assert ref in {r.ref for page in provider.sweep() for r in page.resources}
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED
    assert gce.cloud.alive == []
