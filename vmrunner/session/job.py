"""Input of a session, whom it reports to, and what it tells the VM."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from vmrunner.core.lifecycle import End
from vmrunner.errors import ConfigError
from vmrunner.model import Access, BuildRecord, BuildState, EventKind, Instance, Step
from vmrunner.ssh.client import Connection

_NAME: Final = re.compile("[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionJob:
    """One attempt of a build on one instance that has an address. Its epoch is the build's."""

    build: BuildRecord
    instance: Instance
    access: Access
    secrets: Mapping[str, bytes]
    source: Path | None  # a tar
    artifacts: Path  # the directory to bring them to
    log_bytes: int
    artifact_bytes: int
    boot_seconds: float = 600.0  # until SSH must have answered
    connection: Connection | None = None  # open to it already
    traceparent: str = ""  # of the build's own span, where there is to be one
    guest_due: float | None = None  # when the guest is to switch itself off, if not as it was told


class Reporter(Protocol):
    """The receiver of a session's words. Each call may raise Fenced: the session ends there and
    then."""

    def state(self, to: BuildState) -> None:
        """The build moved on. A state where it is or was already is nothing new."""

    def busy(self) -> None:
        """The VM works for the build from here on, while it is still being prepared."""

    def log(self, offset: int, data: bytes) -> None:
        """Masked bytes to be stored; `offset` is where the raw bytes ended in the VM's file."""

    def event(self, kind: EventKind, **data: str | int | float | bool | None) -> None:
        """Report that something happened. After a take-over the VM's own events come again."""

    def stored(self) -> int:
        """The raw offset up to which this attempt's log is stored."""

    def steps_started(self) -> None:
        """Report that from now on steps may have run."""


class AttemptOver(Exception):
    """The attempt ended in another way than by the supervisor's last event."""

    def __init__(self, end: End) -> None:
        super().__init__(end.message)
        self.end = end


def order(job: SessionJob, now: float) -> bytes:
    """Return the job for the supervisor, secrets included: it goes over stdin of a verified
    connection. `now`: the VM's clock. Raises ConfigError on what no shell could take."""
    spec = job.build.spec
    env = {
        "CI": "true",
        "VMRUNNER_BUILD": job.build.id,
        "VMRUNNER_ATTEMPT": str(job.build.attempt),
        **({"TRACEPARENT": job.traceparent} if job.traceparent else {}),
        **spec.env,
    }
    for name, value in job.secrets.items():
        _check(name, value)
    for variables in (env, *(step.env for step in spec.steps)):
        for name, text in variables.items():
            _check(name, text.encode())
    message: dict[str, Any] = {
        "build": job.build.id,
        "attempt": f"{job.build.id}/{job.build.attempt}",
        "container": spec.container,
        "runtime": spec.runtime,
        "docker": spec.docker,
        "privileged": spec.privileged,
        "network": spec.network.value,
        "timeout": spec.timeout,
        "log_bytes": job.log_bytes,
        "env": env,
        "secrets": {name: base64.b64encode(value).decode() for name, value in job.secrets.items()},
        "steps": [
            {"script": script(step), "env": dict(step.env), "timeout": step.timeout}
            for step in spec.steps
        ],
    }
    if job.guest_due is not None:  # when it ends itself, and in how many seconds
        message["due"] = [job.guest_due, max(0.0, job.guest_due - now)]
    return json.dumps(message).encode()


def script(step: Step) -> str:
    """A shell script of the step, for `sh -e`."""
    text = step.run if step.run is not None else f"exec {shlex.join(step.argv)}"
    if "\0" in text:
        raise ConfigError(f"step {step.title!r}: it holds a NUL byte", hint="no command can")
    return text + "\n"


def _check(name: str, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"environment: {name!r} is no name that a shell takes", hint="letters, digits and _"
        )
    if b"\0" in value:
        raise ConfigError(f"environment: {name} holds a NUL byte", hint="encode it as base64")
