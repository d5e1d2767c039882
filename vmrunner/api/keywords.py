"""What Python passes: the command and the keywords of a build, and how they become a wish."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TypedDict

from vmrunner.config import field_checks
from vmrunner.errors import ConfigError
from vmrunner.lib import units
from vmrunner.model import ArtifactRule, Step
from vmrunner.services import requests
from vmrunner.services import secrets as secretvalues
from vmrunner.services.requests import BuildRequest

Duration = str | float | timedelta
Command = str | Sequence[str] | Sequence[Step]


class BuildOptions(TypedDict, total=False):
    """What a build can be given. Sizes take "4GiB" or bytes."""

    provider: str | None
    image: str | None  # the VM's
    bootstrap: bool
    container: str | None
    container_runtime: str | None  # runc, or runsc (gVisor)
    docker: bool
    privileged: bool
    source: str | os.PathLike[str] | None
    env: Mapping[str, str]
    secrets: Mapping[str, str | bytes] | Sequence[str]
    artifacts: Sequence[str | ArtifactRule]
    labels: Mapping[str, str]
    timeout: Duration | None
    ttl: Duration | None
    queue_timeout: Duration | None
    keep_on_failure: Duration | None
    network: str | None
    name: str | None
    cpus: int | None
    memory: str | int | None
    disk: str | int | None
    spot: bool
    retry_on_loss: bool
    priority: int
    idempotency_key: str | None


def wish(command: Command, options: BuildOptions) -> BuildRequest:
    """Keywords as a wish. Raises TypeError for a keyword that there is not."""
    unknown = sorted(options.keys() - BuildOptions.__annotations__.keys())
    if unknown:
        hint = units.did_you_mean(unknown[0], BuildOptions.__annotations__)
        raise TypeError(f"no option {unknown[0]!r} of a build ({hint})")
    said = dict(options)
    for name in ("secrets", "artifacts"):
        value = options.get(name)
        if value is not None and not (name == "secrets" and isinstance(value, Mapping)):
            field_checks.several(value, name)
    said["secrets"] = _secrets(options.get("secrets") or ())
    said["artifacts"] = tuple(
        rule if isinstance(rule, ArtifactRule) else ArtifactRule(glob=rule)
        for rule in options.get("artifacts") or ()
    )
    place = options.get("source")
    if isinstance(place, os.PathLike):
        said["source"] = os.fspath(place)
    for name in ("env", "labels"):
        value = options.get(name)
        said[name] = {} if value is None else field_checks.table(value, name)
    return BuildRequest(steps=_steps(command), **said)  # type: ignore[arg-type]


def _steps(command: Command) -> tuple[Step, ...]:
    if isinstance(command, str):
        steps = requests.command(command)
    elif any(isinstance(part, Step) for part in field_checks.several(command, "command")):
        steps = tuple(part if isinstance(part, Step) else Step(run=part) for part in command)
    else:
        steps = requests.command(command)  # type: ignore[arg-type]
    if not steps:
        raise ConfigError("command: missing", hint="a shell line, or a list of words or of Step")
    return steps


def _secrets(said: Mapping[str, str | bytes] | Sequence[str]) -> dict[str, bytes]:
    try:
        return secretvalues.read(said, os.environ)
    except ConfigError as error:
        fix = 'names of variables that are set, ["NAME=@FILE"], or {"NAME": value}'
        raise ConfigError(str(error.args[0]), hint=fix) from None
