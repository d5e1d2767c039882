"""One VM, from PROVISIONING to nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.common.machine import GONE, LocalMachine
from vmrunner_localclouds.gce import networks, operations, scheduling, timestamps
from vmrunner_localclouds.gce.faults import DEAF
from vmrunner_localclouds.gce.links import last

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce

_UP: Final = ("PROVISIONING", "STAGING", "RUNNING", "REPAIRING")
_OFF: Final = ("TERMINATED", GONE)
_TAKEN_BACK: Final = "Instance was preempted."


@dataclass(slots=True, eq=False, kw_only=True)
class GceMachine(LocalMachine):
    cloud: LocalGce
    deadline: float = math.inf  # epoch seconds; then the service ends it

    # --- what is true ---

    @property
    def zone(self) -> str:
        return last(self.shown["zone"])

    @property
    def scope(self) -> str:
        return f"zones/{self.zone}"

    @property
    def off(self) -> bool:
        return self.state in _OFF

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.shown.get("labels", {}))

    @property
    def metadata(self) -> dict[str, str]:
        items = self.shown["metadata"].get("items", [])
        return {item["key"]: item["value"] for item in items}

    @property
    def address(self) -> str:
        """The address of its first interface, within its network."""
        return str(self.shown["networkInterfaces"][0]["networkIP"])

    @property
    def instance(self) -> str:
        """The id that vmrunner gave it."""
        return self.labels.get("vmrunner-instance", "")

    @property
    def hidden(self) -> bool:
        """True if it is created and not visible yet."""
        return self.shown["selfLink"] in self.cloud.hidden

    @property
    def spot(self) -> bool:
        return bool(self.shown["scheduling"]["provisioningModel"] == "SPOT")

    @property
    def dry(self) -> bool:
        """True if its zone has no room for one like it."""
        market = "spot" if self.spot else "on-demand"
        return (last(self.shown["machineType"]), self.zone, market) in self.cloud.dry

    # --- what befalls it ---

    def begin(self) -> None:
        self._become("PROVISIONING")
        # What a failed insert leaves is there by its name when the operation has ended.
        if self.cloud.visibility_lag > 0 and not self.never_runs:
            self.cloud.hidden.add(self.shown["selfLink"])
            self.cloud.later(self.cloud.visibility_lag, self._appear)
        if self.never_runs:
            return
        if self.body is None:
            self.cloud.later(self.cloud.boot_seconds / 2, self._stage)
            self.cloud.later(self.cloud.boot_seconds, self._run)
        self.arm()

    def run(self) -> None:
        """Mark its VM, if any, as running."""
        self._stage()
        self._run()

    def arm(self) -> None:
        """The service's own deadline counts from now on; a new one replaces it."""
        since = self.cloud.now() if self.state == "RUNNING" else None
        self.deadline = scheduling.deadline(self.shown["scheduling"], since)
        self._show_deadline()
        if math.isfinite(self.deadline):
            wanted = self.deadline
            delay = wanted + self.cloud.deadline_late - self.cloud.now()
            self.cloud.later(max(delay, 0.0), lambda: self._strike(wanted))

    def stop(self, then: Callable[[], None] = lambda: None) -> None:
        """Stop it, by the API, or by the service: its disks stay, its deadline does not."""
        self._wind_down()
        self.cloud.later(self.cloud.stop_seconds, lambda: self._stopped(then))

    def end(self, then: Callable[[], None] = lambda: None) -> None:
        """Accept its delete; it goes `delete_seconds` later, unless it is stuck."""
        self.deleting = True
        self._wind_down()
        self._ends.append(then)
        if not self.stuck:
            self.cloud.later(self.cloud.delete_seconds, self._ended)

    def power_off(self) -> None:
        """The guest switches itself off: it stays, its disks bill, its deadline is cleared."""
        self._fail("compute.instances.guestTerminate")

    def break_down(self) -> None:
        """Let its host fail, and not be restarted."""
        self._fail("compute.instances.hostError")

    def maintain(self) -> None:
        """Maintain its host: it moves, unseen, or is stopped."""
        if self.shown["scheduling"]["onHostMaintenance"] == "MIGRATE":
            operations.by_itself(self.cloud, "compute.instances.migrateOnHostMaintenance", self)
        else:
            self._fail("compute.instances.terminateOnHostMaintenance")

    def preempt(self) -> None:
        """Preempt a spot machine, as GCE does."""
        if self.state not in _UP:
            return
        operations.by_itself(self.cloud, "compute.instances.preempted", self, _TAKEN_BACK)
        self._fall(_TAKEN_BACK)

    def suspend(self, then: Callable[[], None] = lambda: None) -> None:
        """Suspend it: its memory and its disks stay, its deadline and what it was lent of external
        addresses do not."""
        self._disarm()
        self._become("SUSPENDING")
        self.cloud.later(self.cloud.suspend_seconds, lambda: self._suspended(then))

    def ignore_suspension(self, then: Callable[..., None]) -> None:
        """Ask a guest in which nothing obeys: it goes on running."""
        self._become("SUSPENDING")

        def give_up() -> None:
            if self.state == "SUSPENDING":
                self._become("RUNNING")
            then(DEAF)

        self.cloud.later(self.cloud.suspend_seconds, give_up)

    def resume(self, then: Callable[[], None] = lambda: None) -> None:
        """Let it go on where it was: it is given room, and an address, anew."""
        self._become("PROVISIONING")
        self.cloud.later(self.cloud.boot_seconds / 2, self._stage)
        self.cloud.later(self.cloud.boot_seconds, lambda: self._resumed(then))

    def repair(self) -> None:
        """Let its host fail."""
        self._become("REPAIRING")

    def vanish(self) -> None:
        """Remove it, and what is deleted with it."""
        if self.gone:
            return
        if self.body is not None:
            self.body.kill()
        self._appear()
        self._become(GONE)
        self._disarm()
        self.cloud.shelf("instances", self.scope).pop(self.name, None)
        networks.hold(self.cloud, self.zone, self.shown, freed=True)
        for attached in self.shown["disks"]:
            shelf = self.cloud.shelf("disks", self.scope)
            disk = shelf.get(last(attached["source"]))
            if disk is not None and attached["autoDelete"]:
                del shelf[disk["name"]]
            elif disk is not None:
                users = [user for user in disk.get("users", []) if user != self.shown["selfLink"]]
                disk.pop("users", None)
                disk.update({"users": users} if users else {})
                disk["lastDetachTimestamp"] = timestamps.written(self.cloud.now())

    def give_up(self, remains: bool) -> None:
        """Give up a VM that never ran: there was no capacity."""
        if remains:
            self.never_runs = False
            self._stopped()
        else:
            self.vanish()

    # --- within ---

    def _fail(self, operation: str) -> None:
        """Stop it for good. Only the operations show the reason."""
        if self.state in _UP:
            operations.by_itself(self.cloud, operation, self)
            self._wind_down()
            self._stopped()

    def _stage(self) -> None:
        if self.state == "PROVISIONING":
            self._become("STAGING")

    def _run(self) -> None:
        if self.state == "STAGING":
            self._become("RUNNING")
            self.shown["lastStartTimestamp"] = timestamps.written(self.cloud.now())
            if math.isinf(self.deadline):
                self.arm()

    def _strike(self, wanted: float) -> None:
        if self.deadline == wanted and self.state in _UP:
            self._fall("Instance reached its termination time.")

    def _fall(self, why: str) -> None:
        self.shown["statusMessage"] = why
        if self.shown["scheduling"].get("instanceTerminationAction") == "DELETE":
            operation = operations.begin(
                self.cloud, "delete", self.scope, self.shown, user=operations.SYSTEM
            )
            self.end(operation.finish)
        else:
            self.stop()

    def _wind_down(self) -> None:
        self._disarm()
        if self.state not in ("STOPPING", "TERMINATED"):
            self._become("STOPPING")

    def _stopped(self, then: Callable[[], None] = lambda: None) -> None:
        if not self.gone and not self.deleting:
            self._become("TERMINATED")
            self.shown["lastStopTimestamp"] = timestamps.written(self.cloud.now())
        then()

    def _suspended(self, then: Callable[[], None]) -> None:
        if self.state == "SUSPENDING":
            self._become("SUSPENDED")
            self.shown["lastSuspendedTimestamp"] = timestamps.written(self.cloud.now())
            networks.release(self.cloud, self.zone, self.shown)
            if self.body is not None:
                self.body.freeze()
        then()

    def _resumed(self, then: Callable[[], None]) -> None:
        if self.state == "STAGING":
            networks.lend(self.cloud, self.shown)
            if self.body is not None:
                self.body.thaw()
            self._run()
        then()

    def _ended(self) -> None:
        if self.stuck:
            return
        self.vanish()
        for then in self._ends:
            then()

    def _appear(self) -> None:
        self.cloud.hidden.discard(self.shown["selfLink"])

    def _disarm(self) -> None:
        self.deadline = math.inf
        self._show_deadline()

    def _show_deadline(self) -> None:
        shown = self.shown.setdefault("resourceStatus", {}).setdefault("scheduling", {})
        if math.isfinite(self.deadline):
            shown["terminationTimestamp"] = timestamps.written(self.deadline)
        else:
            shown.pop("terminationTimestamp", None)

    def _become(self, state: str) -> None:
        self.history.append(state)
        if state != GONE:
            self.shown["status"] = state
