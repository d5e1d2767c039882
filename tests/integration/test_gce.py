"""The Compute Engine driver at the local endpoint: what it asks for, offers, sees and ends."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from vmrunner_localclouds.gce import (
    FORBIDDEN,
    GARBAGE,
    INTERNAL,
    LOST_REQUEST,
    QUOTA,
    QUOTA_LATER,
    STOCKOUT,
    THROTTLED,
    RequestFate,
)

from tests.support.gce import Google, look, make_order, swept
from tests.support.gce import gce as gce  # the fixture
from vmrunner.errors import BadOrder, NoCapacity, ProviderError, QuotaExceeded, Uncertain
from vmrunner.model import Fate, Key, Kind, Market, Power, Spec
from vmrunner.providers.common.cloud_options import GiB
from vmrunner.providers.gce.labels import labels_of
from vmrunner.providers.gce.provider import GceProvider

INSERT = "instances.insert"


def bodies(gce: Google) -> list[Any]:
    return [json.loads(r.body) for r in gce.cloud.requests if r.action == INSERT]


def fleet(gce: Google, count: int) -> tuple[GceProvider, list[Any]]:
    provider = gce.provider()
    return provider, [provider.create(make_order(provider)) for _ in range(count)]


# --- birth ---------------------------------------------------------------------------------------


def test_the_one_call_holds_all_that_marks_and_ends_it(gce: Google) -> None:
    provider = gce.provider(labels={"team": "core"})
    order = make_order(provider)
    ref = provider.create(order)
    (body,) = bodies(gce)
    assert ref.id == body["name"] == order.instance
    labels = {"team": "core", **labels_of(order)}
    (disk,) = body["disks"]
    assert body["labels"] == disk["initializeParams"]["labels"] == labels
    assert labels["vmrunner-expires-at"] == str(int(order.deadline))
    assert disk["autoDelete"] is True
    scheduling = body["scheduling"]
    assert scheduling["instanceTerminationAction"] == "DELETE"
    assert scheduling["automaticRestart"] is False
    assert scheduling["skipGuestOsShutdown"] is True
    assert "terminationTime" in scheduling
    metadata = {item["key"]: item["value"] for item in body["metadata"]["items"]}
    assert metadata == {
        "user-data": order.user_data.decode(),
        "block-project-ssh-keys": "TRUE",
    }
    assert "serviceAccounts" not in body
    assert body["shieldedInstanceConfig"]["enableVtpm"] is True
    assert len(gce.cloud.alive) == len(gce.cloud.disks) == 1


def test_the_native_deadline_alone_ends_the_vm_and_its_disk(gce: Google) -> None:
    provider = gce.provider()
    order = make_order(provider)
    provider.create(order)
    gce.clock.advance(order.deadline - 1 - gce.clock())
    assert len(gce.cloud.alive) == 1
    gce.clock.advance(2)
    assert gce.cloud.alive == []
    assert gce.cloud.disks == []


def test_a_refused_absolute_deadline_becomes_a_relative_one(
    gce: Google,
) -> None:
    text = "Invalid value for field 'resource.scheduling.terminationTime': not supported"
    gce.cloud.faults.fail(INSERT, RequestFate("invalid", 400, text))
    provider = gce.provider()
    order = make_order(provider)
    ref = provider.create(order)
    assert bodies(gce)[-1]["scheduling"]["maxRunDuration"] == {"seconds": "3600"}
    gce.cloud.faults.fail(INSERT, RequestFate("invalid", 400, text))
    assert provider.create(order) == ref
    gce.clock.advance(order.deadline - 1 - gce.clock())
    assert len(gce.cloud.alive) == 1
    gce.clock.advance(3)
    assert gce.cloud.alive == gce.cloud.disks == []


def test_only_the_identical_order_is_the_same_vm(gce: Google) -> None:
    gce.cloud.token_seconds = 60
    provider = gce.provider()
    order = make_order(provider)
    ref = provider.create(order)
    gce.clock.advance(61)  # the request id is forgotten, the name is not
    assert gce.provider().create(order) == ref
    with pytest.raises(Uncertain, match="is not of this order"):
        provider.create(replace(order, build="b-another"))
    assert len(gce.cloud.machines) == 1


def test_preempted_spot_is_deleted_and_operations_tell(gce: Google) -> None:
    gce.cloud.quotas["europe-west1"]["PREEMPTIBLE_CPUS"] = 100
    provider = gce.provider(spot="only")
    order = make_order(provider)
    assert order.offer.market is Market.SPOT
    ref = provider.create(order)
    (body,) = bodies(gce)
    assert body["scheduling"]["provisioningModel"] == "SPOT"
    gce.cloud.machines[0].preempt()
    gce.clock.advance(60)
    seen = look(provider, order, ref)
    assert seen is not None
    assert (seen.power, seen.preempted) == (Power.DEAD, True)


def test_a_guest_that_switches_itself_off_is_seen_still_billing(gce: Google) -> None:
    provider = gce.provider()
    order = make_order(provider)
    ref = provider.create(order)
    gce.cloud.machines[0].power_off()
    gce.clock.advance(1)
    seen = look(provider, order, ref)
    assert seen is not None
    assert (seen.power, seen.self_ended) == (Power.STOPPED, True)
    assert [r.power for r in swept(provider) if r.ref.kind is Kind.INSTANCE] == [Power.STOPPED]
    # Its own deadline is gone with that; the sweep still ends it, with its disk.
    gce.clock.advance(order.deadline + 3600 - gce.clock())
    assert len(gce.cloud.alive) == 1
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED
    assert gce.cloud.alive == gce.cloud.disks == []


def test_private_needs_no_address_and_service_accounts_are_optional(gce: Google) -> None:
    provider = gce.provider(address="private", service_account=gce.site.service_account)
    order = make_order(provider)
    ref = provider.create(order)
    (body,) = bodies(gce)
    assert "accessConfigs" not in body["networkInterfaces"][0]
    assert body["serviceAccounts"][0]["email"] == gce.site.service_account
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.address is not None
    assert seen.address.host.startswith("10.")


# --- what can be had -----------------------------------------------------------------------------


def test_offers_are_types_by_zones_in_their_order(gce: Google) -> None:
    provider = gce.provider(machine_types=("n2-standard-2", "e2-standard-2"))
    offers = provider.offers(Spec())
    assert [(o.machine_type, o.place) for o in offers] == [
        (kind, zone) for kind in ("n2-standard-2", "e2-standard-2") for zone in gce.site.zones[:2]
    ]
    assert len(provider.offers(Spec(spot=True))) == 2 * len(offers)


def test_offers_are_large_enough_or_the_size_is_refused(gce: Google) -> None:
    provider = gce.provider(machine_types=("e2-standard-2", "e2-standard-8"))
    assert {o.machine_type for o in provider.offers(Spec(cpus=4))} == {"e2-standard-8"}
    with pytest.raises(BadOrder, match=r"providers\.google\.machine_types: none of"):
        provider.offers(Spec(cpus=64))
    with pytest.raises(BadOrder, match="needs 10 GiB"):
        provider.offers(Spec(disk=GiB))
    assert provider.offers(Spec(disk=50 * GiB))[0].disk == 50 * GiB


@pytest.mark.parametrize("trouble", [STOCKOUT, QUOTA, QUOTA_LATER])
def test_a_pool_without_room_is_cleared_and_left_out(gce: Google, trouble: RequestFate) -> None:
    provider = gce.provider()
    order = make_order(provider)
    gce.cloud.faults.fail(INSERT, trouble)
    with pytest.raises(NoCapacity if trouble is STOCKOUT else QuotaExceeded):
        provider.create(order)
    assert gce.cloud.alive == gce.cloud.disks == []
    assert [o.place for o in provider.offers(Spec())] == [gce.site.zones[1]]


def test_what_a_failed_insert_leaves_is_cleaned_up(gce: Google) -> None:
    provider = gce.provider()
    order = make_order(provider)
    gce.cloud.dry.add((order.offer.machine_type, order.offer.place, "on-demand"))
    gce.cloud.stockout_remains = True
    with pytest.raises(NoCapacity):
        provider.create(order)
    gce.clock.advance(60)
    assert gce.cloud.alive == gce.cloud.disks == []


# --- looking -------------------------------------------------------------------------------------


def test_a_newborn_that_is_not_visible_is_missing_not_dead(gce: Google) -> None:
    gce.cloud.visibility_lag = 5
    provider = gce.provider()
    order = make_order(provider)
    ref = provider.create(order)
    assert look(provider, order, ref) is None
    assert provider.delete([ref])[ref].fate in (Fate.MISSING, Fate.ACCEPTED)


def test_many_are_looked_at_in_one_call_a_zone(gce: Google) -> None:
    provider, refs = fleet(gce, 9)
    gce.cloud.requests.clear()
    keys = [Key(ref.scope, ref.id, ref.id) for ref in refs]
    assert len(provider.look(keys)) == 9
    assert gce.cloud.count("instances.list") == 1


def test_one_that_lost_its_labels_is_still_there(gce: Google) -> None:
    provider, (ref,) = fleet(gce, 1)
    gce.cloud.machines[0].shown["labels"] = {}
    key = Key(ref.scope, ref.id, ref.id)
    assert provider.look([key])[key].power is Power.RUNNING
    assert ref in {r.ref for page in provider.sweep() for r in page.resources}


def test_an_accepted_delete_is_not_yet_a_death(gce: Google) -> None:
    gce.cloud.delete_seconds = 20
    provider, (ref,) = fleet(gce, 1)
    key = Key(ref.scope, ref.id, ref.id)
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED
    assert provider.look([key])[key].power is Power.STOPPING
    gce.clock.advance(30)
    assert provider.look([key])[key].power is Power.DEAD
    assert provider.look([key._replace(ref=None)]) == {}  # nobody knows that it ever was


def test_where_parts_are_refused_the_whole_is_asked(gce: Google) -> None:
    provider, (ref,) = fleet(gce, 1)
    gce.cloud.faults.fail("instances.list", RequestFate("invalid", 400, "fields: what is that?"))
    key = Key(ref.scope, ref.id, ref.id)
    gce.cloud.requests.clear()
    assert key in provider.look([key])
    assert key in provider.look([key])
    assert gce.cloud.count("instances.list") == 3


@pytest.mark.parametrize("trouble", [LOST_REQUEST, INTERNAL, THROTTLED, FORBIDDEN, GARBAGE])
def test_a_look_that_fails_says_nothing_of_anybody(gce: Google, trouble: RequestFate) -> None:
    provider, (ref,) = fleet(gce, 1)
    gce.cloud.faults.fail("instances.list", trouble)
    with pytest.raises(ProviderError):
        provider.look([Key(ref.scope, ref.id, ref.id)])


def test_an_unreachable_zone_is_incomplete_and_hinders_no_other(gce: Google) -> None:
    provider, (ref,) = fleet(gce, 1)
    away = gce.site.zones[1]
    gce.cloud.unreachable.add(f"zones/{away}")
    pages = list(provider.sweep())
    wrong = {(page.scope.place, page.kind) for page in pages if page.error}
    assert wrong == {(away, Kind.INSTANCE), (away, Kind.DISK)}
    assert ref in {r.ref for page in pages for r in page.resources}


def test_all_pages_are_read_and_failed_ones_are_holes(
    gce: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.providers.gce.sweep.PAGE", 3)
    provider, refs = fleet(gce, 8)
    assert {r.ref for r in swept(provider) if r.ref.kind is Kind.INSTANCE} == set(refs)
    gce.cloud.faults.fail("instances.aggregatedList", None, INTERNAL, INTERNAL)
    gce.cloud.faults.fail("instances.list", *[INTERNAL] * 4)  # zone by zone too
    pages = [page for page in provider.sweep() if page.kind is Kind.INSTANCE]
    assert all(page.error for page in pages if not page.more)
    assert 0 < sum(len(page.resources) for page in pages) < 8


def test_a_kind_that_may_not_be_read_hinders_no_other(gce: Google) -> None:
    provider, _ = fleet(gce, 1)
    gce.cloud.faults.deny("disks.aggregatedList")
    pages = list(provider.sweep())
    assert {page.kind for page in pages if page.error} == {Kind.DISK}
    assert {r.ref.kind for page in pages for r in page.resources} == {Kind.INSTANCE}


def test_what_is_off_or_suspended_or_under_repair_is_alive(gce: Google) -> None:
    provider, _ = fleet(gce, 3)
    for machine, status in zip(
        gce.cloud.machines, ("SUSPENDED", "REPAIRING", "TERMINATED"), strict=True
    ):
        machine.shown["status"] = status
    vms = [r for r in swept(provider) if r.ref.kind is Kind.INSTANCE]
    assert len(vms) == 3
    assert all(r.alive for r in vms)


# --- ending --------------------------------------------------------------------------------------


def test_one_that_may_not_be_deleted_saves_no_other(gce: Google) -> None:
    provider, refs = fleet(gce, 5)
    refused = ("instances.delete", refs[2].id)
    gce.cloud.faults.on_request = lambda r: (
        FORBIDDEN if (r.action, r.path.get("instance")) == refused else None
    )
    outcomes = provider.delete(refs)
    assert {ref for ref, outcome in outcomes.items() if outcome.fate is Fate.FAILED} == {refs[2]}
    assert [m.instance for m in gce.cloud.alive] == [refs[2].id]


def test_a_protected_vm_dies_too(gce: Google) -> None:
    provider, (ref,) = fleet(gce, 1)
    gce.cloud.machines[0].shown["deletionProtection"] = True
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED
    assert gce.cloud.alive == []


def test_a_machine_without_labels_is_seen_to_be_near(gce: Google) -> None:
    provider, refs = fleet(gce, 1)
    gce.cloud.machines[0].shown["labels"] = {}
    gce.insert("somebodys", network_interfaces=[{"network": "global/networks/default"}])
    found = (r for page in provider.sweep() for r in page.resources)
    shown = {r.ref.id: r.near for r in found if r.ref.kind is Kind.INSTANCE}
    assert shown[refs[0].id] == f"subnetwork {gce.site.subnetwork.rpartition('/')[2]}"
    assert shown["somebodys"] == ""


def test_a_delete_again_while_it_dies_is_accepted(gce: Google) -> None:
    gce.cloud.delete_seconds = 20
    provider, (ref,) = fleet(gce, 1)
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED
    gce.clock.advance(60)
    assert provider.delete([ref])[ref].fate is Fate.MISSING


def test_another_project_is_not_touched(gce: Google) -> None:
    provider, (ref,) = fleet(gce, 1)
    far = ref._replace(scope=ref.scope._replace(account="another-project"))
    assert provider.delete([far])[far].fate is Fate.FAILED
    assert provider.look([Key(far.scope, far.id, far.id)]) == {}
    assert len(gce.cloud.alive) == 1


def test_nothing_that_was_ever_sent_is_unknown_to_google(gce: Google) -> None:
    provider, refs = fleet(gce, 2)
    swept(provider)
    provider.check()
    provider.console(refs[0])
    provider.delete(refs)
    assert gce.cloud.rejected == []
