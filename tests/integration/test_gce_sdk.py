"""What Compute Engine or its SDK does otherwise than one would think: overlapping deletes, waits
that end at once, an SDK that knows too little, disks and images that cannot be had."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vmrunner_localclouds.gce import DELETING, THROTTLED, GceRequest, RequestFate
from vmrunner_localclouds.gce.fixtures import add_machine_type

from tests.support.gce import Google, look, make_order
from tests.support.gce import gce as gce  # the fixture
from vmrunner.errors import BadOrder, ConfigError, Uncertain
from vmrunner.model import Fate, Kind, Power, Spec
from vmrunner.providers.gce import operations
from vmrunner.providers.gce.client import GceApi, GceClient

# --- deletes that overlap ------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [DELETING, THROTTLED], ids=["of one", "in any words"])
def test_deleting_the_dying_is_no_failure_and_delays_nothing(
    gce: Google, trouble: RequestFate
) -> None:
    gce.cloud.delete_seconds = 20
    provider = gce.provider()
    refs = [provider.create(make_order(provider)) for _ in range(2)]
    assert provider.delete(refs[:1])[refs[0]].fate is Fate.ACCEPTED
    gce.cloud.faults.fail("instances.delete", trouble)
    assert provider.delete(refs[:1])[refs[0]].fate is Fate.ACCEPTED
    began = gce.clock()
    assert provider.delete(refs[1:])[refs[1]].fate is Fate.ACCEPTED
    assert gce.clock() == began


@pytest.mark.parametrize(("trouble", "waits"), [(DELETING, False), (THROTTLED, True)])
def test_only_the_projects_limit_slows_down_all_writes(
    gce: Google, trouble: RequestFate, *, waits: bool
) -> None:
    provider = gce.provider()
    refs = [provider.create(make_order(provider)) for _ in range(2)]
    gce.cloud.faults.fail("instances.delete", trouble)
    assert provider.delete(refs[:1])[refs[0]].fate is Fate.FAILED
    began = gce.clock()
    assert provider.delete(refs[1:])[refs[1]].fate is Fate.ACCEPTED
    assert (gce.clock() > began) is waits


def test_a_disk_is_not_taken_for_its_namesake_vm(gce: Google) -> None:
    """Which has its name."""
    gce.cloud.delete_seconds = 20
    provider = gce.provider()
    vm = provider.create(make_order(provider))
    provider.delete([vm])
    gce.cloud.faults.fail("disks.delete", DELETING)
    disk = vm._replace(kind=Kind.DISK)
    assert provider.delete([disk])[disk].fate is Fate.FAILED


# --- operations ----------------------------------------------------------------------------------


def test_a_wait_answered_at_once_is_not_repeated_at_once(gce: Google) -> None:
    gce.cloud.operation_seconds = 10
    provider = gce.provider()
    order = make_order(provider)
    gce.cloud.sleep = lambda _: None  # the server keeps no answer back
    ref = provider.create(order)
    waits = gce.cloud.count("zoneOperations.wait")
    assert 2 <= waits <= 10 / operations.TURN + 1
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.power is Power.RUNNING


def test_an_endless_operation_is_not_waited_for_for_ever(gce: Google) -> None:
    gce.cloud.operation_seconds = 1e6
    provider = gce.provider()
    began = gce.clock()
    with pytest.raises(Uncertain, match="still RUNNING"):
        provider.create(make_order(provider))
    assert gce.clock() - began < operations.UNDER_WAY + 150


# --- the SDK -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("Unknown field for DeleteInstanceRequest: no_graceful_shutdown"), "--upgrade"),
        (TypeError("Parameter to MergeFrom() must be instance of same class"), "MergeFrom"),
    ],
)
def test_an_sdk_too_old_fails_the_call_alone(
    gce: Google, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    provider = gce.provider()
    refs = [provider.create(make_order(provider)) for _ in range(2)]
    client = GceClient._client

    def broken(self: GceClient, service: str) -> Any:
        if service != "Instances":
            return client(self, service)

        class Old:
            def __getattr__(self, _: str) -> Any:
                def call(**__: object) -> None:
                    raise error

                return call

        return Old()

    monkeypatch.setattr(GceClient, "_client", broken)
    for outcome in provider.delete(refs).values():
        assert outcome.fate is Fate.FAILED
        assert message in outcome.error
    assert all(page.error for page in provider.sweep() if page.kind is Kind.INSTANCE)


def test_all_that_is_called_is_known_to_the_sdk() -> None:
    from vmrunner.providers.gce import client as calls

    for api in (api_of for api_of in vars(calls).values() if isinstance(api_of, GceApi)):
        service = getattr(calls.compute_v1, f"{api.service}Client")
        assert callable(getattr(service, api.method)), api
    fields = calls.compute_v1.DeleteInstanceRequest.meta.fields
    assert "no_graceful_shutdown" in fields


# --- what can be had -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine_type", "configured", "disk_type"),
    [
        ("e2-standard-2", None, "pd-balanced"),
        ("n4-standard-2", None, "hyperdisk-balanced"),
        ("e2-standard-2", "pd-ssd", "pd-ssd"),
    ],
)
def test_a_vm_boots_from_a_disk_that_its_type_takes(
    gce: Google, machine_type: str, configured: str | None, disk_type: str
) -> None:
    provider = gce.provider(machine_types=(machine_type,), disk_type=configured)
    provider.create(make_order(provider))
    (disk,) = gce.cloud.disks
    assert disk["type"].endswith(f"/diskTypes/{disk_type}")


@pytest.mark.parametrize(
    "image",
    [
        "projects/debian-cloud/global/images/family/debian-13",
        "https://www.googleapis.com/compute/v1/projects/debian-cloud/global/images/debian-13-v1",
    ],
)
def test_an_image_that_hears_nothing_is_refused_before_it_boots(gce: Google, image: str) -> None:
    gce.cloud.image("debian-13-v1", family="debian-13", project="debian-cloud")
    provider = gce.provider()
    with pytest.raises(BadOrder, match="has no cloud-init"):
        provider.offers(Spec(image=image))
    assert provider.offers(Spec(image=gce.site.image))


def test_images_are_built_on_what_runs_them(gce: Google) -> None:
    from tests.integration.test_guard_deny import WISH

    add_machine_type(gce.cloud, gce.zone, "t2a-standard-1", 1, 4096)["architecture"] = "ARM64"
    bench = gce.provider(machine_types=("t2a-standard-1", "e2-standard-2")).imaging().bench(WISH)
    assert bench.variables["gce_machine_type"] == "e2-standard-2"
    with pytest.raises(ConfigError, match=r"t2a-standard-1: images are made for x86_64"):
        gce.provider(machine_types=("t2a-standard-1",)).imaging().bench(WISH)


def test_filters_quote_what_they_compare(gce: Google) -> None:
    """As Google's documents write values that have dashes."""
    provider = gce.provider()
    ref = provider.create(make_order(provider))
    look(provider, make_order(provider), ref)
    list(provider.check())
    provider.imaging().images()
    requests: list[GceRequest] = [r for r in gce.cloud.requests if "filter" in r.query]
    assert len(requests) >= 3
    assert all('"' in json.dumps(r.query["filter"])[1:-1] for r in requests)
    assert gce.cloud.rejected == []
