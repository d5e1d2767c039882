"""The local GCE, by Google's own client alone: lives of VMs, and what a launch is refused for."""

from __future__ import annotations

from typing import Any

import pytest
from google.cloud import compute_v1
from vmrunner_localclouds.gce.timestamps import read, written

from tests.support.gce import Google, refused
from tests.support.gce import gce as gce  # the fixture

DELETE = {"instance_termination_action": "DELETE"}


def test_a_life(gce: Google) -> None:
    gce.cloud.operation_seconds, gce.cloud.boot_seconds, gce.cloud.delete_seconds = 5, 10, 30
    first = gce.insert("vm-1")
    assert (first.status.name, first.operation_type) == ("PENDING", "insert")
    assert gce.get("vm-1").status == "PROVISIONING"
    gce.clock.advance(5)
    assert gce.get("vm-1").status == "STAGING"
    gce.clock.advance(5)
    shown = gce.get("vm-1")
    assert shown.status == "RUNNING"
    assert shown.network_interfaces[0].access_configs[0].nat_i_p
    assert read(shown.creation_timestamp) == gce.clock() - 10
    assert first.target_id == shown.id
    ending = gce.delete("vm-1")
    assert gce.get("vm-1").status == "STOPPING"
    assert refused(lambda: gce.delete("vm-1"))[:2] == (400, "resourceNotReady")
    before = gce.clock()
    done = gce.wait(ending)
    assert (done.status.name, gce.clock() - before) == ("DONE", 30)
    assert refused(lambda: gce.get("vm-1"))[:2] == (404, "notFound")
    assert gce.machine.history == ["PROVISIONING", "STAGING", "RUNNING", "STOPPING", "gone"]
    assert gce.cloud.disks == []


def test_disks_that_stay(gce: Google) -> None:
    kept = gce.cloud.disk(gce.zone, "kept")
    disks = [gce.boot_disk(labels={"role": "build"}), {"source": kept["selfLink"]}]
    gce.insert("vm-1", disks=disks)
    boot, second = gce.get("vm-1").disks
    assert (boot.boot, boot.auto_delete, second.boot, second.auto_delete) == (1, 1, 0, 0)
    client = gce.client(compute_v1.DisksClient)
    made = client.get(project=gce.project, zone=gce.zone, disk="vm-1")
    assert (dict(made.labels), made.size_gb) == ({"role": "build"}, 10)
    assert list(made.users) == [gce.get("vm-1").self_link]
    where = {"project": gce.project, "zone": gce.zone}
    busy = refused(lambda: client.delete_unary(disk="kept", retry=None, **where))
    assert busy[:2] == (400, "resourceInUseByAnotherResource")
    gce.delete("vm-1")
    assert [disk["name"] for disk in gce.cloud.disks] == ["kept"]
    client.delete_unary(disk="kept", retry=None, **where)
    assert gce.cloud.disks == []


def test_a_disk_of_that_name_is_in_the_way(gce: Google) -> None:
    gce.cloud.disk(gce.zone, "vm-1")
    assert refused(lambda: gce.insert("vm-1"))[:2] == (409, "alreadyExists")
    assert gce.cloud.machines == []


@pytest.mark.parametrize("late", [0, 30])
def test_its_run_duration_ends_it(gce: Google, late: int) -> None:
    gce.cloud.boot_seconds, gce.cloud.deadline_late = 20, late
    gce.insert("vm-1", scheduling={"max_run_duration": {"seconds": 60}, **DELETE})
    assert not gce.get("vm-1").resource_status.scheduling.termination_timestamp
    gce.clock.advance(20)
    at = gce.get("vm-1").resource_status.scheduling.termination_timestamp
    assert read(at) == gce.clock() + 60  # it counts from when it runs
    gce.clock.advance(59 + late)
    assert gce.get("vm-1").status == "RUNNING"
    gce.clock.advance(1)
    assert refused(lambda: gce.get("vm-1"))[0] == 404
    assert gce.cloud.disks == []


def test_its_termination_time_ends_it(gce: Google) -> None:
    gce.cloud.delete_seconds = 40
    at = written(gce.clock() + 100)
    gce.insert("vm-1", scheduling={"termination_time": at, **DELETE})
    gce.clock.advance(100)
    shown = gce.get("vm-1")
    assert (shown.status, shown.status_message) == (
        "STOPPING",
        "Instance reached its termination time.",
    )
    assert gce.cloud.alive == []
    gce.clock.advance(40)
    assert gce.cloud.disks == []
    gce.insert("vm-2", scheduling={"max_run_duration": {"seconds": 60}, **DELETE})


@pytest.mark.parametrize("how", ["stop", "power_off", "suspend"])
def test_a_vm_that_stops_has_no_deadline(gce: Google, how: str) -> None:
    at = written(gce.clock() + 100)
    gce.insert("vm-1", scheduling={"termination_time": at, **DELETE})
    getattr(gce.machine, how)()
    shown = gce.get("vm-1")
    assert shown.status == ("SUSPENDED" if how == "suspend" else "TERMINATED")
    assert not shown.resource_status.scheduling.termination_timestamp
    gce.clock.advance(10_000)
    assert gce.cloud.alive == [gce.machine]
    assert len(gce.cloud.disks) == 1


def test_stop_takes_its_time(gce: Google) -> None:
    gce.cloud.stop_seconds = 20
    gce.insert("vm-1")
    where = {"project": gce.project, "zone": gce.zone, "instance": "vm-1"}
    ending = gce.instances.stop_unary(request=where, retry=None)
    assert gce.get("vm-1").status == "STOPPING"
    assert gce.wait(ending).status.name == "DONE"
    shown = gce.get("vm-1")
    assert (shown.status, bool(shown.last_stop_timestamp)) == ("TERMINATED", True)
    gce.delete("vm-1")
    assert gce.cloud.disks == []


@pytest.mark.parametrize(("action", "remaining"), [("DELETE", 0), ("STOP", 1)])
def test_a_spot_machine_is_taken_back(gce: Google, action: str, remaining: int) -> None:
    spot = {"provisioning_model": "SPOT", "instance_termination_action": action}
    gce.insert("vm-1", scheduling=spot)
    shown = gce.get("vm-1").scheduling
    assert (shown.on_host_maintenance, shown.automatic_restart) == ("TERMINATE", False)
    assert shown.preemptible
    gce.machine.preempt()
    assert (len(gce.cloud.alive), len(gce.cloud.disks)) == (remaining, remaining)
    listed = gce.operations.list(project=gce.project, zone=gce.zone)
    kinds = {operation.operation_type for operation in listed}
    assert "compute.instances.preempted" in kinds


def test_one_that_is_stuck(gce: Google) -> None:
    gce.insert("vm-1")
    gce.machine.stuck = True
    ending = gce.delete("vm-1")
    before = gce.clock()
    assert gce.wait(ending).status.name == "RUNNING"
    assert gce.clock() - before == 120  # a wait is no longer than that
    assert gce.get("vm-1").status == "STOPPING"
    gce.delete("vm-1", no_graceful_shutdown=True)
    assert gce.machine.gone
    assert gce.wait(ending).status.name == "DONE"


def test_a_repair(gce: Google) -> None:
    gce.insert("vm-1")
    gce.machine.repair()
    assert gce.get("vm-1").status == "REPAIRING"


def test_a_newborn_that_is_not_visible_yet(gce: Google) -> None:
    gce.cloud.visibility_lag = 10
    gce.insert("vm-1")
    assert refused(lambda: gce.get("vm-1"))[0] == 404
    assert refused(lambda: gce.insert("vm-1"))[0] == 409
    gce.clock.advance(10)
    assert gce.get("vm-1").name == "vm-1"


NIC = {"network": "global/networks/none"}
BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "name": ({"name": "VM_1"}, 400, "[-a-z0-9]"),
    "type": ({"machine_type": "zones/europe-west1-b/machineTypes/x9"}, 400, "does not exist"),
    "zone": ({"machine_type": "zones/us-central1-a/machineTypes/e2-medium"}, 400, "not in zone"),
    "no disk": ({"disks": []}, 400, "Boot disk"),
    "image": (
        {
            "disks": [
                {"boot": True, "initialize_params": {"source_image": "global/images/family/none"}}
            ]
        },
        400,
        "image resource cannot be found",
    ),
    "small": (
        {
            "disks": [
                {
                    "boot": True,
                    "initialize_params": {
                        "source_image": "global/images/vmrunner-1",
                        "disk_size_gb": 5,
                    },
                }
            ]
        },
        400,
        "smaller than the image",
    ),
    "no network": ({"network_interfaces": []}, 400, "At least one"),
    "network": ({"network_interfaces": [NIC]}, 400, "network resource cannot be found"),
    "custom network": (
        {"network_interfaces": [{"network": "global/networks/vmrunner"}]},
        400,
        "Subnetwork should be specified",
    ),
    "network of another": (
        {
            "network_interfaces": [
                {
                    "network": "global/networks/default",
                    "subnetwork": "regions/europe-west1/subnetworks/vmrunner",
                }
            ]
        },
        400,
        "not in the network",
    ),
    "label key": ({"labels": {"vmrunner:build": "b"}}, 400, "Label key"),
    "label value": ({"labels": {"a": "B"}}, 400, "Label value"),
    "long label": ({"labels": {"a": "b" * 64}}, 400, "63"),
    "labels": ({"labels": {f"k{n}": "" for n in range(65)}}, 400, "64"),
    "metadata": (
        {"metadata": {"items": [{"key": "user-data", "value": "x" * (256 * 1024 + 1)}]}},
        400,
        "262144",
    ),
    "all metadata": (
        {"metadata": {"items": [{"key": f"k{n}", "value": "x" * 200_000} for n in range(3)]}},
        400,
        "524288",
    ),
    "twice": ({"metadata": {"items": [{"key": "k"}, {"key": "k"}]}}, 400, "Duplicate"),
    "account": ({"service_accounts": [{"email": "me@example.com"}]}, 400, "serviceAccount"),
    "both times": (
        {
            "scheduling": {
                "termination_time": "2030-01-01T00:00:00Z",
                "max_run_duration": {"seconds": 60},
                **DELETE,
            }
        },
        400,
        "Only one",
    ),
    "no action": ({"scheduling": {"max_run_duration": {"seconds": 60}}}, 400, "TerminationAction"),
    "action alone": ({"scheduling": DELETE}, 400, "needs a Spot VM"),
    "short": ({"scheduling": {"max_run_duration": {"seconds": 29}, **DELETE}}, 400, "30 seconds"),
    "long": (
        {"scheduling": {"max_run_duration": {"seconds": 121 * 86400}, **DELETE}},
        400,
        "120 days",
    ),
    "past": (
        {"scheduling": {"termination_time": "2020-01-01T00:00:00Z", **DELETE}},
        400,
        "in the future",
    ),
    "no time": ({"scheduling": {"termination_time": "tomorrow", **DELETE}}, 400, "RFC 3339"),
    "spot migrates": (
        {"scheduling": {"provisioning_model": "SPOT", "on_host_maintenance": "MIGRATE"}},
        400,
        "TERMINATE",
    ),
    "spot restarts": (
        {"scheduling": {"provisioning_model": "SPOT", "automatic_restart": True}},
        400,
        "restarted",
    ),
}


@pytest.mark.parametrize("what", list(BAD))
def test_a_launch_is_refused(gce: Google, what: str) -> None:
    body, status, text = BAD[what]
    got, _, message = refused(lambda: gce.insert(body.pop("name", "vm-1"), **body))
    assert (got, text in message) == (status, True), message
    assert gce.cloud.machines == []
    assert gce.cloud.disks == []


def test_a_launch_in_no_zone_or_project(gce: Google) -> None:
    body = gce.body("vm-1")
    for project, zone, status in ((gce.project, "mars-west1-a", 400), ("other", gce.zone, 404)):
        request = {"project": project, "zone": zone, "instance_resource": body}
        assert refused(lambda a=request: gce.instances.insert_unary(a, retry=None))[0] == status


def test_labels_metadata_and_scheduling_change(gce: Google) -> None:
    gce.insert("vm-1", metadata={"items": [{"key": "user-data", "value": "#cloud-config"}]})
    where = {"project": gce.project, "zone": gce.zone, "instance": "vm-1"}
    shown = gce.get("vm-1")
    body = {"labels": {"a": "b"}, "label_fingerprint": shown.label_fingerprint}
    change = {**where, "instances_set_labels_request_resource": body}
    gce.instances.set_labels_unary(request=change, retry=None)
    assert dict(gce.get("vm-1").labels) == {"a": "b"}
    again = refused(lambda: gce.instances.set_labels_unary(request=change, retry=None))
    assert again[:2] == (412, "conditionNotMet")
    items = {"items": [{"key": "k", "value": "v"}], "fingerprint": shown.metadata.fingerprint}
    gce.instances.set_metadata_unary(request={**where, "metadata_resource": items}, retry=None)
    assert gce.machine.metadata == {"k": "v"}
    timed = {"termination_time": written(gce.clock() + 50), **DELETE}
    gce.instances.set_scheduling_unary(request={**where, "scheduling_resource": timed}, retry=None)
    gce.clock.advance(50)
    assert gce.cloud.alive == []


def test_a_protected_machine_is_not_deleted(gce: Google) -> None:
    gce.insert("vm-1", deletion_protection=True)
    protected = refused(lambda: gce.delete("vm-1"))
    assert (protected[0], "protected" in protected[2]) == (400, True)
    where = {"project": gce.project, "zone": gce.zone, "resource": "vm-1"}
    gce.instances.set_deletion_protection_unary(
        request={**where, "deletion_protection": False}, retry=None
    )
    gce.delete("vm-1")
    assert gce.machine.gone


def test_its_serial_port(gce: Google) -> None:
    gce.insert("vm-1")
    gce.machine.serial = b"Booting\xff\n"
    where = {"project": gce.project, "zone": gce.zone, "instance": "vm-1"}
    output = gce.instances.get_serial_port_output(request=where, retry=None)
    assert (output.contents, output.next_) == ("Booting\ufffd\n", 9)
    rest = gce.instances.get_serial_port_output(request={**where, "start": 8}, retry=None)
    assert rest.contents == "\n"


def test_a_reserved_address(gce: Google) -> None:
    address = gce.cloud.reserve(gce.site.region, "ours", labels={"a": "b"})
    nic = {
        "subnetwork": gce.site.subnetwork,
        "access_configs": [{"type_": "ONE_TO_ONE_NAT", "nat_i_p": address["address"]}],
    }
    gce.insert("vm-1", network_interfaces=[nic])
    assert address["status"] == "IN_USE"
    client = gce.client(compute_v1.AddressesClient)
    where = {"project": gce.project, "region": gce.site.region, "address": "ours"}
    busy = refused(lambda: client.delete_unary(request=where, retry=None))
    assert busy[:2] == (400, "resourceInUseByAnotherResource")
    assert refused(lambda: gce.insert("vm-2", network_interfaces=[nic]))[0] == 400
    gce.delete("vm-1")
    client.delete_unary(request=where, retry=None)
    assert gce.cloud.shelf("addresses", f"regions/{gce.site.region}") == {}


def test_many_at_once(gce: Google) -> None:
    body = gce.body("any")
    properties = {
        "machine_type": "e2-standard-2",
        "disks": body.disks,
        "network_interfaces": body.network_interfaces,
        "labels": {"a": "b"},
    }
    options = {
        "project": gce.project,
        "zone": gce.zone,
        "bulk_insert_instance_resource_resource": {
            "count": 3,
            "name_pattern": "vm-##",
            "instance_properties": properties,
        },
    }
    operation = gce.instances.bulk_insert_unary(request=options, retry=None)
    assert gce.wait(operation).status.name == "DONE"
    assert sorted(m.name for m in gce.cloud.alive) == ["vm-01", "vm-02", "vm-03"]
    assert {m.name: m.labels for m in gce.cloud.alive}["vm-01"] == {"a": "b"}
