"""The local GCE, by Google's own client alone: VMs that are suspended and resumed."""

from __future__ import annotations

from typing import Any

import pytest
from vmrunner_localclouds.gce.timestamps import written

from tests.support.gce import Google, refused
from tests.support.gce import gce as gce  # the fixture

DELETE = {"instance_termination_action": "DELETE"}


def ask(gce: Google, verb: str, name: str = "vm-1", **more: Any) -> Any:
    """Suspend or resume: the operation's first sight."""
    where = {"project": gce.project, "zone": gce.zone, "instance": name, **more}
    return getattr(gce.instances, f"{verb}_unary")(request=where, retry=None)


def outer(gce: Google) -> str:
    (config,) = gce.get("vm-1").network_interfaces[0].access_configs
    return str(config.nat_i_p)


def test_a_suspension_takes_its_time_and_so_does_waking(gce: Google) -> None:
    gce.cloud.suspend_seconds, gce.cloud.boot_seconds = 30, 10
    at = written(gce.clock() + 500)
    gce.insert("vm-1", scheduling={"termination_time": at, **DELETE})
    gce.clock.advance(10)
    before, inner = outer(gce), gce.machine.address
    ending = ask(gce, "suspend")
    shown = gce.get("vm-1")
    assert (ending.operation_type, shown.status) == ("suspend", "SUSPENDING")
    assert not shown.resource_status.scheduling.termination_timestamp
    assert refused(lambda: ask(gce, "resume"))[:2] == (400, "resourceNotReady")
    assert gce.wait(ending).status.name == "DONE"
    shown = gce.get("vm-1")
    assert (shown.status, bool(shown.last_suspended_timestamp)) == ("SUSPENDED", True)
    assert (len(gce.cloud.disks), outer(gce)) == (1, "")
    waking = ask(gce, "resume")
    assert gce.get("vm-1").status == "PROVISIONING"
    gce.clock.advance(5)
    assert gce.get("vm-1").status == "STAGING"
    assert gce.wait(waking).status.name == "DONE"
    assert gce.get("vm-1").status == "RUNNING"
    assert outer(gce) not in ("", before)
    assert gce.machine.address == inner
    assert gce.machine.history[-5:] == [
        *("SUSPENDING", "SUSPENDED", "PROVISIONING", "STAGING", "RUNNING"),
    ]


def test_a_reserved_address_outlives_a_suspension(gce: Google) -> None:
    reserved = gce.cloud.reserve("europe-west1", "kept")["address"]
    nic = {"network": gce.site.network, "subnetwork": gce.site.subnetwork}
    nic |= {"access_configs": [{"type_": "ONE_TO_ONE_NAT", "nat_i_p": reserved}]}
    gce.insert("vm-1", network_interfaces=[nic])
    for verb in ("suspend", "resume"):
        ask(gce, verb)
        assert outer(gce) == reserved


def test_of_another_state_the_operation_tells(gce: Google) -> None:
    gce.insert("vm-1")

    def code(verb: str) -> str:
        return str(gce.wait(ask(gce, verb)).error.errors[0].code)

    assert code("resume") == "UNSUPPORTED_OPERATION"
    ask(gce, "suspend")
    assert code("suspend") == "UNSUPPORTED_OPERATION"
    assert gce.machine.state == "SUSPENDED"
    gce.machine.stop()
    assert [code(verb) for verb in ("suspend", "resume")] == ["UNSUPPORTED_OPERATION"] * 2
    gce.delete("vm-1")
    assert refused(lambda: ask(gce, "resume"))[:2] == (404, "notFound")


def test_without_room_a_suspended_vm_stays_off(gce: Google) -> None:
    gce.insert("vm-1")
    ask(gce, "suspend")
    gce.cloud.dry.add(("e2-standard-2", gce.zone, "on-demand"))
    (error,) = gce.wait(ask(gce, "resume")).error.errors
    assert (error.code, gce.get("vm-1").status) == ("ZONE_RESOURCE_POOL_EXHAUSTED", "SUSPENDED")
    gce.cloud.dry.clear()
    ask(gce, "resume")
    assert gce.get("vm-1").status == "RUNNING"


@pytest.mark.parametrize("suspended", [False, True], ids=["suspending", "suspended"])
def test_a_delete_ends_what_is_suspended(gce: Google, *, suspended: bool) -> None:
    gce.cloud.suspend_seconds, gce.cloud.delete_seconds = 30, 5
    gce.insert("vm-1")
    ending = ask(gce, "suspend")
    gce.clock.advance(30 if suspended else 10)
    gce.wait(gce.delete("vm-1"))
    assert gce.wait(ending).status.name == "DONE"
    assert (gce.machine.state, gce.cloud.disks) == ("gone", [])
