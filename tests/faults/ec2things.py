"""What exists at EC2, in a fault world's words (`clouds.Thing`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from vmrunner.model import Power, Ref
from vmrunner.providers.ec2.kinds import POWER
from vmrunner.testing.localcloud import Machine


class Wish(NamedTuple):
    """What was asked for, by the tags of the request."""

    instance: str
    build: str
    deadline: float


@dataclass(eq=False, kw_only=True)
class Thing:
    """What is no VM."""

    ref: Ref
    tags: Mapping[str, str]
    created_at: float
    born_of_us: bool
    there: Callable[[], bool]
    order: Wish | None = None
    hung: bool = False  # the guest is dead, the machine bills
    stopped = preempted = sealed = False
    reverted_at = None

    @property
    def power(self) -> Power:
        return Power.RUNNING if self.there() else Power.DEAD

    @property
    def alive(self) -> bool:
        return self.there()


@dataclass(eq=False, kw_only=True)
class Vm(Thing):
    """A VM, `local` being the endpoint's own view of it."""

    local: Machine
    there: Callable[[], bool] = field(default=lambda: True)

    @property
    def power(self) -> Power:
        return POWER[self.local.state]

    @property
    def alive(self) -> bool:
        return self.local.alive

    @property
    def stopped(self) -> bool:
        return self.local.state == "stopped" or self._ended_by("Client.InstanceInitiated")

    @property
    def preempted(self) -> bool:
        return self._ended_by("Server.SpotInstance")

    @property
    def protected(self) -> bool:
        return self.local.protected

    @protected.setter
    def protected(self, value: bool) -> None:
        self.local.protected = value

    @property
    def sealed(self) -> bool:
        return not self.local.metadata

    def _ended_by(self, reason: str) -> bool:
        told = self.local.moto.state_reason
        return told is not None and str(told.message).startswith(reason)
