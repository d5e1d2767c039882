"""Real VMs behind a local cloud's machines: one thread that starts them, hears when they end, and
lets time pass between requests."""

from __future__ import annotations

import logging
import threading
from typing import Final, Protocol

from vmrunner_localclouds.common.virtual_clock import Timeline
from vmrunner_localclouds.vms.command_line import GuestSpec
from vmrunner_localclouds.vms.host import Vms
from vmrunner_localclouds.vms.metadata import Answer
from vmrunner_localclouds.vms.vm import Vm

log = logging.getLogger(__name__)

_TICK: Final = 0.2  # seconds


class CloudVm(Protocol):
    """A cloud's own view of a VM. Its methods are called with the cloud held."""

    body: Vm | None

    @property
    def off(self) -> bool:
        """True if it has no VM any more in this cloud."""

    def run(self) -> None:
        """Note that its VM runs now."""

    def power_off(self) -> None:
        """Note that its guest has switched itself off. Does nothing where it is stopping."""

    def break_down(self) -> None:
        """Note that its VM ended, or never began, unrequested. Does nothing where it is
        being stopped."""


class VmFleet:
    """All VMs of one cloud."""

    def __init__(self, cloud: Timeline, vms: Vms) -> None:
        self._cloud = cloud
        self._vms = vms
        self._all: list[CloudVm] = []
        self._waiting: list[CloudVm] = []  # they have a VM that is not started
        self._running: list[CloudVm] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop, and return when no VM is left."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        for machine in self._all:
            _body(machine).kill()

    def address(self) -> str:
        """An address for a new machine, which is reached there."""
        return self._vms.address()

    def give(self, machine: CloudVm, guest: GuestSpec, answer: Answer) -> None:
        """Give a new machine a VM, which is started soon."""
        machine.body = self._vms.make(guest, answer)
        self._all.append(machine)
        self.start_again(machine)

    def start_again(self, machine: CloudVm) -> None:
        """Start a VM that was stopped, soon, from the disk that it had."""
        self._waiting.append(machine)

    # --- within ---

    def _live(self) -> None:
        """QEMU dies with the thread that started it: this one lives as long as the cloud."""
        while not self._stopped.wait(_TICK):
            try:
                self._tick()
            except Exception:
                log.exception("a tick of the local cloud")

    def _tick(self) -> None:
        self._cloud.settle()
        while self._waiting:
            self._begin(self._waiting[0])
        for machine in list(self._running):
            self._look(machine)

    def _begin(self, machine: CloudVm) -> None:
        body = _body(machine)
        try:
            body.start()
        except OSError as error:
            log.warning("%s: %s", body.guest.name, error)
            with self._cloud.held():
                machine.break_down()
        else:
            if machine not in self._running:  # not polled since it was stopped
                self._running.append(machine)
            with self._cloud.held():
                machine.run()
        self._waiting.remove(machine)

    def _look(self, machine: CloudVm) -> None:
        body = _body(machine)
        with self._cloud.held():  # else it may be stopped and started between poll and verdict
            code = body.poll()
            if machine.off:
                pass
            elif code is None:
                return
            elif code == 0:
                machine.power_off()
            else:
                log.warning("%s: QEMU ended with %d: %s", body.guest.name, code, body.complaint)
                machine.break_down()
            body.stop()  # what has died is killed by its cloud
        self._running.remove(machine)


def _body(machine: CloudVm) -> Vm:
    assert machine.body is not None
    return machine.body
