"""From what a user said (keywords, flags, a job) to a checked `BuildSpec`. Every check that needs
neither ledger nor provider is here; each failure is one line with field, value and fix."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from vmrunner.config import field_checks
from vmrunner.config.jobfile import SelectedJob
from vmrunner.config.settings import Settings
from vmrunner.errors import ConfigError
from vmrunner.lib import globs, secret_patterns, units
from vmrunner.model import RUNSC, RUNTIMES, ArtifactRule, BuildSpec, Network, Step
from vmrunner.services import secrets as secretvalues
from vmrunner.services import sources
from vmrunner.services.host_access import HostAccess, HostAccessCheck

ROOM: Final = 15 * 60.0  # ttl's default is timeout and this, for boot and collecting
LITTLE_ROOM: Final = 5 * 60.0  # less than this is allowed, with a warning
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)

Text = str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRequest:
    """What was said, as it was said; None is "not said". `secrets` are values by name."""

    steps: tuple[Step, ...] | None = None
    provider: Text = None
    image: Text = None
    bootstrap: bool | None = None
    container: Text = None
    container_runtime: Text = None
    docker: bool | None = None
    privileged: bool | None = None
    source: Text = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    artifacts: tuple[ArtifactRule, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    timeout: str | float | timedelta | None = None
    ttl: str | float | timedelta | None = None
    queue_timeout: str | float | timedelta | None = None
    keep_on_failure: str | float | timedelta | None = None
    network: str | None = None
    name: Text = None
    cpus: int | None = None
    memory: str | int | None = None
    disk: str | int | None = None
    spot: bool | None = None
    retry_on_loss: bool | None = None
    priority: int | None = None
    idempotency_key: Text = None
    taken: tuple[str, ...] = ()  # what a job file takes from this machine
    places: Mapping[str, str] = field(default_factory=dict)  # where it says each key

    def over(self, weaker: BuildRequest) -> BuildRequest:
        """This wish, with what it leaves unsaid from a weaker one. Tables and lists add up."""
        merged: dict[str, object] = {}
        for part in dataclasses.fields(self):
            mine, theirs = getattr(self, part.name), getattr(weaker, part.name)
            if part.name in ("env", "secrets", "labels"):
                merged[part.name] = {**theirs, **mine}
            elif part.name == "places":
                merged[part.name] = {k: at for k, at in theirs.items() if not getattr(self, k)}
            elif part.name in ("artifacts", "taken"):
                merged[part.name] = (*theirs, *mine)
            else:
                merged[part.name] = theirs if mine is None else mine
        return replace(self, **merged)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedRequest:
    """A build that may be submitted. `warnings` are for the user, one line each."""

    spec: BuildSpec
    secrets: Mapping[str, bytes]
    source: str | None = field(default=None, repr=False)  # as it was said, maybe with a password
    warnings: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()


#: What errors call the keys of a job file that have another name there.
_KEYS: Final = {
    "artifact": "artifacts",
    "command": "steps",
    "label": "labels",
    "secret": "secrets",
    "timeout of a step": "steps",
}


def check(wish: BuildRequest, settings: Settings) -> CheckedRequest:
    """Raises `ConfigError` for the first thing that cannot be, with the line of the job file that
    says it. The source is not read here."""
    try:
        return _check(wish, settings)
    except ConfigError as error:
        field = str(error.args[0]).partition(":")[0]
        place = wish.places.get(_KEYS.get(field, field.replace("-", "_")), "")
        raise ConfigError(f"{place}{error.args[0]}", hint=error.hint) from None


def _check(wish: BuildRequest, settings: Settings) -> CheckedRequest:
    _well_formed(wish)
    timeout, ttl, warnings = _times(wish, settings)
    kept = _optional(wish.keep_on_failure, "keep-on-failure")
    if kept is not None and kept <= 0:
        raise ConfigError("keep-on-failure: 0s keeps nothing", hint="more, or leave it out")
    if kept is not None and kept > ttl:
        warnings.append(f"keep-on-failure: the VM's ttl of {units.exact(ttl)} ends it before that")
    warnings += [
        f"secret: {name} is shorter than {secret_patterns.SHORTEST} bytes: the log will not mask it"
        for name, value in wish.secrets.items()
        if len(value.strip()) < secret_patterns.SHORTEST
    ]
    place = _source(wish.source)
    both = sorted(wish.env.keys() & wish.secrets.keys())
    if both:
        raise ConfigError(f"secret: {both[0]} is set with env too", hint="give it once")
    privileged = wish.privileged or False
    if privileged and not settings.limits.privileged:
        raise ConfigError(
            "privileged: not allowed here", hint="limits.privileged = true, or leave it out"
        )
    if wish.bootstrap and network(wish.network or settings.defaults.network) is Network.NONE:
        raise ConfigError(
            "bootstrap: the VM installs Docker from the network, and network is none",
            hint="an image of vmrunner's own, or --network open",
        )
    runtime = _runtime(wish, settings.defaults.container_runtime)
    if wish.cpus is not None and wish.cpus < 1:
        raise ConfigError(f"cpus: {wish.cpus} is too few", hint="at least 1")
    steps = _steps(wish)
    field_checks.environment(wish.env, wish.secrets, steps)
    spec = BuildSpec(
        steps=steps,
        provider=settings.provider(wish.provider),
        container=field_checks.container(wish.container or settings.defaults.container),
        timeout=timeout,
        ttl=ttl,
        image=wish.image,
        bootstrap=wish.bootstrap or False,
        docker=wish.docker or False,
        privileged=privileged,
        runtime=runtime,
        source=None if place is None else sources.shown(place),
        env={
            units.env_name(name): units.env_value(name, value) for name, value in wish.env.items()
        },
        secrets=tuple(sorted(wish.secrets)),
        artifacts=wish.artifacts,
        labels=dict(units.check_label(key, value) for key, value in wish.labels.items()),
        queue_timeout=_optional(wish.queue_timeout, "queue-timeout"),
        keep_on_failure=kept,
        network=network(wish.network or settings.defaults.network),
        name=_name(wish.name),
        cpus=wish.cpus,
        memory=_size(wish.memory, "memory", field_checks.LEAST_MEMORY),
        disk=_size(wish.disk, "disk", field_checks.LEAST_DISK),
        spot=wish.spot or False,
        retry_on_loss=wish.retry_on_loss or False,
        priority=wish.priority or 0,
        idempotency_key=_key(wish.idempotency_key),
    )
    return CheckedRequest(
        spec=spec,
        secrets=dict(wish.secrets),
        source=place,
        warnings=tuple(warnings),
        taken=wish.taken,
    )


# --- from each kind of speech --------------------------------------------------------------------


def command(said: str | Sequence[str]) -> tuple[Step, ...]:
    """A string is a shell line, a list is one command."""
    if isinstance(said, str):
        return (Step(run=said),) if said.strip() else ()
    return (Step(argv=tuple(said)),) if said else ()


def from_job(
    chosen: SelectedJob,
    environ: Mapping[str, str],
    *,
    said: BuildRequest | None = None,
    leave: HostAccess = HostAccess(),  # noqa: B008 - frozen
) -> BuildRequest:
    """The wish of one job; its paths are relative to its file. What `said` says is stronger: that
    of the job is not even looked at. Raises ConfigError for what `host_access` does not allow."""
    job, said = chosen.job, said or BuildRequest()
    taking = HostAccessCheck(chosen, leave)
    place = taking.source(job.source) if job.source is not None and said.source is None else None
    asked = [text for text in job.secrets if text.partition("=")[0] not in said.secrets]
    return BuildRequest(
        steps=tuple(
            Step(
                run=step.run,
                argv=tuple(step.argv or ()),
                name=step.name,
                timeout=step.timeout,
                env=step.env,
            )
            for step in job.steps
        ),
        provider=job.provider,
        image=job.image,
        bootstrap=job.bootstrap,
        container=job.container,
        container_runtime=job.container_runtime,
        docker=job.docker,
        privileged=job.privileged,
        source=place,
        env=job.env,
        secrets=secretvalues.read([taking.secret(text) for text in asked], environ),
        artifacts=tuple(ArtifactRule(glob=item.path, always=item.always) for item in job.artifacts),
        labels=job.labels,
        timeout=job.timeout,
        ttl=job.ttl,
        queue_timeout=job.queue_timeout,
        keep_on_failure=job.keep_on_failure,
        network=job.network,
        name=chosen.name if _NAME.fullmatch(chosen.name) else None,
        cpus=job.cpus,
        memory=job.memory,
        disk=job.disk,
        spot=job.spot,
        retry_on_loss=job.retry_on_loss,
        priority=job.priority,
        taken=tuple(taking.taken),
        places={key: at for key in type(job).model_fields if (at := job.place(key))},
    )


# --- single fields -------------------------------------------------------------------------------

_TEXTS: Final = (
    "provider",
    "image",
    "container",
    "container_runtime",
    "network",
    "name",
    "source",
)
_FLAGS: Final = ("bootstrap", "docker", "privileged", "spot", "retry_on_loss")


def _well_formed(wish: BuildRequest) -> None:
    """Types, and text that can be written down: Python passes whatever it is given."""
    for name in _TEXTS:
        if (value := getattr(wish, name)) is not None:
            field_checks.text(value, name.replace("_", "-"))
    for name in _FLAGS:
        if (value := getattr(wish, name)) is not None:
            field_checks.flag(value, name.replace("_", "-"))
    if wish.cpus is not None:
        field_checks.whole(wish.cpus, "cpus")
    if wish.priority is not None:
        field_checks.whole(wish.priority, "priority")
    field_checks.table(wish.env, "env")
    field_checks.table(wish.labels, "labels")
    for rule in wish.artifacts:
        field_checks.flag(rule.always, "artifacts: always")
        globs.check(field_checks.characters(rule.glob, "artifacts"))


def network(value: str) -> Network:
    try:
        return Network(value)
    except ValueError:
        known = ", ".join(member.value for member in Network)
        raise ConfigError(f"network: no policy {value!r}", hint=f"one of: {known}") from None


def _steps(wish: BuildRequest) -> tuple[Step, ...]:
    if not wish.steps:
        raise ConfigError("command: missing", hint="put it after --, or name a job with -f FILE")
    return tuple(map(_step, wish.steps))


def _step(step: Step) -> Step:
    if step.run is not None and step.argv:
        raise ConfigError(
            f"command: {step.title!r} has `run` and `argv`", hint="give exactly one of the two"
        )
    words = [step.run] if step.run is not None else list(field_checks.several(step.argv, "argv"))
    words = [field_checks.characters(word, "command") for word in words]
    if not words or not words[0] or any("\0" in word for word in words):
        raise ConfigError(
            f"command: {step.title!r} is not a command", hint="not empty, and no NUL byte"
        )
    if step.run is None and (longest := max(words, key=len)):
        field_checks.word(longest)
    field_checks.characters(step.name, "name of a step")
    for name, value in field_checks.table(step.env, "env").items():
        units.env_value(units.env_name(name), value)
    if step.timeout is None:
        return step
    seconds = units.duration(step.timeout, "timeout of a step")
    if seconds <= 0:
        raise ConfigError(f"timeout: {seconds:g} of a step", hint="more than 0")
    return replace(step, timeout=seconds)


def _times(wish: BuildRequest, settings: Settings) -> tuple[float, float, list[str]]:
    longest = settings.limits.max_ttl
    said = wish.timeout if wish.timeout is not None else settings.defaults.timeout
    timeout = units.duration(said, "timeout")
    shown = units.exact(timeout)
    if timeout <= 0:
        raise ConfigError(f"timeout: {shown} leaves no time", hint="more than 0")
    if timeout >= longest:
        raise ConfigError(
            f"timeout: {shown} is not below limits.max_ttl {units.exact(longest)}",
            hint="a shorter timeout, or a larger limits.max_ttl",
        )
    if wish.ttl is None:
        return timeout, min(timeout + ROOM, longest), []
    ttl = units.duration(wish.ttl, "ttl")
    if ttl <= timeout:
        raise ConfigError(
            f"ttl: {units.exact(ttl)} is not longer than the timeout {shown}",
            hint=f"at least {units.exact(timeout + LITTLE_ROOM)}",
        )
    if ttl > longest:
        raise ConfigError(
            f"ttl: {units.exact(ttl)} is above limits.max_ttl {units.exact(longest)}",
            hint="a shorter ttl, or a larger limits.max_ttl",
        )
    if ttl - timeout < LITTLE_ROOM:
        room = units.exact(ttl - timeout)
        return timeout, ttl, [f"ttl: only {room} more than the timeout for boot and collecting"]
    return timeout, ttl, []


def _runtime(wish: BuildRequest, default: str) -> str:
    """What opens the container to the VM's kernel cannot be had with what keeps it from there."""
    runtime = wish.container_runtime or default
    if runtime not in RUNTIMES:
        raise ConfigError(
            f"container-runtime: no runtime {runtime!r}", hint=f"one of: {', '.join(RUNTIMES)}"
        )
    wide = "docker" if wish.docker else "privileged" if wish.privileged else None
    if runtime == RUNSC and wide is not None:
        raise ConfigError(
            f"{wide}: runsc (gVisor) cannot give it",
            hint="--container-runtime runc, or leave it out",
        )
    return runtime


def _source(value: str | None) -> str | None:
    if value is None:
        return None
    sources.refuse_url(value)
    if not value.startswith(sources.GIT):
        value = str(Path(value).expanduser().absolute())
    sources.check(value)
    return value


def _optional(value: str | float | timedelta | None, name: str) -> float | None:
    return None if value is None else units.duration(value, name)


def _size(value: str | int | None, name: str, least: int) -> int | None:
    return None if value is None else field_checks.at_least(units.size(value, name), name, least)


def _name(value: str | None) -> str:
    if not value:
        return ""
    if not _NAME.fullmatch(value) or value.startswith(("b-", "vm-")):
        raise ConfigError(
            f"name: {value!r} cannot be a build's name",
            hint="at most 63 letters, digits, . _ -, and not beginning like an id",
        )
    return value


def _key(value: str | None) -> str | None:
    if value is not None and not (
        0 < len(field_checks.characters(value, "idempotency-key")) <= 255 and value.isprintable()
    ):
        raise ConfigError(
            f"idempotency-key: {value[:40]!r} cannot be one", hint="1 to 255 printable characters"
        )
    return value
