"""The azure driver and answers that are not Azure's: a proxy's, or nonsense."""

from __future__ import annotations

import logging

import pytest
from vmrunner_localclouds.azure import GARBAGE

from tests.support.azure import Microsoft, look, make_order
from tests.support.azure import azure as azure  # the fixture
from vmrunner.errors import Uncertain
from vmrunner.model import Fate, Key, Kind


def test_a_proxys_404_is_no_death(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    assert look(provider, order, ref) is not None
    strange = GARBAGE._replace(status=404)
    azure.cloud.faults.fail("virtualMachines.get", strange)
    with pytest.raises(Uncertain):
        look(provider, order, ref)
    azure.cloud.faults.fail("virtualMachines.delete", strange)
    assert provider.delete([ref])[ref].fate is Fate.FAILED


@pytest.mark.parametrize("body", [b"{}", b"{", b"[]", b"null", b'"Running"'])
def test_an_answer_that_is_no_vm_is_no_death(azure: Microsoft, body: bytes) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    azure.cloud.faults.fail("virtualMachines.get", GARBAGE._replace(status=200, garbage=body))
    with pytest.raises(Uncertain):
        look(provider, order, ref)


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"value": null}', b'{"value": {}}'])
def test_an_answer_that_is_no_list_is_not_empty(azure: Microsoft, body: bytes) -> None:
    fate = GARBAGE._replace(status=200, garbage=body)
    azure.cloud.faults.fail("disks.list", fate, fate)  # a sweep asks twice
    (broken,) = [page for page in azure.provider().sweep() if page.error]
    assert broken.kind is Kind.DISK


def test_a_next_page_elsewhere_is_not_fetched(azure: Microsoft) -> None:
    """With these credentials nobody but Azure is asked."""
    provider = azure.provider()
    page = b'{"value": [], "nextLink": "http://127.0.0.9/subscriptions"}'
    azure.cloud.faults.fail("disks.list", GARBAGE._replace(garbage=page))
    (broken,) = [page for page in provider.sweep() if page.error]
    assert broken.kind is Kind.DISK
    assert "a next page elsewhere" in str(broken.error)


def test_a_gateways_page_is_one_line_and_no_traceback(
    azure: Microsoft, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK logs a traceback of what it cannot read, which stands amid the command's table."""
    provider = azure.provider()
    ref = provider.create(make_order(provider))
    azure.cloud.faults.fail("virtualMachines.delete", GARBAGE._replace(status=502))
    outcome = provider.delete([ref])[ref]
    assert outcome.fate is Fate.FAILED
    assert "502" in outcome.error
    assert "\n" not in outcome.error
    assert caplog.records == []


def test_many_looks_at_once_have_connections_enough(
    azure: Microsoft, caplog: pytest.LogCaptureFixture
) -> None:
    """A pool of ten throws away what more threads bring back: a new handshake each, and a line."""
    caplog.set_level(logging.WARNING, "urllib3")
    azure.cloud.quotas.clear()
    azure.cloud.quotas["westeurope"] = {}
    provider = azure.provider(image=azure.site.version)
    orders = [make_order(provider) for _ in range(30)]
    for order in orders:
        provider.create(order)
    azure.cloud.answer_seconds["virtualMachines.get"] = 0.0
    keys = [Key(order.offer.scope, order.instance, None) for order in orders]
    assert provider.look(keys).keys() == set(keys)
    assert caplog.records == []
    pools = {client._client._pipeline._transport for client in provider.client._clients.values()}
    assert len(pools) == 1
