"""What happens to instances with VMs behind them; the VMs are stand-ins."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from vmrunner_localclouds.ec2 import LocalCloud
from vmrunner_localclouds.vms import GuestSpec, MetadataRequest, Reply, Vms, command_line
from vmrunner_localclouds.vms.metadata import MetadataServer

from tests.support.ec2 import REGION, credentials
from tests.support.stand_ins import StandIns, until
from vmrunner.errors import BadOrder


class World:
    def __init__(self) -> None:
        self.vms = StandIns()
        self.cloud = LocalCloud(vms=self.vms)  # type: ignore[arg-type]
        self.cloud.start()
        self.site = self.cloud.furnish(REGION)
        self.ec2 = boto3.client("ec2", endpoint_url=self.cloud.url, region_name=REGION)

    def launch(self, *, public: bool = True, behaviour: str = "terminate", **more: Any) -> str:
        answer = self.ec2.run_instances(
            ImageId=self.site.image,
            InstanceType="m7i.large",
            MinCount=1,
            MaxCount=1,
            InstanceInitiatedShutdownBehavior=behaviour,
            NetworkInterfaces=[
                {
                    "DeviceIndex": 0,
                    "SubnetId": self.site.subnets[0],
                    "AssociatePublicIpAddress": public,
                }
            ],
            **more,
        )
        return str(answer["Instances"][0]["InstanceId"])

    def item(self, instance: str) -> dict[str, Any]:
        answer = self.ec2.describe_instances(InstanceIds=[instance])
        found: dict[str, Any] = answer["Reservations"][0]["Instances"][0]
        return found

    def wait(self, instance: str, state: str) -> dict[str, Any]:
        until(lambda: self.item(instance)["State"]["Name"] == state)
        return self.item(instance)


@pytest.fixture
def world() -> Iterator[World]:
    with credentials():
        world = World()
        yield world
        world.cloud.stop()


def test_it_runs_when_its_vm_does_and_has_its_address(world: World) -> None:
    size = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 12}}
    both, private = world.launch(BlockDeviceMappings=[size]), world.launch(public=False)
    for instance, vm in zip((both, private), world.vms.made, strict=True):
        item = world.wait(instance, "running")
        assert vm.started
        assert item["PrivateIpAddress"] == vm.guest.address
        assert item.get("PublicIpAddress") == (vm.guest.address if instance == both else None)
        assert item["NetworkInterfaces"][0]["MacAddress"] == vm.guest.mac
        uuid = vm.guest.firmware["uuid"]
        assert uuid.startswith("ec2")  # by this and the serial cloud-init knows EC2
        assert vm.guest.firmware["serial"] == uuid
    assert [vm.guest.disk for vm in world.vms.made] == [12 << 30, 8 << 30]
    request = MetadataRequest(method="GET", path="/latest/meta-data/instance-id", headers={})
    assert [vm.answer(request).body.decode() for vm in world.vms.made] == [both, private]


@pytest.mark.parametrize(
    ("behaviour", "state", "code"),
    [
        ("terminate", "terminated", "Client.InstanceInitiatedShutdown"),
        ("stop", "stopped", "Client.InstanceInitiatedShutdown"),
    ],
)
def test_a_guest_that_switches_off_ends_as_the_launch_said(
    world: World, behaviour: str, state: str, code: str
) -> None:
    instance = world.launch(behaviour=behaviour)
    world.wait(instance, "running")
    world.vms.made[0].code = 0
    assert world.wait(instance, state)["StateReason"]["Code"] == code
    volumes = world.ec2.describe_volumes()["Volumes"]
    assert bool(volumes) is (state == "stopped")


def test_terminate_kills_it_before_it_says_so(world: World) -> None:
    running, fresh = world.launch(), world.launch()
    world.ec2.terminate_instances(InstanceIds=[running, fresh])
    assert all(vm.killed for vm in world.vms.made)
    for instance in (running, fresh):
        code = world.wait(instance, "terminated")["StateReason"]["Code"]
        assert code == "Client.UserInitiatedShutdown"


def test_one_that_was_stopped_starts_with_its_own_vm(world: World) -> None:
    instance = world.launch()
    before = world.wait(instance, "running")
    (vm,) = world.vms.made
    for _ in range(2):
        world.ec2.stop_instances(InstanceIds=[instance])
        assert vm.stopped
        assert not vm.killed
        world.wait(instance, "stopped")
        world.ec2.start_instances(InstanceIds=[instance])
        after = world.wait(instance, "running")
        assert not vm.stopped
        assert after["PublicIpAddress"] == before["PublicIpAddress"]
    assert len(world.vms.made) == 1
    world.ec2.stop_instances(InstanceIds=[instance])
    world.ec2.terminate_instances(InstanceIds=[instance])
    world.wait(instance, "terminated")
    assert vm.killed


def test_a_vm_that_breaks_is_no_wish_of_its_guest(world: World) -> None:
    broken = world.launch()
    world.wait(broken, "running")
    world.vms.made[0].code = 1
    world.vms.trouble = OSError("qemu-img: no space left on device")
    unborn = world.launch()
    for instance in (broken, unborn):
        code = world.wait(instance, "terminated")["StateReason"]["Code"]
        assert code == "Server.InternalError"


def test_its_console_is_what_it_said(world: World) -> None:
    instance = world.launch()
    world.vms.made[0].console = "boot \N{HEAVY CHECK MARK} \n".encode() + b"\xff"
    answer = world.ec2.get_console_output(InstanceId=instance)
    assert answer["Output"].startswith("boot \N{HEAVY CHECK MARK} \n")


def test_with_the_cloud_all_its_vms_end(world: World) -> None:
    for _ in range(3):
        world.launch()
    world.cloud.stop()
    assert all(vm.killed for vm in world.vms.made)


def test_time_passes_though_nobody_asks(world: World) -> None:
    happened = threading.Event()
    world.cloud.later(0.3, happened.set)
    assert happened.wait(5)


# --- the parts ---


def test_qemus_words_keep_a_guests_network_to_its_metadata() -> None:
    host = command_line.HostSpec(
        qemu="/usr/bin/qemu", accel="tcg", cpus=1, memory=1 << 30, kernel=Path("/k"),
        initrd=Path("/i"), cmdline="root=/dev/vda",
    )  # fmt: skip
    guest = GuestSpec(
        name="i-1,evil=yes", address="127.64.0.1", mac="52:54:00:00:00:01", disk=0,
        firmware={"manufacturer": "Amazon EC2", "product": "a,b"},
    )  # fmt: skip
    command = command_line.command(host, guest, ["/a path/python", "-I", "forward.py", "1234"])
    netdev = command[command.index("-netdev") + 1]
    assert "restrict=on" in netdev.split(",")
    assert "hostfwd=tcp:127.64.0.1:22-:22" in netdev.split(",")
    assert netdev.endswith("169.254.169.254:80-cmd:'/a path/python' -I forward.py 1234")
    assert "type=1,manufacturer=Amazon EC2,product=a,,b" in command
    assert "guest=i-1,,evil=yes" in command
    assert not any("ds=" in word for word in command)  # it finds out by itself where it is


def test_a_guest_may_have_two_services_and_a_seed() -> None:
    host = command_line.HostSpec(
        qemu="/usr/bin/qemu", accel="tcg", cpus=1, memory=1 << 30, kernel=Path("/k"),
        initrd=Path("/i"), cmdline="root=/dev/vda",
    )  # fmt: skip
    guest = GuestSpec(
        name="vm-1", address="127.64.0.1", mac="00:0d:3a:00:00:01", disk=0, firmware={"uuid": "u"},
        asset="7783-7084", services=("169.254.169.254", "168.63.129.16"), words="ci.ds=Azure",
        seed=b"an image",
    )  # fmt: skip
    command = command_line.command(host, guest, ["carry"])
    netdev = command[command.index("-netdev") + 1].split(",")
    assert "net=168.0.0.0/7" in netdev
    for service in guest.services:
        assert f"guestfwd=tcp:{service}:80-cmd:carry" in netdev
    assert "type=3,asset=7783-7084" in command
    assert command[command.index("-append") + 1] == "root=/dev/vda ci.ds=Azure mitigations=off"
    assert "virtio-blk-pci,drive=seed" in command


def test_a_connection_is_carried_whole_both_ways() -> None:
    body = os.urandom(1 << 20)
    server = MetadataServer(lambda request: Reply(200, request.path.encode() + body))
    ours, theirs = socket.socketpair()
    forward = Path(command_line.__file__).with_name("forward.py")
    command = [sys.executable, "-I", "-S", str(forward), str(server.port)]
    with ours, subprocess.Popen(command, stdin=theirs, stdout=theirs) as carrier:
        theirs.close()
        ours.sendall(b"GET /latest HTTP/1.0\r\n\r\n")
        heard = b""
        while data := ours.recv(65536):
            heard += data
        assert heard.endswith(b"/latest" + body)
        assert carrier.wait(10) == 0
    server.close()


def test_what_becomes_qemu_dies_with_the_thread_that_started_it() -> None:
    start = Path(command_line.__file__).with_name("spawn.py")
    parent = f"""
import os, subprocess, sys
files = [os.open(os.devnull, os.O_RDWR) for _ in range(2)]
words = [sys.executable, "-P", {str(start)!r}, *map(str, [os.getpid(), *files, -1])]
made = subprocess.Popen([*words, "/bin/sleep", "600"], pass_fds=files)
print(made.pid, flush=True)
made.wait()
"""
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        until(lambda: "sleep" in Path(f"/proc/{child}/cmdline").read_text())
        handle = os.pidfd_open(child)
        process.send_signal(signal.SIGKILL)
    assert select.select([handle], [], [], 10)[0], "it lives on"
    os.close(handle)


def test_without_an_image_the_fix_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadOrder, match="vmrunner image build"):
        Vms.open(cache=tmp_path)
