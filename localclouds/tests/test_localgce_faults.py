"""The local GCE where it fails: requests, operations, capacity, quotas, clients that ask twice."""

from __future__ import annotations

import uuid

import pytest
import requests
from google.api_core import exceptions
from google.auth.exceptions import InvalidOperation
from google.cloud import compute_v1
from vmrunner_localclouds.gce import (
    AFTER_ALL,
    BAD_GATEWAY,
    FORBIDDEN,
    GARBAGE,
    INTERNAL,
    INVALID,
    LOST_ANSWER,
    LOST_REQUEST,
    NOT_CONFIGURED,
    NOT_FOUND,
    QUOTA,
    QUOTA_LATER,
    STOCKOUT,
    THROTTLED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    BrokenOperation,
    RequestFate,
)

from tests.support.gce import Google, google, refused
from tests.support.gce import gce as gce  # the fixture

HOST = "https://www.googleapis.com"


def test_the_same_request_is_one_machine(gce: Google) -> None:
    gce.cloud.operation_seconds = 5
    key = str(uuid.uuid4())
    first = gce.insert("vm-1", request_id=key)
    assert gce.insert("vm-1", request_id=key).name == first.name
    gce.clock.advance(5)
    assert gce.insert("vm-1", request_id=key).status.name == "DONE"
    assert len(gce.cloud.machines) == 1
    assert refused(lambda: gce.insert("vm-1", request_id=str(uuid.uuid4())))[0] == 409
    # Its machine may be long gone: the request is not made again.
    gce.delete("vm-1")
    assert gce.insert("vm-1", request_id=key).name == first.name
    assert gce.cloud.alive == []
    gce.clock.advance(gce.cloud.token_seconds)
    gce.insert("vm-1", request_id=key)
    assert len(gce.cloud.alive) == 1


@pytest.mark.parametrize("key", [str(uuid.UUID(int=0)), "vm-1"])
def test_a_request_id_is_a_uuid(gce: Google, key: str) -> None:
    got = refused(lambda: gce.insert("vm-1", request_id=key))
    assert (got[0], "requestId" in got[2]) == (400, True)


def test_a_request_that_failed_at_once_is_not_remembered(gce: Google) -> None:
    key = str(uuid.uuid4())
    assert refused(lambda: gce.insert("vm-1", request_id=key, disks=[]))[0] == 400
    gce.insert("vm-1", request_id=key)
    assert len(gce.cloud.alive) == 1


@pytest.mark.parametrize("remains", [False, True])
def test_no_capacity_is_an_operation_that_fails(gce: Google, remains: bool) -> None:
    gce.cloud.operation_seconds = 5
    gce.cloud.dry.add(("e2-standard-2", gce.zone, "on-demand"))
    gce.cloud.stockout_remains = remains
    key = str(uuid.uuid4())
    operation = gce.insert("vm-1", request_id=key)
    assert gce.get("vm-1").status == "PROVISIONING"
    done = gce.wait(operation)
    assert done.error.errors[0].code == "ZONE_RESOURCE_POOL_EXHAUSTED"
    assert (done.status.name, done.http_error_status_code) == ("DONE", 503)
    if remains:
        assert gce.get("vm-1").status == "TERMINATED"
        assert len(gce.cloud.disks) == 1
    else:
        assert refused(lambda: gce.get("vm-1"))[0] == 404
        assert gce.cloud.disks == []
    assert "RUNNING" not in gce.machine.history
    assert gce.insert("vm-1", request_id=key).error.errors
    gce.insert("vm-2", scheduling={"provisioning_model": "SPOT"})


def test_an_operation_fails_on_demand(gce: Google) -> None:
    gce.cloud.faults.fail("instances.insert", STOCKOUT, QUOTA_LATER, None)
    codes = [gce.wait(gce.insert("vm-1")).error.errors[0].code for _ in range(2)]
    assert codes == ["ZONE_RESOURCE_POOL_EXHAUSTED", "QUOTA_EXCEEDED"]
    gce.wait(gce.insert("vm-1"))
    gce.cloud.faults.fail(
        "instances.delete", BrokenOperation("INTERNAL_ERROR", "It is stuck.", 500)
    )
    done = gce.wait(gce.delete("vm-1"))
    assert done.error.errors[0].code == "INTERNAL_ERROR"
    assert gce.get("vm-1").status == "RUNNING"


@pytest.mark.parametrize("later", [False, True])
def test_quotas(gce: Google, later: bool) -> None:
    gce.cloud.quotas[gce.site.region]["CPUS"] = 3.0
    gce.cloud.quota_in_operation = later
    gce.insert("vm-1")
    if later:
        error = gce.wait(gce.insert("vm-2")).error.errors[0]
        assert (error.code, "CPUS" in error.message) == ("QUOTA_EXCEEDED", True)
    else:
        assert refused(lambda: gce.insert("vm-2"))[:2] == (403, "quotaExceeded")
    assert len(gce.cloud.alive) == len(gce.cloud.disks) == 1
    regions = gce.client(compute_v1.RegionsClient)
    shown = regions.get(project=gce.project, region=gce.site.region, retry=None)
    quotas = {quota.metric: (quota.usage, quota.limit) for quota in shown.quotas}
    assert quotas["CPUS"] == (2, 3)
    assert quotas["IN_USE_ADDRESSES"][0] == quotas["INSTANCES"][0] == 1
    assert quotas["DISKS_TOTAL_GB"][0] == 10
    project = gce.client(compute_v1.ProjectsClient).get(project=gce.project, retry=None)
    assert {quota.metric: quota.usage for quota in project.quotas}["CPUS_ALL_REGIONS"] == 2


def test_spot_has_its_own_quota_where_there_is_one(gce: Google) -> None:
    limits = gce.cloud.quotas[gce.site.region]
    limits.update(CPUS=2.0, PREEMPTIBLE_CPUS=2.0)
    gce.insert("vm-1")
    gce.insert("vm-2", scheduling={"provisioning_model": "SPOT"})
    spot = refused(lambda: gce.insert("vm-3", scheduling={"provisioning_model": "SPOT"}))
    assert (spot[1], "PREEMPTIBLE_CPUS" in spot[2]) == ("quotaExceeded", True)


@pytest.mark.parametrize(
    "trouble",
    [
        BAD_GATEWAY,
        FORBIDDEN,
        INTERNAL,
        INVALID,
        NOT_CONFIGURED,
        NOT_FOUND,
        QUOTA,
        THROTTLED,
        UNAVAILABLE,
    ],
)
def test_a_request_fails_on_demand(gce: Google, trouble: RequestFate) -> None:
    gce.cloud.faults.fail("instances.insert", trouble)
    assert refused(lambda: gce.insert("vm-1"))[:2] == (trouble.status, trouble.code)
    assert gce.cloud.machines == []
    gce.insert("vm-1")


def test_what_happens_all_the_same(gce: Google) -> None:
    gce.cloud.faults.fail("instances.insert", AFTER_ALL, LOST_ANSWER, LOST_REQUEST, GARBAGE)
    assert refused(lambda: gce.insert("vm-1"))[0] == 500
    for name in ("vm-2", "vm-3"):
        with pytest.raises(requests.exceptions.ConnectionError):
            gce.insert(name)
    with pytest.raises(Exception, match=r"JSON"):
        gce.insert("vm-4")
    assert sorted(m.name for m in gce.cloud.machines) == ["vm-1", "vm-2"]


def test_the_client_asks_again_unless_told_not_to(gce: Google) -> None:
    """Reads after a 503, for up to ten minutes; never a change."""
    gce.cloud.faults.fail("instances.get", UNAVAILABLE)
    with pytest.raises(exceptions.ServiceUnavailable):
        gce.get("vm-1")
    assert gce.cloud.count("instances.get") == 1


def test_who_may_not(gce: Google) -> None:
    gce.insert("vm-1")
    gce.cloud.faults.deny("instances.delete", "instances.insert")
    status, reason, message = refused(lambda: gce.delete("vm-1"))
    assert (status, reason) == (403, "forbidden")
    assert "'compute.instances.delete'" in message
    assert "'compute.instances.create'" in refused(lambda: gce.insert("vm-2"))[2]
    wanted = ["compute.instances.get", "compute.instances.delete", "compute.instances.create"]
    granted = gce.instances.test_iam_permissions(
        project=gce.project,
        zone=gce.zone,
        resource="vm-1",
        test_permissions_request_resource={"permissions": wanted},
        retry=None,
    )
    assert list(granted.permissions) == ["compute.instances.get"]
    gce.cloud.refused[""] = UNAUTHENTICATED
    with pytest.raises(InvalidOperation, match="refreshed"):  # what the client does after a 401
        gce.get("vm-1")


def test_an_operation_is_found_deleted_and_listed(gce: Google) -> None:
    gce.cloud.operation_seconds = 5
    operation = gce.insert("vm-1")
    where = {"project": gce.project, "zone": gce.zone, "operation": operation.name}
    assert gce.operations.get(request=where, retry=None).status.name == "RUNNING"
    by_number = {**where, "operation": str(operation.id)}
    assert gce.operations.get(request=by_number, retry=None).name == operation.name
    gce.clock.advance(5)
    assert gce.operations.get(request=where, retry=None).progress == 100
    # Its answer is empty, on which the client's own method stumbles.
    answer = requests.delete(operation.self_link.replace(HOST, gce.cloud.url), timeout=10)
    assert (answer.status_code, answer.content) == (204, b"")
    assert refused(lambda: gce.operations.get(request=where, retry=None))[0] == 404
    every = gce.client(compute_v1.GlobalOperationsClient)
    assert not [
        o for _, part in every.aggregated_list(project=gce.project) for o in part.operations
    ]


def test_an_answer_takes_its_time_and_tells_the_time(gce: Google) -> None:
    gce.cloud.skew = 100.0
    gce.cloud.answer_seconds["projects.get"] = 7.0
    before = gce.clock()
    answer = requests.get(f"{gce.cloud.url}/compute/v1/projects/{gce.project}", timeout=10)
    assert gce.clock() - before == 7
    assert answer.headers["Date"] == "Fri, 15 Jan 2027 08:01:47 GMT"


def test_a_wait_ends_at_once_where_no_time_passes() -> None:
    with google() as gce:
        gce.cloud.sleep = lambda _: None
        gce.cloud.operation_seconds = 5
        assert gce.wait(gce.insert("vm-1")).status.name == "RUNNING"


def test_two_clouds_are_two_projects(gce: Google) -> None:
    with google(project="another") as other:
        other.insert("vm-1")
        assert gce.cloud.machines == []
