"""Machines of the cluster, for tests: pods and VMIs, there or gone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.kube.api_error import Json
from vmrunner_localclouds.kube.kinds import PODS, Kind

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube
    from vmrunner_localclouds.vms import Vm

GONE: Final = "gone"
INSTANCE: Final = "vmrunner/instance"


@dataclass(slots=True, eq=False, kw_only=True)
class KubeMachine:
    """One pod or VMI, as far as a test may know and change it."""

    cloud: LocalKube
    kind: Kind
    last: Json  # as it was shown last
    stuck: bool = False  # accepts its death, and does not die
    history: list[str] = field(default_factory=list)  # its phases, and `gone`
    body: Vm | None = None  # of a VMI: with one it runs when that runs
    running: Any = None  # of a pod: its containers, where they are real
    serial: bytes = b""  # of a VMI's first serial port, where it has no body
    logs: dict[str, bytes] = field(default_factory=dict)  # of containers that are not real

    @property
    def name(self) -> str:
        return str(self.last["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.last["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        return str(self.last["metadata"]["uid"])

    @property
    def instance(self) -> str:
        """The id that vmrunner gave it."""
        return str((self.last["metadata"].get("labels") or {}).get(INSTANCE, ""))

    @property
    def state(self) -> str:
        """A phase of the API's, or `gone`."""
        return self.history[-1] if self.history else ""

    @property
    def gone(self) -> bool:
        return self.state == GONE

    @property
    def alive(self) -> bool:
        """True if it is there, in whatever phase but an end, with no delete accepted."""
        ended = self.state in (GONE, "Succeeded", "Failed")
        return not ended and "deletionTimestamp" not in self.last["metadata"]

    @property
    def shown(self) -> Json:
        """The object as the API has it, or had it last."""
        return self.last

    @property
    def status(self) -> Json:
        status: Json = self.last.get("status") or {}
        return status

    @property
    def output(self) -> bytes:
        """The output of its first serial port."""
        return self.serial if self.body is None else self.body.console

    def log(self, container: str) -> bytes:
        """Bytes that a container has written."""
        if self.running is None:
            return self.logs.get(container, b"")
        written: bytes = self.running.log(container)
        return written

    def note(self, shown: Json, phase: str) -> None:
        self.last = shown
        if phase and phase != self.state:
            self.history.append(phase)

    # --- what befalls it ---

    def exit(self, container: str, code: int, reason: str = "") -> None:
        """End one container of a simulated pod; `reason` is such as `OOMKilled`."""
        assert self.kind is PODS
        with self.cloud.held():
            self.cloud.kubelet.exit(self.last, container, code, reason)

    def fail(self, reason: str, message: str = "") -> None:
        """Let a pod end for a reason of the node's: `Evicted`, `Preempting`, …"""
        with self.cloud.held():
            self.cloud.kubelet.fail(self.last, reason, message)

    def set_status(self, **fields: Any) -> None:
        """Write fields of its status, whatever they mean."""
        with self.cloud.held():
            status = {**self.status, **fields}
            self.cloud.store.replace(self.kind, self.last, {**self.last, "status": status})

    def release(self) -> None:
        """Finish a delete that was stuck."""
        with self.cloud.held():
            self.stuck = False
            if not self.gone and "deletionTimestamp" in self.last["metadata"]:
                self.cloud.finish(self)

    # --- its VM (vms.fleet.CloudVm) ---

    @property
    def off(self) -> bool:
        """True if it has no VM any more in this cloud."""
        return self.state in (GONE, "Succeeded", "Failed")

    def run(self) -> None:
        self.cloud.virt.run(self.last)

    def power_off(self) -> None:
        self.cloud.virt.end(self.last, "Succeeded")

    def break_down(self) -> None:
        self.cloud.virt.end(self.last, "Failed")
