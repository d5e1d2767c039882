"""Input of a session, its reporter, and the job message for the VM."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from vmrunner.config import registry_auth
from vmrunner.core.boxes import DOCKER, Box
from vmrunner.core.lifecycle import End
from vmrunner.errors import ConfigError
from vmrunner.lib.channels import TCP, Channel
from vmrunner.model import (
    Access,
    BuildRecord,
    BuildState,
    CacheRule,
    EventKind,
    FoundCache,
    Instance,
    Step,
)

if TYPE_CHECKING:
    from vmrunner.session.ssh.client import Connection

OTHER: Final = 6  # the supervisor's exit code where it has started another attempt
_NAME: Final = re.compile("[A-Za-z_][A-Za-z0-9_]*")


class CacheShelf(Protocol):
    """The caches that one build may have, where they lie."""

    most: int  # bytes that one may have

    def find(self, rule: CacheRule, until: float) -> FoundCache | None:
        """The cache that the build gets, its hash checked, before `until` on the monotonic clock.
        Raises VmrunnerError when it cannot be had."""

    def file(self, number: int, size: int) -> Path:
        """The file into which a packed cache of `size` bytes is brought. It is stored once the
        build has succeeded. Raises VmrunnerError where there is no room."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionJob:
    """One attempt of a build on one instance that has an address. Its epoch is the build's."""

    build: BuildRecord
    instance: Instance
    access: Access
    channel: Channel = TCP  # to the instance
    box: Box = DOCKER  # in it
    secrets: Mapping[str, bytes]
    source: Path | None  # a tar
    artifacts: Path  # the directory to bring them to
    log_bytes: int
    artifact_bytes: int
    boot_seconds: float = 600.0  # until SSH must have answered
    connection: Connection | None = None  # open to it already
    traceparent: str = ""  # of the build's own span, where there is to be one
    caches: CacheShelf | None = None
    guest_due: float | None = None  # when the guest is to switch itself off, if not as it was told

    @property
    def is_remote(self) -> bool:
        """True if the VM is on another host than ours."""
        address = self.instance.address
        return address is not None and not self.channel.is_local(address)


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


def order(job: SessionJob, now: float, caches: Sequence[Mapping[str, object]] = ()) -> bytes:
    """The job for the supervisor as JSON, secrets included: it goes over stdin of a verified
    connection. `now`: the VM's clock; `caches`: instructions about them. Raises ConfigError on what
    no shell could take."""
    spec = job.build.spec
    env = {
        "CI": "true",
        "VMRUNNER_BUILD": job.build.id,
        "VMRUNNER_ATTEMPT": str(job.build.attempt),
        **({"TRACEPARENT": job.traceparent} if job.traceparent else {}),
        **spec.env,
    }
    secrets = {k: value for k, value in job.secrets.items() if k != spec.registry_secret}
    for name, value in secrets.items():
        _check(name, value)
    for variables in (env, *(step.env for step in spec.steps)):
        for name, text in variables.items():
            _check(name, text.encode())
    message: dict[str, Any] = {
        "build": job.build.id,
        "attempt": f"{job.build.id}/{job.build.attempt}",
        **job.box.job_fields(spec),
        "timeout": spec.timeout,
        "log_bytes": job.log_bytes,
        "env": env,
        "secrets": {name: base64.b64encode(value).decode() for name, value in secrets.items()},
        "steps": [
            {"script": script(step), "env": dict(step.env), "timeout": step.timeout}
            for step in spec.steps
        ],
    }
    login = job.secrets.get(spec.registry_secret or "")
    if login is not None and not message.get("unit"):  # there the system has pulled it
        message["registry_auth"] = registry_auth.header(spec.container, login)
    if caches and job.caches is not None:
        message["caches"] = list(caches)
        message["cache_bytes"] = job.caches.most
        message["cache_gzip"] = job.is_remote
    if spec.sandbox_ttl is not None:
        message["sandbox"] = True
    if job.guest_due is not None:  # when it ends itself, and in how many seconds
        message["due"] = [job.guest_due, max(0.0, job.guest_due - now)]
    return json.dumps(message).encode()


def script(step: Step) -> str:
    """A shell script of the step, for `sh -e`."""
    text = step.run if step.run is not None else f"exec {shlex.join(step.argv)}"
    if "\0" in text:
        raise ConfigError(f"step {step.title!r}: it holds a NUL byte", hint="no command can")
    return text + "\n"


def hidden(job: SessionJob) -> tuple[bytes, ...]:
    """The values that no log may show."""
    login = job.secrets.get(job.build.spec.registry_secret or "")
    parts = () if login is None else registry_auth.hidden(job.build.spec.container, login)
    return (*job.secrets.values(), *parts)


def _check(name: str, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"environment: {name!r} is no name that a shell takes", hint="letters, digits and _"
        )
    if b"\0" in value:
        raise ConfigError(f"environment: {name} holds a NUL byte", hint="encode it as base64")
