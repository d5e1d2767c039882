"""Each line of the vendors' own limits, as the local clouds know them: a request that ignores it is
refused there, and what our drivers send keeps within it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

import pytest
from vmrunner_localclouds.common.faults import GARBAGE
from vmrunner_localclouds.common.vendor_limits import NOT_READ, STORED_COPY
from vmrunner_localclouds.ec2 import vendor_limits as amazon
from vmrunner_localclouds.gce import vendor_limits as google

from tests.support.ec2 import REGION, Amazon
from tests.support.ec2 import aws as aws  # the fixture
from tests.support.ec2 import make_order as ec2_order
from tests.support.gce import Google
from tests.support.gce import gce as gce  # the fixture
from tests.support.gce import make_order as gce_order
from vmrunner.errors import BadOrder, Throttled, Uncertain
from vmrunner.lib.token_bucket import Limit
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.rate_limits import Buckets, Quota
from vmrunner.providers.ec2 import client as ec2_client
from vmrunner.providers.ec2 import create_request as ec2_request
from vmrunner.providers.ec2 import deadline_schedules as schedules
from vmrunner.providers.ec2 import delete, describe_instances
from vmrunner.providers.ec2 import options as ec2_options
from vmrunner.providers.ec2 import resources as ec2_resources
from vmrunner.providers.ec2.client import Ec2Api, Ec2Client
from vmrunner.providers.gce import client as gce_client
from vmrunner.providers.gce import create_request as gce_request
from vmrunner.providers.gce import describe as gce_describe
from vmrunner.providers.gce import options as gce_options

PAGE: Final = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center>"
    b"<h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"
)


# --- bounds of fields: EC2 -----------------------------------------------------------------------


def launched(aws: Amazon, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], object]) -> None:
    """A launch by a driver that asks for what it should not."""
    genuine = ec2_request.request

    def careless(*args: Any) -> Any:
        request = genuine(*args)
        change(request)
        return request

    provider = aws.provider()
    order = ec2_order(provider)
    provider.create(order)  # within all bounds
    monkeypatch.setattr(ec2_request, "request", careless)
    provider.create(ec2_order(provider))


def _tag(request: Any, key: str, value: str = "") -> None:
    request["TagSpecifications"][0]["Tags"].append({"Key": key, "Value": value})


AMAZONS: Final[Mapping[str, Callable[[Any], object]]] = {
    "user data, bytes": lambda request: request.update(UserData=b"x" * 16385),
    "tags of a resource": lambda request: [_tag(request, f"k{n}") for n in range(50)],
    "characters of a tag's key": lambda request: _tag(request, "k" * 129),
    "characters of a tag's value": lambda request: _tag(request, "k", "v" * 257),
    "characters of a client token": lambda request: request.update(ClientToken="t" * 65),
    "hops of a metadata answer": lambda request: request["MetadataOptions"].update(
        HttpPutResponseHopLimit=65
    ),
}


@pytest.mark.parametrize("line", AMAZONS)
def test_ec2_refuses_a_launch_past_a_line(
    aws: Amazon, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    with pytest.raises(BadOrder):
        launched(aws, monkeypatch, AMAZONS[line])


def _schedule(aws: Amazon, calls: Ec2Client, **more: Any) -> None:
    """Arm what our driver arms, with something else in it."""
    genuine = calls.__call__

    def careless(region: str, api: Ec2Api[Any], **request: Any) -> Any:
        return genuine(
            region, api, **(request | more if api == ec2_client.CREATE_SCHEDULE else request)
        )

    provider = aws.provider()
    role = "arn:aws:iam::123456789012:role/ends"
    options = replace(provider.options, scheduler_role=role)
    ref = provider.create(ec2_order(provider))
    when = provider.now() + 3600
    schedules.arm(calls, options, "aws", ref, "vm-careful", when)
    schedules.arm(cast(Ec2Client, careless), options, "aws", ref, "vm-careless", when)


def _filters(calls: Ec2Client, count: int, values: Sequence[str]) -> None:
    filters = [{"Name": f"tag:k{number}", "Values": values} for number in range(count)]
    calls(REGION, ec2_client.VOLUMES, Filters=filters, MaxResults=5)


#: Calls that a driver makes which does not know a line.
CALLS: Final[Mapping[str, Callable[[Amazon, Ec2Client], object]]] = {
    "ids of a termination": lambda _, calls: calls(
        REGION, ec2_client.TERMINATE, InstanceIds=[f"i-{number:08x}" for number in range(1001)]
    ),
    "items of a page": lambda _, calls: calls(REGION, ec2_client.VOLUMES, MaxResults=1001),
    "filters of a request": lambda _, calls: _filters(calls, 51, ["v"]),
    "values of a filter": lambda _, calls: _filters(calls, 1, [f"v{n}" for n in range(201)]),
    "characters of a filter's value": lambda _, calls: _filters(calls, 1, ["v" * 256]),
    "characters of a schedule's name": lambda aws, calls: _schedule(aws, calls, Name="n" * 65),
    "characters of a schedule's group": lambda _, calls: calls(
        REGION, ec2_client.CREATE_GROUP, Name="g" * 65
    ),
    "characters of a schedule's expression": lambda aws, calls: _schedule(
        aws, calls, ScheduleExpression=f"rate({1:>250} minutes)"
    ),
    "schedules of a page": lambda _, calls: calls(REGION, ec2_client.SCHEDULES, MaxResults=101),
}


@pytest.mark.parametrize("line", CALLS)
def test_ec2_refuses_a_call_past_a_line(aws: Amazon, line: str) -> None:
    calls = aws.provider().client
    aws.cloud.throttles = False  # of a size past its bound, which a rate would refuse first
    _filters(calls, 50, [f"{number:0255}" for number in range(200)])  # within all bounds
    with pytest.raises(CallFailed) as caught:
        CALLS[line](aws, calls)
    assert isinstance(caught.value.error, BadOrder)
    assert "Not" not in caught.value.code  # refused for its size, and not for what it names


def test_the_ec2_driver_knows_the_same_bounds() -> None:
    limits = {name: limit.value for name, limit in amazon.LIMITS.items()}
    assert limits["user data, bytes"] == ec2_request.USER_DATA
    assert limits["tags of a resource"] == ec2_options.TAGS
    assert limits["characters of a tag's key"] == ec2_options.KEY
    assert limits["characters of a tag's value"] == ec2_options.VALUE
    assert limits["ids of a termination"] >= delete.DELETE_BATCH
    assert limits["items of a page"] == ec2_resources.PAGE
    assert limits["values of a filter"] == describe_instances.FILTER
    assert limits["schedules of a page"] == schedules.PAGE


# --- bounds of fields: Compute Engine ------------------------------------------------------------

GOOGLES: Final[Mapping[str, Callable[[Any], object]]] = {
    "bytes of a metadata value": lambda made: made["metadata"]["items"].append(
        {"key": "more", "value": "x" * (256 * 1024 + 1)}
    ),
    "bytes of all metadata": lambda made: made["metadata"]["items"].extend(
        {"key": f"more{number}", "value": "x" * (256 * 1024 - 5)} for number in range(2)
    ),
    "characters of a metadata key": lambda made: made["metadata"]["items"].append(
        {"key": "k" * 129, "value": ""}
    ),
    "characters of a VM's name": lambda made: made.update(name="v" * 64),
    "labels of a resource": lambda made: made["labels"].update({f"k{n}": "" for n in range(64)}),
    "characters of a label's key": lambda made: made["labels"].update({"k" * 64: ""}),
    "characters of a label's value": lambda made: made["labels"].update(k="v" * 64),
    "network tags of a VM": lambda made: made.update(tags={"items": [f"t{n}" for n in range(65)]}),
    "characters of a network tag": lambda made: made.update(tags={"items": ["t" * 64]}),
    "seconds of a VM's shortest run": lambda made: _run(made, 29),
    "seconds of a VM's longest run": lambda made: _run(made, 120 * 86_400 + 1),
}


def _run(made: Any, seconds: int) -> None:
    del made["scheduling"]["termination_time"]
    made["scheduling"]["max_run_duration"] = {"seconds": seconds}


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


def test_gce_refuses_a_page_past_its_line(gce: Google) -> None:
    provider = gce.provider()
    provider.client(gce_client.LIST, zone=gce.zone, max_results=500)
    with pytest.raises(CallFailed, match="maxResults"):
        provider.client(gce_client.LIST, zone=gce.zone, max_results=501)


def test_the_gce_driver_knows_the_same_bounds() -> None:
    limits = {name: limit.value for name, limit in google.LIMITS.items()}
    assert limits["items of a page"] == gce_describe.PAGE
    assert limits["seconds of a VM's shortest run"] == gce_request.SHORTEST
    assert limits["bytes of a metadata value"] == gce_request.USER_DATA
    assert limits["labels of a resource"] == gce_options.LABELS


def test_no_line_is_without_a_test() -> None:
    assert AMAZONS.keys() | CALLS.keys() == amazon.LIMITS.keys()
    # An account's description is the guard's: tests/integration/test_guard_life.py leaves one.
    elsewhere = {"bytes of an account's description", "items of a page"}
    assert GOOGLES.keys() | elsewhere == google.LIMITS.keys()
    for limit in (*amazon.LIMITS.values(), *google.LIMITS.values(), *google.RATES.values()):
        assert limit.page.startswith("https://")
        assert limit.read in (STORED_COPY, NOT_READ)


# --- calls in a time -----------------------------------------------------------------------------

#: Of a driver that keeps to no limit.
ENDLESS: Final = Limit(1e9, 1e9)


def careless(aws: Amazon) -> Ec2Client:
    """A client that keeps to no limit, of a cloud that has some."""
    endless = dict.fromkeys(ec2_client.QUOTAS, Quota(ENDLESS, ENDLESS))
    calls = aws.provider().client
    calls._buckets = Buckets(endless, now=aws.clock, sleep=aws.clock.sleep)
    return calls


def test_ec2_is_asked_within_its_rates(aws: Amazon) -> None:
    provider = aws.provider()
    refs = [provider.create(ec2_order(provider)) for _ in range(20)]
    for ref in refs:
        provider.delete([ref])
    endless = aws.provider()
    endless.client._buckets = careless(aws)._buckets
    with pytest.raises(Throttled):
        [endless.create(ec2_order(endless)) for _ in range(20)]


@pytest.mark.parametrize(
    ("api", "params", "burst"),
    [
        (ec2_client.VOLUMES, {"MaxResults": 5}, 100),
        (ec2_client.VOLUMES, {}, 50),
        (ec2_client.NAMED_INSTANCES, {"InstanceIds": ["i-00000001"]}, 50),
        (ec2_client.DELETE_VOLUME, {"VolumeId": "vol-00000001"}, 100),
        (ec2_client.DELETE_KEY, {"KeyName": "k"}, 50),
        (ec2_client.CREATE_GROUP, {"Name": "g"}, 10),
        (ec2_client.DELETE_SCHEDULE, {"Name": "s"}, 250),
    ],
)
def test_ec2_refuses_calls_past_a_burst(
    aws: Amazon, api: Ec2Api[Any], params: dict[str, Any], burst: int
) -> None:
    calls = careless(aws)

    def throttled() -> bool:
        try:
            calls(REGION, api, **params)
        except CallFailed as failed:
            return isinstance(failed.error, Throttled)
        return False

    assert [throttled() for _ in range(burst + 1)].index(True) == burst


def test_ec2_counts_the_instances_of_its_calls(aws: Amazon) -> None:
    calls = careless(aws)
    ids = [f"i-{number:08x}" for number in range(1000)]
    with pytest.raises(CallFailed, match="NotFound"):
        calls(REGION, ec2_client.TERMINATE, InstanceIds=ids)
    with pytest.raises(CallFailed, match="Request limit exceeded"):
        calls(REGION, ec2_client.TERMINATE, InstanceIds=ids[:21])
    aws.clock.advance(1.1)
    with pytest.raises(CallFailed, match="NotFound"):
        calls(REGION, ec2_client.TERMINATE, InstanceIds=ids[:21])


def test_each_call_of_ec2s_driver_keeps_its_rate() -> None:
    apis = [api for api in vars(ec2_client).values() if isinstance(api, Ec2Api)]
    for api in apis:
        bounded = api.quota != "named"
        rate = amazon.rate_of(api.service, api.action, bounded=bounded)
        ours, instances = ec2_client.QUOTAS[api.quota]
        if rate is not None:
            assert ours.burst <= rate.burst.value, api.action
            assert ours.rate <= rate.refill.value, api.action
        if (most := amazon.INSTANCES.get(api.action)) is not None:
            assert instances is not None, api.action
            assert instances.burst <= most.burst.value, api.action
            assert instances.rate <= most.refill.value, api.action
    assert {api.action for api in apis} > amazon.INSTANCES.keys()


def test_each_call_of_googles_driver_keeps_its_rate() -> None:
    """A bucket gives its burst, and what came back since, in one minute of Google's."""
    apis = [api for api in vars(gce_client).values() if isinstance(api, gce_client.GceApi)]
    for api in apis:
        group = google.group_of(api.action)
        ours = gce_client.QUOTAS[api.quota].calls
        if group is not None:
            assert ours.burst + 60 * ours.rate <= google.RATES[group].value, api.action
    assert {google.group_of(api.action) for api in apis} > google.RATES.keys()


def test_gce_is_asked_within_its_rates(gce: Google) -> None:
    """A minute's calls are a tenth of Google's here, and so is what the driver keeps to."""
    for group, limit in google.RATES.items():
        gce.cloud.rates.rates[group] = limit._replace(value=limit.value / 10)

    def burst(quota: Quota) -> None:
        provider = gce.provider()
        buckets = Buckets(
            {**gce_client.QUOTAS, "read": quota}, now=gce.clock, sleep=gce.clock.sleep
        )
        provider.client._buckets = buckets
        ref = provider.create(gce_order(provider))
        gce.clock.advance(60 - gce.cloud.now() % 60)  # a minute begins, and the bucket is full
        for _ in range(200):
            provider.client(gce_client.GET, zone=ref.scope.place, instance=ref.id)

    ours = gce_client.QUOTAS["read"].calls
    burst(Quota(Limit(ours.burst / 10, ours.rate / 10)))
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
    assert not [
        record for record in caplog.records if record.exc_info or "Traceback" in record.getMessage()
    ]
