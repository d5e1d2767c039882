"""A VM with the kernel of the clouds' images obeys the sleep button that Compute Engine presses,
goes on when it is woken, and obeys the power button, which both clouds press to stop a VM."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.vm.home import wait_until
from tests.vm.qemu_fixture import image
from vmrunner.providers.qemu import seed
from vmrunner.providers.qemu.command_line import kernel_words

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]

SCRIPT: Final = Path(__file__).parents[2] / "packer/provision/65-buttons.sh"
ALIVE: Final = "it goes on"
#: Seconds for a boot and a sleep, and for a wake. Emulated, beside others.
PATIENCE: Final = 900.0


class Machine:
    """QEMU, and what its protocol tells. A button may come before anybody listens: it is pressed
    again until something happens."""

    def __init__(self, wire: socket.socket, console: Path) -> None:
        self._wire, self._data, self._console = wire, b"", console
        self.tell("qmp_capabilities")

    def tell(self, command: str, **arguments: Any) -> None:
        line = {"execute": command, "arguments": arguments}
        self._wire.sendall(json.dumps(line).encode() + b"\n")

    def goes_on(self) -> None:
        """It says so once more from now on."""
        before = self._console.read_text(errors="replace").count(ALIVE)
        wait_until(
            lambda: self._console.read_text(errors="replace").count(ALIVE) > before,
            seconds=PATIENCE,
            what="a sign of life",
        )

    def press_until(self, event: str, command: str, **arguments: Any) -> Any:
        """Press until that happens; returns what is told with it."""
        until = time.monotonic() + PATIENCE
        while (found := self._happened(event, 5.0)) is None:
            assert time.monotonic() < until, f"no {event}: {self._console.read_text()[-2000:]}"
            self.tell(command, **arguments)
        return found

    def _happened(self, event: str, seconds: float) -> Any:
        """The event's data; None: not within these seconds."""
        until = time.monotonic() + seconds
        while True:
            *lines, self._data = self._data.split(b"\n")
            for number, line in enumerate(lines):
                message = json.loads(line)
                if message.get("event") == event:
                    self._data = b"\n".join([*lines[number + 1 :], self._data])
                    return message.get("data", {})
            remaining = until - time.monotonic()
            if remaining <= 0:
                return None
            self._wire.settimeout(remaining)
            try:
                self._data += self._wire.recv(1 << 16)
            except TimeoutError:
                return None


@contextmanager
def booted(place: Path) -> Iterator[Machine]:
    """A VM of the default image in which the script was run as it is for EC2 and Compute Engine."""
    made = image("default").directory
    disk, source, console = place / "disk.qcow2", place / "seed.img", place / "console"
    made_of = ["-F", "qcow2", "-b", str(made / "disk.qcow2"), str(disk)]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *made_of], check=True)
    script = base64.b64encode(SCRIPT.read_bytes()).decode()
    user_data = (
        "#cloud-config\nbootcmd:\n"
        f"- echo {script} | base64 -d >/run/buttons.sh\n"
        "- VMRUNNER_PLATFORM=gce sh /run/buttons.sh\n"
        "- systemctl start --no-block vmrunner-buttons.service\n"
        f"- systemd-run --no-block sh -c 'while sleep 1; do echo {ALIVE} >/dev/ttyS0; done'\n"
    )
    files = {"user-data": user_data.encode(), "meta-data": b"instance-id: buttons\n"}
    source.write_bytes(seed.image(files))
    cmdline = json.loads((made / "image.json").read_text())["cmdline"]
    ours, theirs = socket.socketpair()
    program = shutil.which("qemu-system-x86_64")
    assert program
    words = [
        *(program, "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off"),
        *("-global", "ICH9-LPC.disable_s3=0", "-smp", "1", "-m", "1024"),
        *("-kernel", str(made / "vmlinuz"), "-initrd", str(made / "initrd.img")),
        *("-append", kernel_words("tcg", cmdline, "ds=nocloud")),
        *("-drive", f"file={disk},if=virtio,format=qcow2"),
        *("-drive", f"file={source},if=virtio,format=raw,readonly=on"),
        *("-serial", f"file:{console}"),
        *("-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"),
    ]
    with ours, subprocess.Popen(words, pass_fds=[theirs.fileno()]) as child:
        theirs.close()
        try:
            yield Machine(ours, console)
        finally:
            child.kill()


def test_it_sleeps_and_goes_on_when_woken(tmp_path: Path) -> None:
    sleep = [{"type": "qcode", "data": "sleep"}]
    with booted(tmp_path) as machine:
        machine.press_until("SUSPEND", "send-key", keys=sleep)
        machine.press_until("WAKEUP", "system_wakeup")
        machine.goes_on()


def test_it_powers_off(tmp_path: Path) -> None:
    """In a VM of its own: after its sleep QEMU's q35 notes the button, and interrupts nobody."""
    with booted(tmp_path) as machine:
        how = machine.press_until("SHUTDOWN", "system_powerdown")
    assert how == {"guest": True, "reason": "guest-shutdown"}
