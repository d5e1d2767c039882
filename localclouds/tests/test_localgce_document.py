"""Google's document holds for the local GCE's requests and answers, and for answers that were
recorded from the real service: those that apache-libcloud ships with its own tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Final

import pytest
import requests
from google.cloud import compute_v1
from vmrunner_localclouds.gce import BrokenOperation, discovery, routes, validation
from vmrunner_localclouds.gce.timestamps import written

from tests.support.gce import Google, google
from tests.support.gce import gce as gce  # the fixture

RECORDED: Final = files("libcloud") / "test" / "compute" / "fixtures" / "gce"

HOST: Final = "https://www.googleapis.com"

#: Recorded answers that are not as Google's document has it today, and why.
OUTDATED: Final = {
    "id": "libcloud's authors made up the number: it is none, or more than 64 bits",
    "getResourceId": "a key that a Java client wrote into the recorded answer",
    "maintenanceWindows": "zones no longer tell of these",
    "scratchDisks": "machine types no longer tell of these",
    "status": "subnetworks have a `state` instead",
    "name": "libcloud's authors put an underscore in it, which no name may have",
}
EXPECTED: Final = {
    "aggregated_machineTypes": "scratchDisks",
    "global_forwardingRules_post": "id",
    "global_images": "getResourceId",
    "global_images_paged": "getResourceId",
    "global_instanceTemplates_insert": "id",
    "global_instanceTemplates_my_instance_template_shared_network": "name",
    "global_targetHttpProxies_web_proxy_delete": "id",
    "operations_operation_global_forwardingRules_post": "id",
    "operations_operation_global_instanceTemplates_insert": "id",
    "operations_operation_zones_us_central1_a_instanceGroups_insert": "id",
    "operations_operation_zones_us_central1_a_instanceGroups_myname_addInstances": "id",
    "operations_operation_zones_us_central1_a_instanceGroups_myname_delete": "id",
    "operations_operation_zones_us_central1_a_instanceGroups_myname_removeInstances": "id",
    "operations_operation_zones_us_central1_a_instanceGroups_myname_setNamedPorts": "id",
    "projects_other_name_global_networks_shared_network_for_mig": "name",
    "projects_other_name_regions_us-central1_subnetworks_cf_972cf02e6ad49114": "status",
    "projects_other_name_regions_us-central1_subnetworks_shared_subnetwork_for_mig": "status",
    "regions_us-central1_subnetworks_cf_972cf02e6ad49112": "status",
    "regions_us-central1_subnetworks_subnet_1": "name",
    "zones": "maintenanceWindows",
    "zones_us-central1-a_instanceGroup_myinstancegroup_shared_network": "name",
    "zones_us-central1-a_machineTypes": "scratchDisks",
    "zones_us_central1_a_instanceGroups_insert": "id",
    "zones_us_central1_a_instanceGroups_myname_addInstances": "id",
    "zones_us_central1_a_instanceGroups_myname_delete": "id",
    "zones_us_central1_a_instanceGroups_myname_removeInstances": "id",
    "zones_us_central1_a_instanceGroups_myname_setNamedPorts": "id",
}


def recorded() -> dict[str, Any]:
    """Name → answer, of all that have a kind."""
    found = {}
    for path in sorted(RECORDED.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".json"):
            answer = json.loads(path.read_text())
            if isinstance(answer, dict) and "kind" in answer:
                found[path.name.removesuffix(".json")] = answer
    return found


def schema_of(answer: Any) -> str:
    """`compute#instanceList` → `InstanceList`."""
    kind = answer["kind"].partition("#")[2]
    return str(kind[0].upper() + kind[1:])


def test_recorded_answers_are_as_the_document_says() -> None:
    bad = {}
    answers = recorded()
    for name, answer in answers.items():
        try:
            validation.check(answer, schema_of(answer), "answer")
        except validation.Invalid as invalid:
            bad[name] = invalid.unknown or invalid.path.rpartition(".")[2]
    assert bad == EXPECTED
    assert set(bad.values()) == set(OUTDATED)
    assert len(answers) == 289


# --- shapes --------------------------------------------------------------------------------------


def shape(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each field's path and JSON type. Scopes and keys of labels are names, not fields."""
    if isinstance(value, dict):
        yield path, "object"
        for key, part in value.items():
            name = "*" if "/" in key or path.endswith(("labels", ".items")) else key
            yield from shape(part, f"{path}.{name}")
    elif isinstance(value, list):
        yield path, "array"
        for part in value:
            yield from shape(part, f"{path}[]")
    else:
        yield path, {str: "string", bool: "boolean"}.get(type(value), "number")


def shapes(answers: list[Any]) -> dict[str, dict[str, set[str]]]:
    """Schema → path → types."""
    found: dict[str, dict[str, set[str]]] = {}
    for answer in answers:
        paths = found.setdefault(schema_of(answer), {})
        for path, kind in shape(answer):
            paths.setdefault(path, set()).add(kind)
    return found


def everything(gce: Google) -> Iterator[Any]:
    """One of each answer that the local GCE gives, as it is on the wire."""
    project_url = f"{gce.cloud.url}/compute/v1/projects/{gce.project}"
    zone, region = f"zones/{gce.zone}", f"regions/{gce.site.region}"
    timed = {
        "termination_time": written(gce.clock() + 500),
        "instance_termination_action": "DELETE",
    }
    items = {"items": [{"key": "user-data", "value": "#cloud-config"}]}
    more = {"tags": {"items": ["a"]}, "service_accounts": [{"email": "default", "scopes": ["s"]}]}
    gce.wait(gce.insert("vm-1", scheduling=timed, metadata=items, **more))
    gce.cloud.faults.fail("instances.insert", BrokenOperation("QUOTA_EXCEEDED", "No.", 403))
    failed = gce.wait(gce.insert("vm-2"))
    gce.cloud.disk(gce.zone, "d")
    gce.cloud.reserve(gce.site.region, "a")
    gce.cloud.snapshot("s", disk=gce.get("vm-1").disks[0].source)
    paths = [
        *("", "/zones", "/regions", f"/{zone}", f"/{region}", f"/{zone}/instances"),
        *(f"/{zone}/instances/vm-1", f"/{zone}/instances/vm-1/serialPort", f"/{zone}/operations"),
        *(f"/{zone}/operations/{failed.name}", f"/{zone}/disks", f"/{zone}/disks/vm-1"),
        *(f"/{zone}/machineTypes", f"/{zone}/machineTypes/e2-standard-2"),
        *(f"/{region}/addresses", f"/{region}/addresses/a", f"/{region}/subnetworks"),
        *(f"/{region}/subnetworks/vmrunner", "/global/firewalls", "/global/images"),
        *("/global/images/vmrunner-1", "/global/images/family/vmrunner", "/global/networks"),
        *("/global/networks/vmrunner", "/global/snapshots", "/global/snapshots/s"),
        *("/global/firewalls/vmrunner-allow-ssh", "/global/operations"),
        *(f"/aggregated/{what}" for what in ("instances", "disks", "addresses", "operations")),
        *("/aggregated/machineTypes", "/aggregated/subnetworks"),
    ]
    for path in paths:
        answer = requests.get(project_url + path, timeout=10)
        assert answer.status_code == 200, (path, answer.text)
        yield answer.json()


def test_our_answers_have_the_shape_of_the_recorded_ones(gce: Google) -> None:
    real = shapes([answer for name, answer in recorded().items() if name not in EXPECTED])
    ours = shapes(list(everything(gce)))
    assert not gce.cloud.complaints
    compared = 0
    for schema, paths in ours.items():
        for path, kinds in paths.items():
            if path in real.get(schema, {}):
                compared += 1
                assert kinds == real[schema][path], (schema, path)
    assert compared > 200
    # And every kind that was recorded of what we show is among them.
    assert {"Instance", "Operation", "Disk", "Address", "Snapshot", "Zone", "Region"} <= set(real)
    assert {"InstanceAggregatedList", "DiskAggregatedList", "AddressAggregatedList"} <= set(real)


#: What every recorded resource has and ours lack: the words of whoever made them.
LACKING: Final = {"Disk": {"description"}, "Snapshot": {"description"}}


def test_our_resources_have_what_every_recorded_one_has(gce: Google) -> None:
    ours = {schema: set(paths) for schema, paths in shapes(list(everything(gce))).items()}
    lacking: dict[str, set[str]] = {}
    for schema in ("Instance", "Disk", "Zone", "Region", "Snapshot", "Address", "Operation"):
        each = [set(a) for n, a in recorded().items() if schema_of(a) == schema]
        for key in set.intersection(*each):
            if f".{key}" not in ours[schema]:
                lacking.setdefault(schema, set()).add(key)
    assert lacking == LACKING


# --- what does not pass --------------------------------------------------------------------------


def send(gce: Google, body: Any, **query: str) -> tuple[int, str]:
    answer = requests.post(
        f"{gce.cloud.url}/compute/v1/projects/{gce.project}/zones/{gce.zone}/instances",
        json=body,
        params=query,
        timeout=10,
    )
    error = answer.json().get("error", {})
    return answer.status_code, error.get("message", "")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"scheduling": {"maxRunTime": {"seconds": "60"}}},
            '"maxRunTime" at \'resource.scheduling',
        ),
        ({"disks": [{"boot": "yes"}]}, "resource.disks[0].boot"),
        ({"scheduling": {"maxRunDuration": {"seconds": 60}}}, "maxRunDuration.seconds"),
        ({"scheduling": {"provisioningModel": "CHEAP"}}, "provisioningModel"),
        ({"labels": {"a": 1}}, "resource.labels.a"),
        ({"labels": ["a"]}, "resource.labels"),
        ({"fingerprint": "!"}, "resource.fingerprint"),
        ({"metadata": {"items": [{"key": "a b"}]}}, "resource.metadata.items[0].key"),
        ({"name": "Vm"}, "resource.name"),
        ({"name": ""}, "resource.name"),
    ],
)
def test_a_field_that_google_would_not_take(gce: Google, change: Any, named: str) -> None:
    body = _body(gce) | change
    status, message = send(gce, body)
    assert (status, named in message) == (400, True), message
    assert gce.cloud.machines == []
    assert gce.cloud.rejected


def _body(gce: Google) -> dict[str, Any]:
    return {"name": "vm-1", "machineType": f"zones/{gce.zone}/machineTypes/e2-medium"}


def test_a_parameter_that_google_would_not_take(gce: Google) -> None:
    status, message = send(gce, _body(gce), requestID="x")
    assert (status, "requestID" in message) == (400, True)
    project_url = f"{gce.cloud.url}/compute/v1/projects/{gce.project}"
    for query in ({"maxResults": "many"}, {"includeAllScopes": "maybe"}, {"nonsense": "1"}):
        answer = requests.get(f"{project_url}/aggregated/instances", params=query, timeout=10)
        assert answer.status_code == 400, query
    bad = requests.get(f"{project_url}/zones/{gce.zone}/instances/VM", timeout=10)
    assert "Must be a match" in bad.json()["error"]["message"]


def test_no_body_and_no_json(gce: Google) -> None:
    url = f"{gce.cloud.url}/compute/v1/projects/{gce.project}/zones/{gce.zone}/instances"
    for body, reason in ((b"", "required"), (b"{", "parseError")):
        answer = requests.post(url, data=body, timeout=10)
        found = answer.json()["error"]["errors"][0]["reason"]
        assert (answer.status_code, found) == (400, reason)


def test_what_only_the_service_writes_is_ignored(gce: Google) -> None:
    gce.insert("vm-1", status="TERMINATED", id=7)
    assert gce.get("vm-1").status == "RUNNING"
    assert gce.get("vm-1").id != 7


def test_methods_that_nobody_has(gce: Google) -> None:
    project_url = f"{gce.cloud.url}/compute/v1/projects/{gce.project}"
    for verb, path, status in (
        ("GET", "/nonsense", 404),
        ("PUT", f"/zones/{gce.zone}/instances", 404),
        ("POST", f"/zones/{gce.zone}/instances/vm-1/reset", 501),
        ("GET", "/global/healthChecks", 501),
    ):
        answer = requests.request(verb, project_url + path, timeout=10)
        assert answer.status_code == status, path
    assert requests.get(f"{gce.cloud.url}/", timeout=10).status_code == 404


SAID: Final = (
    *("AccessConfig", "AttachedDisk", "AttachedDiskInitializeParams", "Instance"),
    *("Metadata", "NetworkInterface", "Scheduling", "ServiceAccount", "ShieldedInstanceConfig"),
)


@pytest.mark.parametrize("schema", SAID)
def test_the_client_can_say_nothing_that_the_document_lacks(schema: str) -> None:
    """The client is made from another revision of the API: were it the newer one, what it says
    would be refused for no fault of its user's."""
    fields = getattr(compute_v1, schema).pb().DESCRIPTOR.fields
    properties = discovery.schema(schema)["properties"]
    assert {field.json_name for field in fields} <= set(properties)


def test_all_that_we_answer_is_googles() -> None:
    assert set(routes.KNOWN) <= set(discovery.methods())


def test_an_answer_of_ours_that_is_wrong_is_loud() -> None:
    world = google()
    gce = world.__enter__()
    gce.insert("vm-1")
    gce.machine.shown["staus"] = "RUNNING"
    answer = requests.get(gce.machine.shown["selfLink"].replace(HOST, gce.cloud.url), timeout=10)
    assert answer.status_code == 500
    assert len(gce.cloud.complaints) == 1
    with pytest.raises(AssertionError, match="staus"):
        world.__exit__(None, None, None)
