"""What the configuration dropped while rows are open goes on dying, and nothing is born there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.reaper_inputs import row
from vmrunner.errors import BadOrder, CredentialsRefused, Refused
from vmrunner.model import (
    AllowList,
    Fate,
    InstanceState,
    Key,
    Kind,
    Offer,
    Order,
    Page,
    Ref,
    Role,
    Scope,
    Spec,
)
from vmrunner.providers import LookPace
from vmrunner.providers.fake import SCOPE, Clock, Cloud, FakeMachine, FakeProvider
from vmrunner.providers.retired_providers import (
    RetiredProvider,
    driver_at,
    kept,
    pace_at,
    parts,
    present,
)

ELSEWHERE = Scope("fake", "account", "zone-b")


def driver(cloud: Cloud, *scopes: Scope) -> FakeProvider:
    return FakeProvider("fake", cloud, scopes=scopes)


def planted(cloud: Cloud, scope: Scope) -> FakeMachine:
    return cloud.plant(scope, {"vmrunner:instance": f"vm-{scope.place}"})


def in_scope(scope: Scope, **options: object):
    offer = Offer(scope=scope, machine_type="small", place=scope.place)
    return row(offer=offer, provider="fake", **options)


def order_in(scope: Scope, network: AllowList) -> Order:
    return Order(
        instance="vm-1",
        build="b-1",
        installation="i",
        generation="g",
        role=Role.BUILD,
        offer=Offer(scope=scope, machine_type="small", place=scope.place),
        deadline=1e12,
        user_data=b"",
        network=network,
    )


def test_only_a_provider_with_rows_is_swept_after_its_removal() -> None:
    cloud = Cloud(Clock())
    old = {"fake": driver(cloud, SCOPE)}
    assert kept(old, {}, []) == {}
    assert kept(old, {}, [in_scope(SCOPE, state=InstanceState.GONE)]) == {}
    dropped = kept(old, {}, [in_scope(SCOPE)])["fake"]
    assert dropped.scopes == {SCOPE}
    assert present(dropped) is None
    with pytest.raises(Refused, match="fake is not in the configuration any more"):
        dropped.offers(Spec())
    machine = planted(cloud, SCOPE)
    assert [r.ref for page in dropped.sweep() for r in page.resources] == [machine.ref]
    assert dropped.delete([machine.ref])[machine.ref].fate is Fate.ACCEPTED
    # At the next look nothing is left of it.
    assert kept({"fake": dropped}, {}, []) == {}


def test_an_allow_list_goes_to_who_can_hold_it() -> None:
    cloud = Cloud(Clock())
    able, unable = driver(cloud, SCOPE), driver(cloud, ELSEWHERE)
    unable.holds_allow_lists = False
    network = AllowList(("a.example.org",))
    for former, now in ((able, unable), (unable, able)):
        both = RetiredProvider("fake", (former,), now)
        assert both.holds_allow_lists
        if now is able:
            assert both.offers(Spec(network=network))
        else:
            with pytest.raises(BadOrder, match="cannot hold an allow-list"):
                both.offers(Spec(network=network))
        for scope in (SCOPE, ELSEWHERE):
            order = order_in(scope, network)
            if scope is SCOPE:
                assert both.create(order).scope == SCOPE
            else:
                with pytest.raises(BadOrder, match="cannot hold an allow-list"):
                    both.create(order)


def test_an_account_that_is_unknown_for_a_moment_is_kept() -> None:
    cloud = Cloud(Clock())
    old, rows = driver(cloud, SCOPE), [in_scope(SCOPE)]
    for new in ({}, {"fake": driver(cloud, ELSEWHERE)}):
        old.scopes = ()
        then = kept({"fake": old}, new, rows)
        assert driver_at(then["fake"], SCOPE) is None
        again = kept(then, new, rows)
        old.scopes = (SCOPE,)
        assert driver_at(again["fake"], SCOPE) is old
        assert kept(again, new, rows)["fake"].scopes >= {SCOPE}
        old.scopes = ()
        assert kept(again, new, []) == new
    existing = {"fake": driver(cloud, SCOPE)}
    assert kept({"fake": old}, existing, rows) == existing


def test_a_dropped_provider_is_kept_for_its_former_names_rows() -> None:
    cloud = Cloud(Clock())
    old, rows = {"now": driver(cloud, SCOPE)}, [in_scope(SCOPE)]
    existing = {"fake": driver(cloud, ELSEWHERE)}
    assert kept(old, existing, rows).keys() == {"fake", "now"}
    existing["next"] = driver(cloud, SCOPE)
    assert kept(old, existing, rows) == existing


def test_a_changed_provider_keeps_scopes_with_rows_but_starts_nothing() -> None:
    cloud = Cloud(Clock())
    old, new = driver(cloud, SCOPE), driver(cloud, ELSEWHERE)
    both = kept({"fake": old}, {"fake": new}, [in_scope(SCOPE)])["fake"]
    assert isinstance(both, RetiredProvider)
    assert both.scopes == {SCOPE, ELSEWHERE}
    assert {offer.scope for offer in both.offers(Spec())} == {ELSEWHERE}
    machines = [planted(cloud, scope) for scope in (SCOPE, ELSEWHERE)]
    shown = sorted(r.ref for page in both.sweep() for r in page.resources)
    assert shown == sorted(machine.ref for machine in machines)
    keys = [Key(m.ref.scope, m.tags["vmrunner:instance"], m.ref.id) for m in machines]
    assert both.look(keys).keys() == set(keys)
    foreign = Ref(Scope("fake", "other", "z"), Kind.INSTANCE, "i-1")
    outcomes = both.delete([m.ref for m in machines] + [foreign])
    assert [outcomes[m.ref].fate for m in machines] == [Fate.ACCEPTED] * 2
    assert outcomes[foreign].fate is Fate.FAILED
    # Its rows are closed: the changed provider is all there is.
    assert kept({"fake": both}, {"fake": new}, []) == {"fake": new}


def test_a_page_of_a_scope_that_both_have_comes_once() -> None:
    cloud = Cloud(Clock())
    planted(cloud, SCOPE)
    both = RetiredProvider("fake", [driver(cloud, SCOPE, ELSEWHERE)], driver(cloud, SCOPE))
    assert [page.scope for page in both.sweep() if page.kind is Kind.INSTANCE] == [SCOPE, ELSEWHERE]


@pytest.mark.parametrize("error", [CredentialsRefused("expired token"), KeyError("a bug")])
def test_a_driver_that_fails_hides_and_saves_no_others(error: Exception) -> None:
    class Broken(FakeProvider):
        def fail(self, *_: object, **__: object) -> Any:
            raise error

        sweep = look = delete = fail

    cloud = Cloud(Clock())
    present = Broken("fake", cloud, scopes=(SCOPE,))
    both = RetiredProvider("fake", [driver(cloud, ELSEWHERE)], present)
    hidden, shown = planted(cloud, SCOPE), planted(cloud, ELSEWHERE)
    pages: list[Page] = []
    with pytest.raises(type(error)):
        pages.extend(both.sweep())
    assert [r.ref for page in pages for r in page.resources] == [shown.ref]
    keys = [Key(m.ref.scope, m.tags["vmrunner:instance"], m.ref.id) for m in (hidden, shown)]
    assert both.look(keys).keys() == {keys[1]}
    with pytest.raises(type(error)):  # nobody may take it for an answer
        both.look(keys[:1])
    outcomes = both.delete([hidden.ref, shown.ref])
    assert (outcomes[hidden.ref].fate, outcomes[shown.ref].fate) == (Fate.FAILED, Fate.ACCEPTED)


def test_each_driver_has_its_own_clock_and_scopes() -> None:
    cloud, other = Cloud(Clock()), Cloud(Clock())
    other.clock.advance(3600)
    new, old = driver(other, SCOPE), driver(cloud, SCOPE, ELSEWHERE)
    both = parts("fake", RetiredProvider("fake", [old], new))
    assert list(both) == ["fake", "fake (1)"]
    assert [part.scopes for part in both.values()] == [{SCOPE}, {ELSEWHERE}]
    assert [part.now() for part in both.values()] == [other.now(), cloud.now()]
    first, second = both.values()
    assert {page.scope for page in second.sweep()} == {ELSEWHERE}
    here = planted(other, SCOPE)
    assert second.delete([here.ref])[here.ref].fate is Fate.FAILED
    assert not second.look([Key(SCOPE, here.tags["vmrunner:instance"])])
    assert first.delete([here.ref])[here.ref].fate is Fate.ACCEPTED
    assert parts("fake", new) == {"fake": new}


def test_a_provider_that_comes_back_launches_again() -> None:
    cloud = Cloud(Clock())
    first = driver(cloud, SCOPE)
    dropped = kept({"fake": first}, {}, [in_scope(SCOPE)])
    again = driver(cloud, SCOPE)
    assert kept(dropped, {"fake": again}, [in_scope(SCOPE)]) == {"fake": again}


def test_each_scope_is_looked_at_by_its_own_drivers_pace() -> None:
    cloud = Cloud(Clock())
    former, now = driver(cloud, SCOPE), driver(cloud, ELSEWHERE)
    slow = LookPace(fresh=2.0)
    vars(former)["look_every"] = slow
    both = RetiredProvider("fake", (former,), now)
    assert pace_at(both, SCOPE) == pace_at(former, SCOPE) == slow
    assert pace_at(both, ELSEWHERE) == pace_at(now, ELSEWHERE) == LookPace()
