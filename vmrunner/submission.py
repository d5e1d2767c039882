"""From what a user said (keywords, flags, a job) to a checked `BuildSpec`. Every check that needs
neither ledger nor provider is here; each failure is one line with field, value and fix."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from vmrunner import globs, needles, source, units
from vmrunner.config import Settings
from vmrunner.errors import ConfigError
from vmrunner.jobfile import Chosen
from vmrunner.model import RUNSC, RUNTIMES, ArtifactRule, BuildSpec, Network, Step

ROOM: Final = 15 * 60.0  # ttl's default is timeout and this, for boot and collecting
LITTLE_ROOM: Final = 5 * 60.0  # less than this is allowed, with a warning
SECRET_BYTES: Final = 64 << 10
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE: Final = re.compile(
    rf"(?:(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:\d+/))(?::\d+)?/)?"
    rf"{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?",
    re.ASCII,
)

Text = str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
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

    def over(self, weaker: Wish) -> Wish:
        """This wish, with what it leaves unsaid from a weaker one. Tables and lists add up."""
        merged: dict[str, object] = {}
        for part in fields(self):
            mine, theirs = getattr(self, part.name), getattr(weaker, part.name)
            if part.name in ("env", "secrets", "labels"):
                merged[part.name] = {**theirs, **mine}
            elif part.name == "artifacts":
                merged[part.name] = (*theirs, *mine)
            else:
                merged[part.name] = theirs if mine is None else mine
        return replace(self, **merged)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A build that may be submitted. `warnings` are for the user, one line each."""

    spec: BuildSpec
    secrets: Mapping[str, bytes]
    source: str | None = field(default=None, repr=False)  # as it was said, maybe with a password
    warnings: tuple[str, ...] = ()


def check(wish: Wish, settings: Settings) -> Submission:
    """Raises `ConfigError` for the first thing that cannot be. The source is not read here."""
    timeout, ttl, warnings = _times(wish, settings)
    kept = _optional(wish.keep_on_failure, "keep-on-failure")
    if kept is not None and kept <= 0:
        raise ConfigError("keep-on-failure: 0s keeps nothing", hint="more, or leave it out")
    if kept is not None and kept > ttl:
        warnings.append(f"keep-on-failure: the VM's ttl of {units.exact(ttl)} ends it before that")
    warnings += [
        f"secret: {name} is shorter than {needles.SHORTEST} bytes: the log will not mask it"
        for name, value in wish.secrets.items()
        if len(value.strip()) < needles.SHORTEST
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
    spec = BuildSpec(
        steps=_steps(wish),
        provider=settings.provider(wish.provider),
        container=_container(wish.container or settings.defaults.container),
        timeout=timeout,
        ttl=ttl,
        image=wish.image,
        bootstrap=wish.bootstrap or False,
        docker=wish.docker or False,
        privileged=privileged,
        runtime=runtime,
        source=None if place is None else source.shown(place),
        env={
            units.env_name(name): units.env_value(name, value) for name, value in wish.env.items()
        },
        secrets=tuple(sorted(wish.secrets)),
        artifacts=_artifacts(wish.artifacts),
        labels=dict(units.check_label(key, value) for key, value in wish.labels.items()),
        queue_timeout=_optional(wish.queue_timeout, "queue-timeout"),
        keep_on_failure=kept,
        network=network(wish.network or settings.defaults.network),
        name=_name(wish.name),
        cpus=wish.cpus,
        memory=_size(wish.memory, "memory", 256 << 20),
        disk=_size(wish.disk, "disk", 1 << 30),
        spot=wish.spot or False,
        retry_on_loss=wish.retry_on_loss or False,
        priority=wish.priority or 0,
        idempotency_key=_key(wish.idempotency_key),
    )
    return Submission(spec=spec, secrets=dict(wish.secrets), source=place, warnings=tuple(warnings))


# --- from each kind of speech --------------------------------------------------------------------


def command(said: str | Sequence[str]) -> tuple[Step, ...]:
    """A string is a shell line, a list is one command."""
    if isinstance(said, str):
        return (Step(run=said),) if said.strip() else ()
    return (Step(argv=tuple(said)),) if said else ()


def from_job(chosen: Chosen, environ: Mapping[str, str]) -> Wish:
    """The wish of one job; its paths are relative to its file."""
    job = chosen.job
    place = job.source
    if place is not None and not place.startswith(source.GIT):
        place = str(chosen.directory / place)
    return Wish(
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
        secrets=secrets(job.secrets, environ, chosen.directory),
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
    )


def secrets(
    said: Sequence[str] | Mapping[str, str | bytes], environ: Mapping[str, str], directory: Path
) -> dict[str, bytes]:
    """Values by name. A list holds `NAME` (from the environment) or `NAME=@FILE`; the one newline
    at a file's end is not part of the secret."""
    if isinstance(said, Mapping):
        given = {name: _bytes(value) for name, value in said.items()}
    else:
        given = dict(_secret(text, environ, directory) for text in said)
    for name, value in given.items():
        units.env_name(name, "secret")
        if not value:
            raise ConfigError(f"secret: {name} is empty", hint="set it, or leave it out")
        if len(value) > SECRET_BYTES or b"\0" in value:
            raise ConfigError(
                f"secret: {name} is larger than {SECRET_BYTES >> 10} KiB or holds a NUL byte",
                hint="an environment variable cannot hold it; put a key to it there",
            )
    return given


def _secret(text: str, environ: Mapping[str, str], directory: Path) -> tuple[str, bytes]:
    name, equals, rest = text.partition("=")
    if not equals:
        if name not in environ:
            raise ConfigError(
                f"secret: {name!r} is not set in the environment",
                hint=f"export it, or give --secret {name}=@FILE",
            )
        return name, environ[name].encode(errors="surrogateescape")
    if not rest.startswith("@"):
        raise ConfigError(
            f"secret: the value of {name!r} is on the command line, where others can read it",
            hint=f"export it and give --secret {name}, or --secret {name}=@FILE",
        )
    path = directory / Path(rest[1:]).expanduser()
    try:
        with path.open("rb") as file:
            value = file.read(SECRET_BYTES + 2)
    except OSError as error:
        raise ConfigError(f"secret: {name}=@{rest[1:]}: {error.strerror}") from None
    return name, value.removesuffix(b"\n")


# --- single fields -------------------------------------------------------------------------------


def network(value: str) -> Network:
    try:
        return Network(value)
    except ValueError:
        known = ", ".join(member.value for member in Network)
        raise ConfigError(f"network: no policy {value!r}", hint=f"one of: {known}") from None


def _steps(wish: Wish) -> tuple[Step, ...]:
    if not wish.steps:
        raise ConfigError("command: missing", hint="put it after --, or name a job with -f FILE")
    steps = []
    for step in wish.steps:
        words = [step.run] if step.run is not None else list(step.argv)
        if not words or not words[0] or any(word is None or "\0" in word for word in words):
            raise ConfigError(
                f"command: {step.title!r} is not a command", hint="not empty, and no NUL byte"
            )
        for name, value in step.env.items():
            units.env_value(units.env_name(name), value)
        if step.timeout is not None:
            seconds = units.duration(step.timeout, "timeout of a step")
            if seconds <= 0:
                raise ConfigError(f"timeout: {seconds:g} of a step", hint="more than 0")
            step = replace(step, timeout=seconds)
        steps.append(step)
    return tuple(steps)


def _times(wish: Wish, settings: Settings) -> tuple[float, float, list[str]]:
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


def _container(value: str) -> str:
    if not _IMAGE.fullmatch(value) or len(value) > 512:
        raise ConfigError(
            f"container: {value!r} is not a container image's name",
            hint="such as debian:trixie or registry.example.org/team/image:tag",
        )
    return value


def _runtime(wish: Wish, default: str) -> str:
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
    if not value.startswith(source.GIT):
        value = str(Path(value).expanduser().absolute())
    source.check(value)
    return value


def _artifacts(rules: tuple[ArtifactRule, ...]) -> tuple[ArtifactRule, ...]:
    for rule in rules:
        globs.check(rule.glob)
    return rules


def _optional(value: str | float | timedelta | None, name: str) -> float | None:
    return None if value is None else units.duration(value, name)


def _size(value: str | int | None, name: str, least: int) -> int | None:
    if value is None:
        return None
    count = units.size(value, name)
    if count < least:
        raise ConfigError(f"{name}: {value} is too little", hint=f"at least {units.amount(least)}")
    return count


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
    if value is not None and not (0 < len(value) <= 255 and value.isprintable()):
        raise ConfigError(
            f"idempotency-key: {value[:40]!r} cannot be one", hint="1 to 255 printable characters"
        )
    return value


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
