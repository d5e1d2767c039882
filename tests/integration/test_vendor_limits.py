"""Each line of the vendors' own limits, as the local clouds know them: a request that ignores it is
refused there, and what our drivers send keeps within it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from tests.support.ec2 import Amazon
from tests.support.ec2 import aws as aws  # the fixture
from tests.support.ec2 import make_order as ec2_order
from tests.support.gce import Google
from tests.support.gce import gce as gce  # the fixture
from tests.support.gce import make_order as gce_order
from vmrunner.errors import BadOrder, Throttled, Uncertain
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.rate_limits import Buckets, Limit, Quota
from vmrunner.providers.ec2 import client as ec2_client
from vmrunner.providers.ec2 import create_request as ec2_request
from vmrunner.providers.ec2 import options as ec2_options
from vmrunner.providers.gce import client as gce_client
from vmrunner.providers.gce import create_request as gce_request
from vmrunner.providers.gce import options as gce_options
from vmrunner.testing.common.faults import GARBAGE, RequestFate
from vmrunner.testing.common.vendor_limits import CallRate, RequestBuckets, VendorLimit
from vmrunner.testing.localec2 import THROTTLED as EC2_THROTTLED
from vmrunner.testing.localec2 import vendor_limits as amazon
from vmrunner.testing.localgce import THROTTLED as GCE_THROTTLED
from vmrunner.testing.localgce import vendor_limits as google

PAGE: Final = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center>"
    b"<h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"
)


# --- bounds of fields: EC2 -----------------------------------------------------------------------


def launched(aws: Amazon, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], object]) -> None:
    """A launch by a driver that asks for what it should not."""
    genuine = ec2_request.request

    def careless(*args: Any) -> Any:
        asked = genuine(*args)
        change(asked)
        return asked

    provider = aws.provider()
    order = ec2_order(provider)
    provider.create(order)  # within all bounds
    monkeypatch.setattr(ec2_request, "request", careless)
    provider.create(ec2_order(provider))


def _tag(asked: Any, key: str, value: str = "") -> None:
    asked["TagSpecifications"][0]["Tags"].append({"Key": key, "Value": value})


AMAZONS: Final[Mapping[str, Callable[[Any], object]]] = {
    "user data, bytes": lambda asked: asked.update(UserData=b"x" * 16385),
    "tags of a resource": lambda asked: [_tag(asked, f"k{n}") for n in range(50)],
    "characters of a tag's key": lambda asked: _tag(asked, "k" * 129),
    "characters of a tag's value": lambda asked: _tag(asked, "k", "v" * 257),
    "characters of a client token": lambda asked: asked.update(ClientToken="t" * 65),
    "hops of a metadata answer": lambda asked: asked["MetadataOptions"].update(
        HttpPutResponseHopLimit=65
    ),
}


@pytest.mark.parametrize("line", amazon.LIMITS)
def test_ec2_refuses_what_is_past_a_line(
    aws: Amazon, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    with pytest.raises(BadOrder):
        launched(aws, monkeypatch, AMAZONS[line])


def test_the_ec2_driver_knows_the_same_bounds() -> None:
    told = {name: limit.value for name, limit in amazon.LIMITS.items()}
    assert told["user data, bytes"] == ec2_request.USER_DATA
    assert told["tags of a resource"] == ec2_options.TAGS
    assert told["characters of a tag's key"] == ec2_options.KEY
    assert told["characters of a tag's value"] == ec2_options.VALUE


# --- bounds of fields: Compute Engine ------------------------------------------------------------

GOOGLES: Final[Mapping[str, Callable[[Any], object]]] = {
    "bytes of a metadata value": lambda made: made["metadata"]["items"].append(
        {"key": "more", "value": "x" * (256 * 1024 + 1)}
    ),
    "labels of a resource": lambda made: made["labels"].update({f"k{n}": "" for n in range(64)}),
    "network tags of a VM": lambda made: made.update(tags={"items": [f"t{n}" for n in range(65)]}),
}


@pytest.mark.parametrize("line", GOOGLES)
def test_gce_refuses_what_is_past_a_line(
    gce: Google, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    genuine = gce_request.instance

    def careless(*args: Any) -> Any:
        made = genuine(*args)
        GOOGLES[line](made)
        return made

    provider = gce.provider()
    provider.create(gce_order(provider))
    monkeypatch.setattr(gce_request, "instance", careless)
    with pytest.raises(BadOrder):
        provider.create(gce_order(provider))


def test_the_gce_driver_knows_the_same_bounds() -> None:
    told = {name: limit.value for name, limit in google.LIMITS.items()}
    assert told["bytes of a metadata value"] == gce_request.USER_DATA
    assert told["labels of a resource"] == gce_options.LABELS


def test_no_line_is_without_a_test() -> None:
    assert AMAZONS.keys() == amazon.LIMITS.keys()
    # An account's description is the guard's: tests/integration/test_guard_life.py leaves one.
    assert GOOGLES.keys() | {"bytes of an account's description"} == google.LIMITS.keys()
    for limit in (*amazon.LIMITS.values(), *google.LIMITS.values()):
        assert limit.page.startswith("https://")
        assert limit.read


# --- calls in a time -----------------------------------------------------------------------------


def limited(cloud: Any, rates: Mapping[str, CallRate], refusal: RequestFate) -> None:
    """Let the cloud refuse what is past its own limits, by its clock."""
    left = RequestBuckets(rates, cloud.now)

    def judge(request: Any) -> RequestFate | None:
        known = request.action in rates
        return refusal if known and not left.take(request.action) else None

    cloud.faults.on_request = judge


#: Of a driver that keeps to no limit.
ENDLESS: Final = Limit(1e9, 1e9)


def test_ec2_is_asked_within_its_rates(aws: Amazon) -> None:
    limited(aws.cloud, amazon.RATES, EC2_THROTTLED)
    provider = aws.provider()
    refs = [provider.create(ec2_order(provider)) for _ in range(20)]
    for ref in refs:
        provider.delete([ref])
    careless = aws.provider()
    endless = dict.fromkeys(ec2_client.QUOTAS, Quota(ENDLESS, ENDLESS))
    careless.calls._buckets = Buckets(endless, now=aws.clock, sleep=aws.clock.sleep)
    with pytest.raises(Throttled):
        [careless.create(ec2_order(careless)) for _ in range(20)]


def test_the_drivers_buckets_are_no_larger_than_the_clouds() -> None:
    for action, kind in (
        ("RunInstances", "run"),
        ("StartInstances", "start"),
        ("TerminateInstances", "terminate"),
        ("DescribeInstances", "describe"),
    ):
        ours, theirs = ec2_client.QUOTAS[kind].calls, amazon.RATES[action]
        assert ours.burst <= theirs.burst.value, action
        assert ours.rate <= theirs.refill.value, action
    for action, kind in (
        ("instances.insert", "write"),
        ("instances.delete", "write"),
        ("instances.get", "read"),
        ("instances.list", "list"),
    ):
        ours, minute = gce_client.QUOTAS[kind].calls, google.RATES[action].burst.value
        assert ours.rate * 60 <= minute, action
        assert ours.burst <= minute, action


def test_gce_is_asked_within_its_rates(gce: Google) -> None:
    """A minute's calls are a tenth of Google's here, and so is what the driver keeps to."""

    def tenth(limit: VendorLimit) -> VendorLimit:
        return limit._replace(value=limit.value / 10)

    rates = {key: CallRate(tenth(r.burst), tenth(r.refill)) for key, r in google.RATES.items()}
    limited(gce.cloud, rates, GCE_THROTTLED)

    def burst(quota: Quota) -> None:
        provider = gce.provider()
        buckets = Buckets(
            {**gce_client.QUOTAS, "read": quota}, now=gce.clock, sleep=gce.clock.sleep
        )
        provider.calls._buckets = buckets
        ref = provider.create(gce_order(provider))
        for _ in range(200):
            provider.calls(gce_client.GET, zone=ref.scope.place, instance=ref.id)

    ours = gce_client.QUOTAS["read"].calls
    burst(Quota(Limit(ours.burst / 10, ours.rate / 10)))
    gce.clock.advance(120)
    with pytest.raises(CallFailed, match="Quota exceeded"):
        burst(Quota(ENDLESS))


# --- a gateway's page ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 403, 502])
def test_a_page_from_ec2s_gateway_is_one_line(
    aws: Amazon, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    provider = aws.provider()
    order = ec2_order(provider)
    fate = GARBAGE._replace(status=status, garbage=PAGE)
    aws.cloud.faults.fail("RunInstances", *[fate] * 8)
    with caplog.at_level(logging.INFO), pytest.raises(Uncertain) as caught:
        provider.create(order)
    _plain(str(caught.value), caplog)


@pytest.mark.parametrize("status", [200, 502])
def test_a_page_from_googles_gateway_is_one_line(
    gce: Google, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    provider = gce.provider()
    order = gce_order(provider)
    ref = provider.create(replace(order))
    fate = GARBAGE._replace(status=status, garbage=PAGE)
    gce.cloud.faults.fail("instances.delete", *[fate] * 8)
    with caplog.at_level(logging.INFO):
        (outcome,) = provider.delete([ref]).values()
    _plain(outcome.error, caplog)


def _plain(message: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line, without markup; and nothing of the SDK's own words beside it."""
    assert len(message.splitlines()) == 1
    assert "<" not in message
    assert not [one for one in caplog.records if one.exc_info or "Traceback" in one.getMessage()]
