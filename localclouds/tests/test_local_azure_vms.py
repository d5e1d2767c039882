"""Fates of VMs of a local Azure with real ones behind them; these are stand-ins. And what their
guests are told of themselves."""

from __future__ import annotations

import base64
import json
import re
import struct
import tomllib
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from vmrunner_localclouds.azure import LocalAzure
from vmrunner_localclouds.azure.__main__ import config
from vmrunner_localclouds.vms import MetadataRequest

from tests.support.arm import Arm, arm_of, refused
from tests.support.stand_ins import StandIn, StandIns, until
from vmrunner.model import Level, Spec
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.azure.provider import AzureProvider

DATA = b"#cloud-config\nhostname: \xe2\x9c\x94 & <b>\n" * 300
INSTALLATION = "00000000-0000-4000-8000-000000000001"
READY = b"<Health><Container><State> Ready </State></Container></Health>"


class World(Arm):
    """A local Azure on the real clock, with stand-ins for VMs."""

    vms_made: StandIns

    def born(self, name: str, **more: object) -> StandIn:
        """A VM that runs, and has not told that it is up."""
        body = self.body(name, **more)
        body["properties"]["osProfile"]["customData"] = base64.b64encode(DATA).decode()
        self.begin(name, body, polling=False)
        until(lambda: self.power(name) == "running")
        return self.vms_made.made[-1]


@pytest.fixture
def world() -> Iterator[World]:
    vms = StandIns()
    with LocalAzure(vms=vms) as cloud, arm_of(cloud, kind=World) as world:  # type: ignore[arg-type]
        world.vms_made = vms
        yield world


def ask(vm: StandIn, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> bytes:
    path, _, query = path.partition("?")
    pairs = dict(pair.split("=", 1) for pair in query.split("&") if pair)
    request = MetadataRequest(method=method, path=path, headers=headers, query=pairs, body=body)
    reply = vm.answer(request)
    return reply.body if reply.status == 200 else str(reply.status).encode()


def test_it_is_up_when_its_guest_says_so(world: World) -> None:
    vm = world.born("vm-1")
    shown = lambda: world.vms.get(world.group, "vm-1").properties  # noqa: E731
    assert shown().provisioning_state == "Creating"
    fabric = {"x-ms-version": "2012-11-30"}
    goal = ElementTree.fromstring(ask(vm, "/machine/?comp=goalstate", **fabric))
    assert goal.findtext("./Container/ContainerId") == shown().vm_id
    assert goal.findtext("./Incarnation") == "1"
    assert goal.findtext("./Container/RoleInstanceList/RoleInstance/InstanceId")
    ask(vm, "/machine", "POST", READY.replace(b"Ready", b"NotReady"), **fabric)
    assert shown().provisioning_state == "Creating"
    ask(vm, "/machine?comp=health", "POST", READY, **fabric)
    assert shown().provisioning_state == "Succeeded"


def test_its_firmware_and_its_disc_are_azures(world: World) -> None:
    vm = world.born("vm-1")
    (nic,) = world.network.network_interfaces.list(world.group)
    (config,) = nic.properties.ip_configurations
    (address,) = world.network.public_ip_addresses.list(world.group)
    found = {config.properties.private_ip_address, address.properties.ip_address}
    assert found == {vm.guest.address}
    assert vm.guest.mac == nic.properties.mac_address.replace("-", ":").lower()
    assert vm.guest.asset == "7783-7084-3265-9085-8269-3286-77"
    assert vm.guest.services == ("169.254.169.254", "168.63.129.16")
    assert vm.guest.disk == 10 << 30
    wa = "{http://schemas.microsoft.com/windowsazure}"
    root = ElementTree.fromstring(file_on(vm.guest.seed))
    provisioning = root.find(f"./{wa}ProvisioningSection/{wa}LinuxProvisioningConfigurationSet")
    assert provisioning is not None
    assert base64.b64decode(provisioning.findtext(f"{wa}CustomData") or "") == DATA
    assert provisioning.findtext(f"{wa}HostName") == "vm-1"
    assert provisioning.findtext(f"{wa}UserName") == "builder"


def file_on(disc: bytes) -> bytes:
    """The one file of a disc, read as ISO 9660 says."""
    descriptor = disc[16 * 2048 :]
    assert descriptor[:6] == b"\x01CD001"
    assert struct.unpack("<I", descriptor[80:84])[0] * 2048 == len(disc)
    sector = struct.unpack("<I", descriptor[156 + 2 : 156 + 6])[0]
    listing = disc[sector * 2048 : (sector + 1) * 2048]
    at = listing.index(b"OVF-ENV.XML;1") - 33
    begin, size = struct.unpack("<I4xI", listing[at + 2 : at + 14])
    return disc[begin * 2048 : begin * 2048 + size]


def test_a_guest_is_told_what_it_is(world: World) -> None:
    vm = world.born("vm-1")
    path = "/metadata/instance?api-version=2021-08-01&extended=true"
    assert ask(vm, path) == b"400"  # nobody asks it by chance
    document = json.loads(ask(vm, path, metadata="true"))
    assert document["compute"]["name"] == "vm-1"
    assert document["compute"]["osProfile"]["adminUsername"] == "builder"
    assert document["compute"]["tagsList"] == [{"name": "vmrunner:instance", "value": "vm-1"}]
    (interface,) = document["network"]["interface"]
    assert interface["macAddress"] == vm.guest.mac.replace(":", "").upper()
    assert interface["ipv4"]["ipAddress"][0]["publicIpAddress"] == vm.guest.address
    assert DATA not in ask(vm, path, metadata="true")
    leaf = "/metadata/instance/compute/vmSize?api-version=2021-02-01&format=text"
    assert ask(vm, leaf, metadata="true") == b"Standard_D2s_v5"
    token = "/metadata/identity/oauth2/token?api-version=2018-02-01"
    assert ask(vm, token, metadata="true") == b"404"


def test_a_guests_poweroff_leaves_it_stopped_and_billed(world: World) -> None:
    vm = world.born("vm-1")
    vm.code = 0
    until(lambda: world.power("vm-1") == "stopped")
    assert world.machine.billed
    vm.code = None
    world.vms.begin_start(world.group, "vm-1", polling=False)
    until(lambda: world.power("vm-1") == "running")


def test_delete_kills_it_and_its_parts(world: World) -> None:
    vm = world.born("vm-1")
    world.delete("vm-1")
    assert vm.killed
    assert refused(lambda: world.vms.get(world.group, "vm-1"))[0] == 404
    assert world.left() == []


def test_it_stands_still_while_it_is_hibernated(world: World) -> None:
    vm = world.born("vm-1", additionalCapabilities={"hibernationEnabled": True})
    world.vms.begin_deallocate(world.group, "vm-1", hibernate=True).result()
    assert (vm.frozen, vm.stopped) == (True, False)
    world.vms.begin_start(world.group, "vm-1").result()
    assert (vm.frozen, world.power("vm-1")) == (False, "running")


def test_what_the_program_prints_is_a_configuration(world: World) -> None:
    """A driver takes it, finds nothing amiss there, and launches."""
    printed = tomllib.loads(config(world.cloud))["providers"]["azure"]
    del printed["kind"], printed["max_instances"]
    options = AzureOptions(name="azure", installation=INSTALLATION, **printed)
    provider = AzureProvider(options)
    wrong = [finding for finding in provider.check() if finding.level is Level.ERROR]
    assert wrong == []
    assert [offer.place for offer in provider.offers(Spec())] == [
        "westeurope-1",
        "westeurope-2",
        "westeurope-3",
    ]


def test_its_serial_port_is_that_of_its_vm(world: World) -> None:
    vm = world.born("vm-1")
    vm.console = b"login: "
    assert world.machine.output == b"login: "
    assert re.fullmatch(r"[0-9a-f-]{36}", vm.guest.firmware["uuid"])
