"""Keywords of a build in Python, and how they become a request."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypedDict

from vmrunner.config import field_checks
from vmrunner.config.build_request import BuildRequest, SandboxRequest
from vmrunner.errors import ConfigError
from vmrunner.lib import units
from vmrunner.model import ArtifactRule, CacheRule, Network, Step
from vmrunner.services import requests
from vmrunner.services import secrets as secretvalues

Duration = units.Duration
Command = str | Sequence[str] | Sequence[Step]


class BuildOptions(TypedDict, total=False):
    """Options of a build: the fields of `BuildRequest`, for type checkers. Sizes take "4GiB"
    or bytes."""

    provider: str | None
    image: str | None  # the VM's
    bootstrap: bool | None
    container: str | None
    container_runtime: str | None  # runc, or runsc (gVisor)
    registry_secret: str | None  # one of `secrets`
    docker: bool | None
    privileged: bool | None
    source: str | os.PathLike[str] | None
    env: Mapping[str, str]
    secrets: Mapping[str, str | bytes] | Sequence[str]
    artifacts: Sequence[str | ArtifactRule]
    caches: Sequence[Mapping[str, Any] | CacheRule]
    labels: Mapping[str, str]
    timeout: Duration | None
    ttl: Duration | None
    queue_timeout: Duration | None
    keep_on_failure: Duration | None
    keep_logs: Duration | None
    network: (
        str | Mapping[str, Sequence[str]] | None
    )  # open, none, or {"allow": ["HOST[:PORT]", …]}
    name: str | None
    cpus: int | None
    memory: str | int | None
    disk: str | int | None
    spot: bool | None
    retry_on_loss: bool | None
    priority: int | None
    idempotency_key: str | None


class SandboxOptions(TypedDict, total=False):
    """Options of a sandbox: those of a build, as far as they are not about steps."""

    provider: str | None
    image: str | None  # the VM's
    container: str | None
    container_runtime: str | None  # runc: a sandbox can be in no other
    registry_secret: str | None  # one of `secrets`
    docker: bool | None
    privileged: bool | None
    source: str | os.PathLike[str] | None
    env: Mapping[str, str]
    secrets: Mapping[str, str | bytes] | Sequence[str]
    labels: Mapping[str, str]
    ttl: Duration | None
    max_ttl: Duration | None
    queue_timeout: Duration | None
    keep_logs: Duration | None
    network: str | Mapping[str, Sequence[str]] | None
    name: str | None
    cpus: int | None
    memory: str | int | None
    disk: str | int | None
    spot: bool | None
    priority: int | None
    idempotency_key: str | None


#: Options of other makers of sandboxes, and what they are called here.
_ELSEWHERE: Final = {
    **dict.fromkeys(("timeout", "idle_timeout", "auto_stop_interval"), "ttl"),
    **dict.fromkeys(("envs", "env_vars", "environment"), "env"),
    **dict.fromkeys(("metadata", "tags"), "labels"),
    **dict.fromkeys(("template", "snapshot"), "container"),
    **dict.fromkeys(("allow_internet_access", "block_network", "network_block_all"), "network"),
    "cpu": "cpus",
}


def build_request(command: Command, options: BuildOptions) -> BuildRequest:
    """Keywords as a request. Raises TypeError for a keyword that there is not."""
    names = BuildRequest.model_fields.keys() - {"steps"}
    return BuildRequest(steps=_steps(command), **_given(options, names, "a build"))


def sandbox_request(options: SandboxOptions) -> SandboxRequest:
    """The same for a sandbox, whose network is none unless they say otherwise."""
    names = SandboxOptions.__annotations__.keys()
    if foreign := next((name for name in options if name in _ELSEWHERE), None):
        raise TypeError(f"no option {foreign!r} of a sandbox (here it is {_ELSEWHERE[foreign]!r})")
    values = _given(options, names, "a sandbox")
    return SandboxRequest(**{"network": Network.NONE.value, **values})


def _given(options: Mapping[str, Any], names: Collection[str], noun: str) -> dict[str, Any]:
    """Return those that were said, as a request takes them."""
    if unknown := sorted(options.keys() - names):
        hint = units.did_you_mean(unknown[0], names)
        raise TypeError(f"no option {unknown[0]!r} of {noun} ({hint})")
    values = {name: value for name, value in options.items() if value is not None}
    if "secrets" in values:
        values["secrets"] = _secrets(values["secrets"])
    if isinstance(place := values.get("source"), os.PathLike):
        values["source"] = os.fspath(place)
    return values


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


def _secrets(secrets: Any) -> dict[str, bytes]:
    if not isinstance(secrets, Mapping):
        field_checks.several(secrets, "secrets")
    try:
        return secretvalues.read(secrets, os.environ)
    except ConfigError as error:
        fix = 'names of variables that are set, ["NAME=@FILE"], or {"NAME": value}'
        raise ConfigError(str(error.args[0]), hint=fix) from None
