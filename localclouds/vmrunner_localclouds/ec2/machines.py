"""One instance in a local EC2, from pending to forgotten: what moto leaves out of its life."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from moto.ec2.models.instances import StateReason

if TYPE_CHECKING:
    from moto.ec2.models import EC2Backend
    from moto.ec2.models.instances import Instance

    from vmrunner_localclouds.vms import Vm, VmFleet

USER: Final = StateReason("Client.UserInitiatedShutdown: User initiated shutdown", "")
GUEST: Final = StateReason("Client.InstanceInitiatedShutdown: Instance initiated shutdown", "")
BROKEN: Final = StateReason("Server.InternalError: Internal error on launch", "")
TAKEN_BACK: Final = StateReason("Server.SpotInstanceTermination: Spot instance termination", "")

_CODES: Final = {
    "pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64,
    "stopped": 80,
}  # fmt: skip
_ON: Final = ("pending", "running")
_OFF: Final = ("stopping", "stopped")


class World(Protocol):
    """The parts of its cloud that a machine needs."""

    boot_seconds: float
    delete_seconds: float
    shutdown_seconds: float
    tombstone: float
    visibility_lag: float
    hidden: set[str]
    bodies: VmFleet | None

    @property
    def lock(self) -> AbstractContextManager[object]: ...
    def now(self) -> float: ...
    def later(self, seconds: float, effect: Callable[[], object]) -> None: ...


@dataclass(slots=True, eq=False, kw_only=True)
class Ec2Machine:
    """One machine, as far as a test may know and change it. Changes of state go through the
    methods."""

    world: World
    backend: EC2Backend
    moto: Instance
    token: str
    stuck: bool = False  # accepts its death, and only a forced one comes
    forced: bool = False
    history: list[str] = field(default_factory=list)  # its states
    body: Vm | None = None  # with one it runs when that runs, and ends when that ends

    # --- what is true ---

    @property
    def id(self) -> str:
        return str(self.moto.id)

    @property
    def state(self) -> str:
        return self.moto.state

    @property
    def alive(self) -> bool:
        """True if it bills."""
        return self.state in (*_ON, *_OFF)

    @property
    def off(self) -> bool:
        return self.state in (*_OFF, "terminated")

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.backend.tags.get(self.id, {}))

    @property
    def instance(self) -> str:
        """The id that vmrunner gave it."""
        return self.tags.get("vmrunner:instance", "")

    @property
    def protected(self) -> bool:
        return bool(self.moto.disable_api_termination)

    @protected.setter
    def protected(self, value: bool) -> None:
        self.moto.disable_api_termination = value

    @property
    def stop_protected(self) -> bool:
        """True if it is protected from a stop, and from termination as well."""
        return bool(self.moto.disable_api_stop)

    @stop_protected.setter
    def stop_protected(self, value: bool) -> None:
        self.moto.disable_api_stop = value

    @property
    def zone(self) -> str:
        return str(self.moto.availability_zone)

    @property
    def hidden(self) -> bool:
        """True if it is created and not visible yet."""
        return self.id in self.world.hidden

    @property
    def metadata(self) -> bool:
        """True if its metadata service answers. Also while it is being switched off."""
        options = self.moto.metadata_options
        return str(options.http_endpoint) == "enabled" or options.state != "applied"

    # --- what befalls it ---

    def begin(self) -> None:
        self._become("pending")
        if self.body is None:
            self.world.later(self.world.boot_seconds, self.run)
        if self.world.visibility_lag > 0:
            self.world.hidden.add(self.id)
            self.world.later(self.world.visibility_lag, self._appear)

    def run(self) -> None:
        """Mark its VM, if any, as running."""
        if self.state == "pending":
            self._become("running")

    def stop(self, *, hard: bool = True) -> None:
        """Accept its stop; it comes `delete_seconds` later, and unless `hard` after the guest's own
        shutdown, for which EC2 waits. Its guest's power is cut at once."""
        if self.state != "running":
            return
        if self.body is not None:
            self.body.stop()
        self._become("stopping", USER)
        soft = 0.0 if hard else self.world.shutdown_seconds
        self.world.later(self.world.delete_seconds + soft, self._rest)

    def start(self) -> None:
        """Begin anew, with the disks that it had, and another public address: but with a body,
        which is reached where it was."""
        if self.state != "stopped":
            return
        self._become("pending")
        self.moto.state_reason, self.moto._reason = StateReason(), ""
        self.moto.launch_time = datetime.fromtimestamp(self.world.now(), UTC).replace(tzinfo=None)
        if self.body is None:
            for nic in self.moto.nics.values():
                nic.start()
            self.world.later(self.world.boot_seconds, self.run)
        else:
            assert self.world.bodies is not None
            self.world.bodies.start_again(self)

    def end(self, reason: StateReason = USER, *, force: bool = False) -> None:
        """Accept its termination; it ends `delete_seconds` later, unless it is stuck."""
        if self.state == "terminated":
            return
        if self.state != "shutting-down":
            self._become("shutting-down", reason)
        elif not force or self.forced:
            return
        self.forced = force
        if force or not self.stuck:
            self.world.later(self.world.delete_seconds, self.die)

    def power_off(self) -> None:
        """The guest switches itself off."""
        if self.state not in _ON:
            return
        if self.moto.instance_initiated_shutdown_behavior == "terminate":
            self.end(GUEST)
        else:
            self._become("stopped", GUEST)

    def break_down(self) -> None:
        """End what it runs on."""
        if self.state in _ON:
            self.end(BROKEN)

    def refuse(self, code: str) -> None:
        """End a machine that was accepted, and cannot be launched: `Client.InternalError`, …"""
        if self.state == "pending":
            self.end(StateReason(f"{code}: Client error on launch", ""))

    def preempt(self) -> None:
        """Interrupt a spot machine, as EC2 does."""
        self.end(TAKEN_BACK)

    def die(self) -> None:
        """Terminate it, with the volumes and interfaces that are deleted on termination."""
        if self.state == "terminated":
            return
        if self.body is not None:
            self.body.kill()
        reason, why = self.moto.state_reason, self.moto._reason
        kept_nics = [nic for nic in self.moto.nics.values() if not nic.delete_on_termination]
        self._appear()
        self.moto.terminate()
        self._become("terminated", reason)
        self.moto._reason = why
        for nic in kept_nics:
            nic.instance, nic.attachment_id, nic.status = None, None, "available"
        for request in self.backend.spot_instance_requests.values():
            if request.instance is self.moto:
                request.state, request._status_code = "closed", "instance-terminated-by-user"
        self.world.later(self.world.tombstone, self._forget)

    # --- within ---

    def _rest(self) -> None:
        if self.state == "stopping":
            self._become("stopped")
            if self.body is None:
                for nic in self.moto.nics.values():
                    nic.stop()

    def _appear(self) -> None:
        self.world.hidden.discard(self.id)

    def _forget(self) -> None:
        for name, reservation in list(self.backend.reservations.items()):
            with contextlib.suppress(ValueError):
                reservation.instances.remove(self.moto)
            if not reservation.instances:
                del self.backend.reservations[name]

    def _become(self, state: str, reason: StateReason | None = None) -> None:
        self.moto._state.name, self.moto._state.code = state, _CODES[state]
        self.history.append(state)
        if reason is not None:
            code = str(reason.message).partition(":")[0]
            self.moto.state_reason = StateReason(reason.message, code)
            when = datetime.fromtimestamp(self.world.now(), UTC)
            who = (
                "Server.SpotInstanceTermination" if code.startswith("Server") else "User initiated"
            )
            self.moto._reason = f"{who} ({when:%Y-%m-%d %H:%M:%S} GMT)"
