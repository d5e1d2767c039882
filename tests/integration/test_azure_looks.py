"""VMs of the azure driver that are not, or not where, they seem."""

from __future__ import annotations

import pytest
from vmrunner_localclouds.azure import COMPUTE_THROTTLED, THROTTLED, RequestFate

from tests.support.azure import Microsoft, look, make_order, swept
from tests.support.azure import azure as azure  # the fixture
from vmrunner.engine.poller import FRESH
from vmrunner.errors import Throttled
from vmrunner.model import Key, Power
from vmrunner.providers import LookPace
from vmrunner.providers.azure.client import QUOTAS
from vmrunner.providers.azure.describe import SETTLED
from vmrunner.providers.azure.provider import PACE, AzureProvider
from vmrunner.providers.common.call_failed import CallFailed

NOT_FOUND = RequestFate("ResourceNotFound", 404, "The Resource was not found.")

TOO_MANY = RequestFate(
    "TooManyRequests",
    429,
    "The request is being throttled as the limit has been reached for operation "
    "'GetVirtualMachine'.",
)


def test_a_newborn_that_one_answer_misses_lives(azure: Microsoft) -> None:
    """Azure's own places learn of a newborn one after the other."""
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    assert look(provider, order, ref) is not None
    azure.cloud.faults.fail("virtualMachines.get", NOT_FOUND)
    assert look(provider, order, ref) is None
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.power is Power.RUNNING


def test_a_newborn_that_somebody_deleted_is_dead_soon(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    assert look(provider, order, ref) is not None
    azure.machine.vanish()
    assert look(provider, order, ref) is None
    azure.clock.advance(SETTLED)
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.power is Power.DEAD


def test_a_newborn_that_we_deleted_is_dead_at_once(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    assert look(provider, order, ref) is not None
    provider.delete([ref])
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.power is Power.DEAD


@pytest.mark.parametrize("many", [False, True])
def test_who_lost_its_tags_is_known_by_its_reference(
    azure: Microsoft, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    """One `az tag create` takes away all that were there."""
    if many:
        monkeypatch.setattr("vmrunner.providers.azure.describe.VIEWS", 0)
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    if many:
        monkeypatch.setattr("vmrunner.providers.azure.describe.VIEWS", 1)
        assert look(provider, order, ref) is not None
    azure.machine.shown["tags"] = {}
    assert look(provider, order, ref) is not None
    assert look(provider, order) is None  # by its name alone it is nobody's


def throttled(azure: Microsoft) -> int:
    """How many requests the local Azure refused as too many."""
    return len(azure.cloud.rates.refused)


def test_a_slow_boot_is_looked_at_within_its_own_limit(azure: Microsoft) -> None:
    """Microsoft's bucket of one VM, which the local Azure keeps: no refusal, and no blindness."""
    azure.cloud.boot_seconds = 100
    provider = azure.provider()
    order = make_order(provider)
    provider.create(order)
    created_at, seen = azure.clock(), None
    while seen is None or seen.address is None:
        azure.clock.advance(0.25)
        seen = look(provider, order)
    assert azure.clock() - created_at <= 106
    assert azure.cloud.count("virtualMachines.get") <= 36 + 100 / 5
    assert throttled(azure) == 0


def test_a_refusal_of_one_vm_pauses_that_one_alone(azure: Microsoft) -> None:
    """Somebody else looks at it too, so that our own count of looks is wrong."""
    azure.cloud.throttle_seconds = 60
    provider = azure.provider()
    orders = [make_order(provider) for _ in range(2)]
    refs = [provider.create(order) for order in orders]
    for order, ref in zip(orders, refs, strict=True):
        assert look(provider, order, ref) is not None
    slow = orders[0].instance
    azure.cloud.faults.on_request = lambda request: (
        TOO_MANY if request.path.name == slow and request.action == "virtualMachines.get" else None
    )
    before = azure.cloud.count("virtualMachines.get")
    for _ in range(4):
        assert look(provider, orders[0], refs[0]) is not None  # as it was
        assert look(provider, orders[1], refs[1]) is not None
    assert azure.cloud.count("virtualMachines.get") == before + 1 + 4
    stranger = make_order(provider)
    azure.cloud.faults.on_request = lambda request: (
        TOO_MANY if request.action == "virtualMachines.get" else None
    )
    with pytest.raises(Throttled) as caught:
        look(provider, stranger)
    assert (caught.value.instance, caught.value.wait) == (stranger.instance, 60)
    assert swept(provider)


def test_a_refusal_of_the_subscription_pauses_all(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    azure.cloud.throttle_seconds = 60
    azure.cloud.faults.fail("virtualMachines.get", THROTTLED)
    before = len(azure.cloud.requests)
    for _ in range(3):
        with pytest.raises(Throttled):
            look(provider, order, ref)
    assert len(azure.cloud.requests) == before + 1


def test_what_compute_says_of_the_subscription_is_of_one_vm(azure: Microsoft) -> None:
    """Microsoft.Compute has one sentence for all its limits, those of one VM too, and it speaks of
    the subscription (Azure/aks-engine issue 2295)."""
    provider = azure.provider()
    orders = [make_order(provider) for _ in range(2)]
    refs = [provider.create(order) for order in orders]
    for order, ref in zip(orders, refs, strict=True):
        assert look(provider, order, ref) is not None
    azure.cloud.throttle_seconds = 60
    azure.cloud.faults.fail("virtualMachines.get", COMPUTE_THROTTLED)
    before = azure.cloud.count("virtualMachines.get")
    for _ in range(3):
        for order, ref in zip(orders, refs, strict=True):
            assert look(provider, order, ref) is not None
    assert azure.cloud.count("virtualMachines.get") == before + 1 + 3
    assert swept(provider)


def test_a_paused_operation_tells_no_signature(azure: Microsoft) -> None:
    """The address of an operation ends with what lets anybody ask for it."""
    provider = azure.provider()
    azure.cloud.throttle_seconds = 60
    azure.cloud.faults.fail("operations.get", TOO_MANY)
    path = f"/subscriptions/{azure.site.subscription}/providers/Microsoft.Compute/locations"
    url = f"{azure.cloud.url}{path}/westeurope/operations/1?api-version=2024-07-01&s=secret"
    errors = []
    for _ in range(2):
        with pytest.raises(CallFailed) as caught:
            provider.client.get(url, action="operations")
        errors.append(str(caught.value.error))
    assert "operations/1: operation is at its limit" in errors[-1]
    assert "secret" not in "".join(errors)


def test_of_many_that_change_each_has_its_own_limit(
    azure: Microsoft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may not be looked at takes no turn from who may."""
    monkeypatch.setattr("vmrunner.providers.azure.describe.VIEWS", 1)
    monkeypatch.setattr("vmrunner.providers.azure.client.AzureClient.spare", lambda _: 0)
    azure.cloud.boot_seconds = 1000
    provider = azure.provider()
    orders = [make_order(provider) for _ in range(2)]
    for order in orders:
        provider.create(order)
    keys = [Key(order.offer.scope, order.instance, None) for order in orders]
    for _ in range(40):
        provider.look(keys[:1])  # until it may be looked at no more
    before = azure.cloud.count("virtualMachines.get")
    for _ in range(5):
        provider.look(keys)
    assert azure.cloud.count("virtualMachines.get") == before + 5
    assert throttled(azure) == 0


def test_the_pace_of_looks_is_within_one_vms_limit() -> None:
    """A minute of the fastest looks, with what the wait for a place takes before, fits in."""
    pace, limit = PACE, QUOTAS["vm get"].calls
    assert isinstance(AzureProvider.look_every, LookPace)
    assert FRESH / pace.fresh <= limit.burst + limit.rate * FRESH
    assert 1 / pace.steady < limit.rate


def test_a_vm_of_a_former_location_is_armed_there(azure: Microsoft) -> None:
    before = azure.provider()
    order = make_order(before)
    ref = before.create(order)
    armed = azure.provider(location="northeurope").arm(ref, order.instance, order.deadline)
    assert armed is not None
    assert armed.id.startswith("westeurope/")
