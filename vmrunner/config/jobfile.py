"""`vmrunner.yml`: named jobs with steps. Its JSON Schema is `docs/vmrunner.schema.json`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from vmrunner.config import cache_checks, field_checks
from vmrunner.config.build_request import BuildFields, Text
from vmrunner.config.placed_faults import together
from vmrunner.config.validation_errors import FieldError, Where, checked, explained
from vmrunner.config.yaml import MAX_BYTES, parse
from vmrunner.errors import ConfigError
from vmrunner.lib import globs, units
from vmrunner.lib.config_section import Seconds, Section
from vmrunner.model import CacheRule, Step

NAME: Final = "vmrunner.yml"


def _positive(seconds: float | None) -> float | None:
    if seconds is not None and seconds <= 0:
        raise FieldError(ConfigError(f"timeout: {seconds:g} leaves no time", hint="more than 0"))
    return seconds


Plain = Annotated[str, checked(lambda text, _: units.env_value("it", text))]
Env = Annotated[
    dict[Annotated[str, checked(units.env_name)], Plain],
    Field(json_schema_extra=field_checks.VARIABLES),
]
Labels = dict[
    Annotated[str, checked(lambda name, _: units.check_label(name, ""))],
    Annotated[str, checked(lambda text, _: units.check_label("label", text))],
]
Time = Annotated[Seconds, AfterValidator(_positive)]


class NoNullValues(Section):
    """A table in which a key without a value is an error: `network: $NET` is never a default."""

    model_config = ConfigDict(validate_default=False)

    @field_validator("*", mode="before")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("empty; give it a value, or leave it out")
        return value


_TEXT: Final[dict[str, Any]] = {"type": "string", "minLength": 1}
_ARGV: Final = {"type": "array", "prefixItems": [_TEXT], "items": {"type": "string"}}
#: What a schema says of a step: one of the two, where null is none. By `if` and not by `oneOf`, of
#: which generators of clients make types of their own.
_RUN_OR_ARGV: Final[dict[str, Any]] = {
    "if": {"properties": {"run": {"type": "string"}}, "required": ["run"]},
    "then": {"properties": {"argv": {"type": "null"}}},
    "else": {"properties": {"argv": _ARGV}, "required": ["argv"]},
}


class JobStep(NoNullValues):
    """One step: `run` is a shell line, `argv` one command without a shell."""

    run: Text | None = None
    argv: list[Plain] | None = Field(default=None, min_length=1)
    name: str = ""
    timeout: Time | None = None
    env: Env = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"run": value}
        return {"argv": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_of(self) -> JobStep:
        if (self.run is None) == (self.argv is None):
            raise ValueError("a step needs `run` or `argv`; give exactly one of the two")
        try:
            field_checks.steps([self.step], "steps")
        except ConfigError as error:
            raise FieldError(error) from None
        return self

    @property
    def step(self) -> Step:
        """Return the step as a request has it."""
        return Step(
            run=self.run,
            argv=tuple(self.argv or ()),
            name=self.name,
            timeout=self.timeout,
            env=self.env,
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        shape = handler.resolve_ref_schema(handler(core))
        argv = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        return {
            "description": "A shell line, one command as a list, or a table with more.",
            "anyOf": [{"type": "string", "minLength": 1}, argv, {**shape, **_RUN_OR_ARGV}],
        }


class JobArtifact(NoNullValues):
    """Artifacts to bring back: a glob relative to the work directory."""

    path: Annotated[str, Field(min_length=1), checked(lambda glob, _: globs.check(glob))]
    always: StrictBool = Field(default=False, description="Also when the steps failed.")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        shape = handler.resolve_ref_schema(handler(core))
        return {
            "description": "A glob, or a table with more.",
            "anyOf": [{"type": "string", "minLength": 1}, dict(shape)],
        }


class JobCache(NoNullValues):
    """A directory of the container that is restored before the steps and saved after success."""

    key: Annotated[
        str, Field(min_length=1), checked(lambda key, _: cache_checks.check_key(key))
    ] = Field(description="What it is found by; {hash:GLOB} names files of the source.")
    path: Annotated[str, checked(lambda path, _: cache_checks.check_path(path))]
    fallback: list[Annotated[str, checked(lambda text, _: cache_checks.check_fallback(text))]] = (
        Field(
            default_factory=list,
            max_length=cache_checks.FALLBACKS,
            description="Beginnings of keys that will do where nothing has this very key.",
        )
    )

    @property
    def rule(self) -> CacheRule:
        """Return it as a request has it."""
        return CacheRule(key=self.key, path=self.path, fallback=tuple(self.fallback))


class JobDefaults(BuildFields, NoNullValues):
    """Defaults for every job of a file that does not say otherwise."""

    # Of its own are the tables and lists, whose items have a line each, and what a path means.
    source: Text | None = Field(
        default=None, description="A directory, relative to this file, or git+URL@REF."
    )
    env: Env = Field(default_factory=dict)
    secrets: list[Annotated[str, checked(lambda text, _: field_checks.secret(text))]] = Field(
        default_factory=list, description="Names of environment variables, or NAME=@FILE."
    )
    artifacts: list[JobArtifact] = Field(default_factory=list)
    caches: list[JobCache] = Field(default_factory=list)
    labels: Labels = Field(default_factory=dict)

    _some = field_validator("timeout", "keep_on_failure")(_positive)

    @field_validator("ttl")
    @classmethod
    def _longer(cls, ttl: float | None, seen: ValidationInfo) -> float | None:
        timeout = seen.data.get("timeout")
        if ttl is not None and timeout is not None and ttl <= timeout:
            raise ValueError(f"not longer than the timeout {units.exact(timeout)}; give it more")
        return ttl


class Job(JobDefaults):
    """A job, as `vmrunner run -f vmrunner.yml NAME` submits it. Flags override it."""

    steps: list[JobStep] = Field(min_length=1)


class JobFile(Section):
    """The whole file. Keys that begin with `x-` are for anchors alone."""

    model_config = ConfigDict(json_schema_extra={"patternProperties": {"^x-": {}}})

    version: Literal[1] = 1
    env: Env = Field(default_factory=dict, description="Of every job.")
    defaults: JobDefaults = Field(
        default=JobDefaults(), description="Of every job that does not say."
    )
    jobs: dict[str, Job] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _without_anchors(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if not str(key).startswith("x-")}


class SelectedJob(NamedTuple):
    """One job, and the directory that its paths are relative to. `faults` are what is wrong in its
    file: then it is what could be read, `unread` are its keys that could not, and no build may come
    of it. `locations` say where a key, or one secret, is written ("FILE:LINE: ")."""

    name: str
    job: Job
    directory: Path
    faults: tuple[ConfigError, ...] = ()
    unread: frozenset[str] = frozenset()
    locations: Mapping[str, str] = MappingProxyType({})

    def place(self, key: str, item: str = "") -> str:
        """ "FILE:LINE: " of a key, or of one of its items; "" where the job has neither."""
        return self.locations.get(f"{key} {item}") or self.locations.get(key, "")


def choose(path: Path, wanted: str | None) -> SelectedJob:
    """The job called `wanted`; None is the only one. Raises ConfigError when there is none, or
    nothing can be made of the file."""
    try:
        with path.open("rb") as opened:
            text = opened.read(MAX_BYTES + 1)  # more is refused
    except FileNotFoundError:
        raise ConfigError(f"file: no file {str(path)!r}", hint="name it with -f") from None
    except OSError as error:
        raise ConfigError(f"file: {str(path)!r} cannot be read: {error.strerror}") from None
    table, lines = parse(text, str(path), raw=_is_text)

    def place(where: Where) -> str:
        return _place(str(path), where, lines)

    file, wrong, faults = _readable(table, place)
    jobs = file.jobs
    if wanted is None:
        if len(jobs) > 1:
            hint = f"one of: {', '.join(jobs)}"
            several = ConfigError(f"job: {path} has several, and none is named", hint=hint)
            raise together([*faults, several])
        wanted = next(iter(jobs))
    if wanted not in jobs:
        hint = units.did_you_mean(wanted, jobs)
        raise faults[0] if faults else ConfigError(f"job: no job {wanted!r} in {path}", hint=hint)
    shared = file.defaults.model_copy(update={"env": {**file.env, **file.defaults.env}})
    job = jobs[wanted].over(shared)
    # Of tables that say the same the last counts.
    tables: tuple[Where, ...] = ((), ("defaults",), ("jobs", wanted))
    keys = [(*at, key) for at in tables for key in Job.model_fields]
    locations = {str(at[-1]): place(at) for at in keys if at in lines}
    for at in keys:
        if at[-1] == "secrets" and isinstance(named := _value(table, at), list):
            locations |= {f"secrets {text}": place((*at, i)) for i, text in enumerate(named)}
    unread = {str(at[-1]) for at in map(_key, wrong) if at in keys}
    return SelectedJob(
        wanted,
        job,
        path.parent,
        faults,
        frozenset(key for key in unread if getattr(job, key) is None),
        locations,
    )


def _readable(
    table: Any, place: Callable[[Where], str]
) -> tuple[JobFile, list[Where], tuple[ConfigError, ...]]:
    """The readable part of a file, and the faults of the rest. Raises ConfigError when
    there is no job in it."""
    try:
        return JobFile.model_validate(table), [], ()
    except ValidationError as error:
        fault = explained(error, JobFile, place)
        wrong = [detail["loc"] for detail in error.errors(include_url=False)]
    try:
        return JobFile.model_validate(_without(table, wrong)), wrong, (fault,)
    except ValidationError:
        raise fault from None


def _without(table: Any, wrong: Iterable[Where]) -> Any:
    """Return a copy without these keys, and of secrets without these items. A job has steps all the
    same, which no build will run."""
    remaining = copy.deepcopy(table)
    cuts = {loc[: len(key) + (key[-1:] == ("secrets",))] for loc in wrong if (key := _key(loc))}
    # The last item of a list first: then the others keep their places.
    for *above, last in sorted(cuts, key=lambda at: at[-1] if isinstance(at[-1], int) else -1)[
        ::-1
    ]:
        holder = _value(remaining, above)
        if last == "steps" and len(above) == 2:
            holder[last] = ["true"]
        elif isinstance(last, int) or last in holder:
            del holder[last]
    return remaining


def _key(loc: Where) -> Where:
    """Return the key of a job, of the defaults or of the file in which this place is."""
    return loc[: {"jobs": 3, "defaults": 2}.get(str(loc[0]), 1)] if loc else ()


def _value(table: Any, at: Iterable[str | int]) -> Any:
    """The value below these keys, or None."""
    for key in at:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def schema() -> dict[str, Any]:
    """The JSON Schema of `vmrunner.yml`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **JobFile.model_json_schema(),
        "title": "vmrunner.yml",
    }


def _is_text(where: Where) -> bool:
    """True where a plain scalar is text whatever it looks like: 1.10, no and 0755 stay as
    written."""
    texts = ("env", "labels", "argv", "secrets", "steps")
    in_short_argv = len(where) >= 3 and where[-3] == "steps" and isinstance(where[-1], int)
    return in_short_argv or (len(where) >= 2 and where[-2] in texts)


def _place(name: str, where: Where, lines: Mapping[Where, int]) -> str:
    cuts = (where[:cut] for cut in range(len(where), -1, -1))
    return f"{name}:{next((lines[cut] for cut in cuts if cut in lines), 1)}: "
