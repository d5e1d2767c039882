"""Validation: from a request (what a job file, Python or the command line asks for) to a checked
`BuildSpec`. Every check that needs neither ledger nor provider is here or in the fields of
`BuildRequest`; each failure is one line with field, value and fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeGuard, TypeVar

from vmrunner.config import cache_checks, field_checks, registry_auth
from vmrunner.config.longest_life import LongestLife, longest_life
from vmrunner.config.placed_faults import key_of, placed, together
from vmrunner.errors import ConfigError
from vmrunner.lib import secret_patterns, units
from vmrunner.model import RUNSC, ArtifactRule, BuildSpec, Limits, Network, NetworkPolicy, Step
from vmrunner.services import cache_keys, ceilings, sources
from vmrunner.services import secrets as secretvalues
from vmrunner.services.host_access import HostAccess, HostAccessCheck

if TYPE_CHECKING:
    from vmrunner.config.build_request import BuildRequest, SandboxRequest
    from vmrunner.config.jobfile import SelectedJob
    from vmrunner.config.settings import Settings
    from vmrunner.model import CacheRule

T = TypeVar("T")

ROOM: Final = 15 * 60.0  # ttl's default is timeout and this, for boot and collecting
SANDBOX_TTL: Final = 15 * 60.0
LITTLE_ROOM: Final = 5 * 60.0  # less than this is allowed, with a warning


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedRequest:
    """A build that may be submitted. `warnings` are for the user, one line each."""

    spec: BuildSpec
    secrets: Mapping[str, bytes]
    source: str | None = field(default=None, repr=False)  # as it was said, maybe with a password
    warnings: tuple[str, ...] = ()
    host_uses: tuple[str, ...] = ()  # things of this machine that the job file uses
    locations: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Add to a `ConfigError` from inside the line of the job file that it is about."""
        try:
            yield
        except ConfigError as error:
            raise placed_error(error, self.locations) from error.__cause__


class _Checks:
    """The checks of one request: all run, and what they find is raised together."""

    def __init__(self, request: BuildRequest) -> None:
        self._request = request
        self._faults = list(request.faults)

    def run(self, check: Callable[[], T], *fields: str) -> Callable[[], T]:
        """Run a check. Returns its value as a function, to be called after `finish`. A fault of
        `fields` that could not be read is among those of the file already."""
        try:
            value = check()
        except ConfigError as error:
            if not self._request.unread.intersection(fields):
                self._faults.append(placed_error(error, self._request.locations))
            return partial(_raise, error)
        return lambda: value

    def finish(self) -> None:
        """Raises ConfigError for all faults that were found."""
        if self._faults:
            raise together(self._faults)


def _raise(error: ConfigError) -> NoReturn:
    raise error


def check(request: BuildRequest, settings: Settings) -> CheckedRequest:
    """Raises `ConfigError` for all that cannot be, each with the line of the job file that says it.
    The source is not read here."""
    checks = _Checks(request)
    if _is_sandbox(request):
        checks.run(partial(_sandboxed, request))
        times = checks.run(partial(_sandbox_times, request, settings), "ttl")
    else:
        checks.run(partial(_commanded, request))
        times = checks.run(partial(_times, request, settings), "timeout")
    sourced = checks.run(partial(_source_and_caches, request))
    checks.run(partial(_separate, request))
    checks.run(partial(ceilings.check, request, settings))
    network = checks.run(partial(_network, request, settings), "network")
    runtime = checks.run(partial(_runtime, request, settings), "container_runtime")
    checks.run(partial(_environment, request))
    provider = checks.run(partial(settings.provider, request.provider), "provider")
    container = checks.run(partial(_container, request, settings))
    checks.finish()
    values: dict[str, Any] = {key: value for key, value in request if value is not None}
    for name in ("secrets", "container_runtime", "max_ttl"):
        values.pop(name, None)
    source, caches = sourced()
    values |= {
        "provider": provider(),
        "container": container(),
        "runtime": runtime(),
        "timeout": times().timeout,
        "ttl": times().ttl,
        "network": network(),
        "source": None if source is None else sources.shown(source),
        "caches": caches,
        "secrets": tuple(sorted(request.secrets)),
        "steps": request.steps or (),
        "sandbox_ttl": times().sandbox_ttl,
    }
    return CheckedRequest(
        spec=BuildSpec(**values),
        secrets=dict(request.secrets),
        source=source,
        warnings=(*times().warnings, *_unmasked(request)),
        host_uses=request.host_uses,
        locations=request.locations,
    )


def check_again(spec: BuildSpec, settings: Settings) -> None:
    """Raises ConfigError for what was allowed to a build, or to another user, and is not now."""
    settings.provider(spec.provider)
    ceilings.check(spec, settings)
    ceilings.network(spec.network, settings)
    longest = longest_life(settings, spec.provider)
    if spec.ttl > longest.seconds:
        raise _too_long(spec.ttl, longest)


def placed_error(error: ConfigError, locations: Mapping[str, str]) -> ConfigError:
    """The same, with the line of the job file that it is about."""
    return placed(error, locations.get(key_of(str(error.args[0])), ""))


# --- from each kind of speech --------------------------------------------------------------------


def command(text: str | Sequence[str]) -> tuple[Step, ...]:
    """A string is a shell line, a list is one command."""
    if isinstance(text, str):
        return (Step(run=text),) if text.strip() else ()
    if text and not text[0].strip():
        raise ConfigError(f"command: {text[0]!r} names no program", hint="such as -- make test")
    return (Step(argv=tuple(text)),) if text else ()


def from_job(
    chosen: SelectedJob,
    environ: Mapping[str, str],
    *,
    request: BuildRequest | None = None,
    allowed: HostAccess = HostAccess(),  # noqa: B008 - frozen
) -> BuildRequest:
    """The request of one job; its paths are relative to its file. What `request` says wins, and the
    job's is not looked at. What is wrong in the file, or what `host_access` does not allow, are
    its `faults`: `check` raises them."""
    from vmrunner.config.build_request import BuildFields, BuildRequest

    job, request = chosen.job, request or BuildRequest()
    access = HostAccessCheck(chosen, allowed)
    faults = list(chosen.faults)
    values = {
        name: value
        for name in BuildFields.model_fields
        if (value := getattr(job, name)) is not None and getattr(request, name) is None
    }
    if (source := values.pop("source", None)) is not None:
        try:
            values["source"] = access.source(source)
        except ConfigError as error:
            faults.append(placed(error, chosen.place("source")))
    secrets: dict[str, bytes] = {}
    for text in job.secrets:
        if text.partition("=")[0] not in request.secrets:
            try:
                secrets |= secretvalues.read([access.secret(text)], environ)
            except ConfigError as error:
                faults.append(placed(error, chosen.place("secrets", text)))
    values |= {
        "env": job.env,
        "secrets": secrets,
        "artifacts": [ArtifactRule(glob=item.path, always=item.always) for item in job.artifacts],
        "caches": [item.rule for item in job.caches],
        "labels": job.labels,
    }
    if request.steps is None:
        values["steps"] = [step.step for step in job.steps]
    if request.name is None and field_checks.NAME.fullmatch(chosen.name):
        values["name"] = chosen.name
    locations = {key: at for key in type(job).model_fields if (at := chosen.place(key))}
    return BuildRequest(**values).of_file(
        locations, access.uses, faults=faults, unread=chosen.unread
    )


# --- what fields must be together ----------------------------------------------------------------


def _commanded(request: BuildRequest) -> None:
    if not request.steps:
        raise ConfigError("command: missing", hint="put it after --, or name a job with -f FILE")


#: What only a build with steps can have.
OF_STEPS: Final = (
    "steps", "artifacts", "caches", "timeout", "keep_on_failure", "retry_on_loss", "bootstrap"
)  # fmt: skip


def _is_sandbox(request: BuildRequest) -> TypeGuard[SandboxRequest]:
    """`isinstance` would load what few commands need."""
    return request.is_sandbox


def _sandboxed(request: SandboxRequest) -> None:
    for name in OF_STEPS:
        if getattr(request, name):
            raise ConfigError(f"{name.replace('_', '-')}: a sandbox has none", hint="leave it out")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Times:
    """Seconds: of a build's steps, of its VM, and of a sandbox from when it is ready."""

    timeout: float
    ttl: float
    sandbox_ttl: float | None = None
    warnings: tuple[str, ...] = ()


def _sandbox_times(request: SandboxRequest, settings: Settings) -> _Times:
    boot, longest = Limits().booting, longest_life(settings, request.provider)
    ttl = SANDBOX_TTL if request.ttl is None else request.ttl
    most = ttl if request.max_ttl is None else request.max_ttl
    if ttl <= 0:
        raise ConfigError(f"ttl: {units.exact(ttl)} leaves no time", hint="more than 0")
    if most < ttl:
        raise ConfigError(
            f"max-ttl: {units.exact(most)} is shorter than the ttl {units.exact(ttl)}",
            hint="at least that, or leave it out",
        )
    if most + boot > longest.seconds:
        field = "ttl" if request.max_ttl is None else "max-ttl"
        raise ConfigError(
            f"{field}: {units.exact(most)} and {units.exact(boot)} to boot are above "
            f"{longest.owner}",
            hint=f"at most {units.exact(longest.seconds - boot)}, or {longest.fix}",
        )
    return _Times(timeout=most + boot, ttl=most + boot, sandbox_ttl=ttl)


def _separate(request: BuildRequest) -> None:
    both = sorted(request.env.keys() & request.secrets.keys())
    if both:
        raise ConfigError(f"secret: {both[0]} is set with env too", hint="give it once")


def _network(request: BuildRequest, settings: Settings) -> NetworkPolicy:
    network = ceilings.network(request.network, settings)
    if request.bootstrap and network is Network.NONE:
        raise ConfigError(
            "bootstrap: the VM installs Docker from the network, and network is none",
            hint="an image of vmrunner's own, or an open network",
        )
    return network


def _times(request: BuildRequest, settings: Settings) -> _Times:
    longest = longest_life(settings, request.provider)
    timeout = request.timeout if request.timeout is not None else settings.defaults.timeout
    shown = units.exact(timeout)
    if timeout <= 0:
        raise ConfigError(f"timeout: {shown} leaves no time", hint="more than 0")
    if timeout >= longest.seconds:
        raise ConfigError(
            f"timeout: {shown} is not below {longest.owner}",
            hint=f"a shorter timeout, or {longest.fix}",
        )
    if request.ttl is None:
        ttl = min(timeout + ROOM, longest.seconds)
        return _Times(timeout=timeout, ttl=ttl, warnings=_hold(request.keep_on_failure, ttl))
    ttl = request.ttl
    if ttl <= timeout:
        raise ConfigError(
            f"ttl: {units.exact(ttl)} is not longer than the timeout {shown}",
            hint=f"at least {units.exact(timeout + LITTLE_ROOM)}",
        )
    if ttl > longest.seconds:
        raise _too_long(ttl, longest)
    warnings = _hold(request.keep_on_failure, ttl)
    if ttl - timeout < LITTLE_ROOM:
        room = units.exact(ttl - timeout)
        warnings = (f"ttl: only {room} more than the timeout for boot and collecting", *warnings)
    return _Times(timeout=timeout, ttl=ttl, warnings=warnings)


def _too_long(ttl: float, longest: LongestLife) -> ConfigError:
    return ConfigError(
        f"ttl: {units.exact(ttl)} is above {longest.owner}",
        hint=f"a shorter ttl, or {longest.fix}",
    )


def _hold(kept: float | None, ttl: float) -> tuple[str, ...]:
    if kept is None:
        return ()
    if kept <= 0:
        raise ConfigError("keep-on-failure: 0s keeps nothing", hint="more, or leave it out")
    over = f"keep-on-failure: the VM's ttl of {units.exact(ttl)} ends it before that"
    return (over,) if kept > ttl else ()


def _runtime(request: BuildRequest, settings: Settings) -> str:
    """Return the runtime, which excludes what opens the container to the VM's kernel."""
    runtime = request.container_runtime or settings.defaults.container_runtime
    wide = "docker" if request.docker else "privileged" if request.privileged else None
    if runtime == RUNSC and wide is not None:
        raise ConfigError(
            f"{wide}: runsc (gVisor) cannot give it",
            hint="the container runtime runc, or leave it out",
        )
    if runtime == RUNSC and request.caches:
        raise ConfigError(
            "caches: runsc (gVisor) keeps the container's files to itself",
            hint="the container runtime runc, or leave them out",
        )
    if runtime == RUNSC and request.is_sandbox:
        raise ConfigError(
            "container-runtime: a sandbox cannot be in runsc: its commands are ended and its "
            "files reached by the VM's kernel",
            hint="the container runtime runc",
        )
    return runtime


def _environment(request: BuildRequest) -> None:
    shown = {k: v for k, v in request.secrets.items() if k != request.registry_secret}
    field_checks.environment(request.env, shown, request.steps or (Step(),))


def _unmasked(request: BuildRequest) -> Iterator[str]:
    """A warning for each secret that is too short to be masked."""
    for name, value in request.secrets.items():
        if len(value.strip()) < secret_patterns.SHORTEST:
            least = secret_patterns.SHORTEST
            yield f"secret: {name} is shorter than {least} bytes: the log will not mask it"


def _container(request: BuildRequest, settings: Settings) -> str:
    """The container's image. Refuses a secret for its registry that is not given, or that Docker
    could not use."""
    container = field_checks.container(request.container or settings.defaults.container)
    name = request.registry_secret
    if name is not None:
        if name not in request.secrets:
            raise ConfigError(
                f"registry_secret: no secret {name!r} is given", hint=f"give the secret {name} too"
            )
        registry_auth.header(container, request.secrets[name])
    return container


def _source_and_caches(request: BuildRequest) -> tuple[str | None, tuple[CacheRule, ...]]:
    source = _source(request.source)
    return source, cache_keys.named(cache_checks.cache_rules(request.caches, "caches"), source)


def _source(value: str | None) -> str | None:
    if value is None:
        return None
    sources.refuse_url(value)
    if not value.startswith(sources.GIT):
        value = str(Path(value).expanduser().absolute())
    sources.check(value)
    return value
