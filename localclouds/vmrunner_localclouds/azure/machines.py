"""One VM, from its creation to nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.azure import children, timestamps
from vmrunner_localclouds.azure.api_error import Json
from vmrunner_localclouds.azure.faults import PREEMPTED, FailedLater
from vmrunner_localclouds.azure.resource_ids import VM
from vmrunner_localclouds.common.machine import GONE, LocalMachine

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

_OFF: Final = ("stopped", "deallocating", "deallocated", "", GONE)
_UP: Final = ("starting", "running")


@dataclass(slots=True, eq=False, kw_only=True)
class AzureMachine(LocalMachine):
    cloud: LocalAzure
    custom_data: bytes = b""
    user_data: bytes = b""
    hibernated: bool = False
    locked: bool = False  # a lock on it forbids deletes
    evicted: bool = False  # the cloud took it back
    failure: FailedLater | None = None  # why it is `Failed`
    _ready: Callable[..., None] = lambda *_: None

    # --- what is true ---

    @property
    def location(self) -> str:
        return str(self.shown["location"])

    @property
    def zone(self) -> str:
        """The zone within its location; empty: none."""
        return str((self.shown.get("zones") or [""])[0])

    @property
    def billed(self) -> bool:
        """True if its cores bill: until it is deallocated, whatever its guest does."""
        return self.state in ("starting", "running", "stopping", "stopped")

    @property
    def off(self) -> bool:
        return self.state in _OFF

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.shown.get("tags") or {})

    @property
    def instance(self) -> str:
        """The id that vmrunner gave it."""
        return self.tags.get("vmrunner:instance", "")

    @property
    def spot(self) -> bool:
        return bool(self.shown["properties"].get("priority") == "Spot")

    @property
    def size(self) -> str:
        return str(self.shown["properties"]["hardwareProfile"]["vmSize"])

    @property
    def ephemeral(self) -> bool:
        """True if its disk is its host's, and is lost when it leaves that host."""
        return "diffDiskSettings" in self.shown["properties"]["storageProfile"]["osDisk"]

    @property
    def dry(self) -> bool:
        """True if its zone has no room for one like it."""
        market = "spot" if self.spot else "on-demand"
        return (self.size, self.zone, market) in self.cloud.dry or self.zone in self.cloud.down

    # --- what befalls it ---

    def begin(self, ready: Callable[..., None] = lambda *_: None) -> None:
        """Start; `ready` is called when the guest has reported that it is up."""
        self._ready = ready
        self._become("starting")
        if self.body is None:
            self.cloud.later(self.cloud.boot_seconds, self._booted)

    def run(self) -> None:
        """Mark its VM as running. Its guest reports later that it is ready."""
        if self.state == "starting":
            self._become("running")

    def report_ready(self) -> None:
        """Let the guest's agent, or cloud-init, say that it is up."""
        self.run()
        if self.shown["properties"]["provisioningState"] in ("Creating", "Updating"):
            self.shown["properties"]["provisioningState"] = "Succeeded"
        self._ready()

    def give_up(self, broken: FailedLater) -> None:
        """Fail the create. The VM stays, failed, if the error leaves it."""
        if broken.runs:
            self.run()
        self.failure = broken
        self.shown["properties"]["provisioningState"] = "Failed"
        children.abandon(self, broken)
        if VM not in broken.remains:
            self._die()

    def power_off(self) -> None:
        """The guest switches itself off: it is stopped, keeps its room, and bills."""
        if self.state in _UP:
            self._become("stopped")

    def break_down(self) -> None:
        """Let its host fail, and not be restarted."""
        self.power_off()

    def stop(self, then: Callable[[], None] = lambda: None) -> None:
        """Stop it by the API: as if its guest had switched itself off."""
        self._wind_down("stopping", "stopped", then)

    def deallocate(
        self, then: Callable[[], None] = lambda: None, *, hibernate: bool = False
    ) -> None:
        """Give up its room: its disk and its addresses stay, and its memory if it hibernates."""

        def done() -> None:
            self.hibernated = hibernate
            children.let_go(self)
            then()

        self._wind_down("deallocating", "deallocated", done, freeze=hibernate)

    def start(self, then: Callable[[], None] = lambda: None) -> None:
        """Start it again; one that is hibernated goes on where it was."""
        if self.state in _UP:
            then()
            return
        children.take_again(self)
        self.begin(then)
        if self.body is not None and self.hibernated:
            self.body.thaw()
            self.report_ready()
        elif self.body is not None:
            assert self.cloud.bodies is not None
            self.cloud.bodies.start_again(self)
        self.hibernated = False

    def end(self, then: Callable[[], None] = lambda: None) -> None:
        """Accept its delete; it goes `delete_seconds` later, unless it is stuck."""
        self.deleting = True
        self._ready(PREEMPTED)
        self.shown["properties"]["provisioningState"] = "Deleting"
        self._ends.append(then)
        if not self.stuck:
            self.cloud.later(self.cloud.delete_seconds, self._ended)

    def evict(self) -> None:
        """The cloud takes a Spot VM back: it is deleted or deallocated, as it was ordered."""
        if not self.billed or self.deleting:
            return
        self.evicted = True
        if self.shown["properties"].get("evictionPolicy") == "Delete":
            self.end()
        else:
            self.deallocate()

    def vanish(self) -> None:
        """Remove it, and what is deleted with it."""
        if not self.gone:
            self._die()
            children.follow(self)

    def instance_view(self) -> Json:
        """The instance view, which a client asks for apart."""
        now = timestamps.written(self.cloud.now())
        statuses = [self._provisioning(now)]
        if self.state:
            statuses.append(_status(f"PowerState/{self.state}", f"VM {self.state}", ""))
        if self.hibernated:
            text = "VM hibernated"
            statuses.append(_status("HibernationState/Hibernated", text, ""))
        return {"computerName": self.name, "hyperVGeneration": "V2", "statuses": statuses}

    # --- within ---

    def _provisioning(self, now: str) -> Json:
        state = str(self.shown["properties"]["provisioningState"])
        if self.failure is None or state != "Failed":
            status = _status(
                f"ProvisioningState/{state.lower()}", f"Provisioning {state.lower()}", ""
            )
        else:
            code = f"ProvisioningState/failed/{self.failure.code}"
            status = _status(code, "Provisioning failed", self.failure.message)
            status["level"] = "Error"
        return {**status, "time": now}

    def _booted(self) -> None:
        if self.state == "starting" and not self.never_runs:
            self.report_ready()

    def _wind_down(
        self, through: str, to: str, then: Callable[[], None], *, freeze: bool = False
    ) -> None:
        if self.body is not None:
            (self.body.freeze if freeze else self.body.stop)()
        self._become(through)
        self.shown["properties"]["provisioningState"] = "Updating"

        def done() -> None:
            if not self.deleting and not self.gone:
                self._become(to)
                self.shown["properties"]["provisioningState"] = "Succeeded"
            then()

        self.cloud.later(self.cloud.stop_seconds, done)

    def _ended(self) -> None:
        if self.stuck or self.gone:
            return
        self.vanish()
        for then in self._ends:
            then()

    def _die(self) -> None:
        if self.body is not None:
            self.body.kill()
        self._become(GONE)
        self.cloud.forget(self)

    def _become(self, state: str) -> None:
        if not self.gone:
            self.history.append(state)


def _status(code: str, display: str, message: str) -> Json:
    return {
        "code": code,
        "level": "Info",
        "displayStatus": display,
        **({"message": message} if message else {}),
    }
