"""`vmrunner.yml`: named jobs with steps. Its JSON Schema is `docs/vmrunner.schema.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from pydantic import Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from vmrunner import units
from vmrunner.config import Bytes, Seconds, Section
from vmrunner.errors import ConfigError
from vmrunner.explain import Where, explained
from vmrunner.model import Network
from vmrunner.plainyaml import parse

NAME: Final = "vmrunner.yml"


class JobStep(Section):
    """One step: `run` is a shell line, `argv` one command without a shell."""

    run: str | None = Field(default=None, min_length=1)
    argv: list[str] | None = Field(default=None, min_length=1)
    name: str = ""
    timeout: Seconds | None = None
    env: dict[str, str] = Field(default_factory=dict)

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
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        shape = handler.resolve_ref_schema(handler(core))
        argv = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        return {
            "description": "A shell line, one command as a list, or a table with more.",
            "anyOf": [{"type": "string", "minLength": 1}, argv, dict(shape)],
        }


class JobArtifact(Section):
    """What to bring back: a glob relative to the work directory."""

    path: str = Field(min_length=1)
    always: bool = Field(default=False, description="Also when the steps failed.")

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


class Job(Section):
    """What `vmrunner run -f vmrunner.yml NAME` submits. Flags go before it."""

    steps: list[JobStep] = Field(min_length=1)
    container: str | None = None
    container_runtime: Literal["runc", "runsc"] | None = Field(
        default=None, description="runsc is gVisor: a kernel of its own between build and VM."
    )
    provider: str | None = None
    image: str | None = Field(default=None, description="The VM's image.")
    bootstrap: bool | None = Field(
        default=None, description="The image is a plain Debian or Ubuntu: install what it needs."
    )
    docker: bool | None = Field(default=None, description="The build gets its own Docker.")
    privileged: bool | None = None
    source: str | None = Field(
        default=None, description="A directory, relative to this file, or git+URL@REF."
    )
    env: dict[str, str] = Field(default_factory=dict)
    secrets: list[str] = Field(
        default_factory=list, description="Names of environment variables, or NAME=@FILE."
    )
    artifacts: list[JobArtifact] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    timeout: Seconds | None = None
    ttl: Seconds | None = None
    queue_timeout: Seconds | None = None
    keep_on_failure: Seconds | None = None
    network: Network | None = None
    cpus: int | None = Field(default=None, ge=1)
    memory: Bytes | None = None
    disk: Bytes | None = None
    spot: bool | None = None
    retry_on_loss: bool | None = None
    priority: int | None = None


class JobFile(Section):
    """The whole file."""

    version: Literal[1] = 1
    jobs: dict[str, Job] = Field(min_length=1)


class Chosen(NamedTuple):
    """One job, and the directory that its paths are relative to."""

    name: str
    job: Job
    directory: Path


def load(path: Path) -> JobFile:
    """The file, checked. `ConfigError` says FILE:LINE, key, value and fix."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"file: no file {str(path)!r}", hint="name it with -f") from None
    except OSError as error:
        raise ConfigError(f"file: {str(path)!r} cannot be read: {error.strerror}") from None
    return read(text, str(path))


def read(text: bytes, name: str = NAME) -> JobFile:
    """The same, from bytes."""
    table, lines = parse(text, name, raw=_is_text)
    try:
        return JobFile.model_validate(table)
    except ValidationError as error:
        raise explained(error, JobFile, lambda where: _place(name, where, lines)) from None


def choose(path: Path, wanted: str | None) -> Chosen:
    """The job called `wanted`; None is the only one."""
    jobs = load(path).jobs
    if wanted is None:
        if len(jobs) > 1:
            raise ConfigError(
                f"job: {path} has several, and none is named", hint=f"one of: {', '.join(jobs)}"
            )
        wanted = next(iter(jobs))
    if wanted not in jobs:
        raise ConfigError(f"job: no job {wanted!r} in {path}", hint=units.meant(wanted, jobs))
    return Chosen(wanted, jobs[wanted], path.parent)


def schema() -> dict[str, Any]:
    """The JSON Schema of `vmrunner.yml`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **JobFile.model_json_schema(),
        "title": "vmrunner.yml",
    }


def _is_text(where: Where) -> bool:
    """Where a plain scalar is text whatever it looks like: 1.10, no and 0755 stay as written."""
    texts = ("env", "labels", "argv", "secrets", "steps")
    in_short_argv = len(where) >= 3 and where[-3] == "steps" and isinstance(where[-1], int)
    return in_short_argv or (len(where) >= 2 and where[-2] in texts)


def _place(name: str, where: Where, lines: Mapping[Where, int]) -> str:
    cuts = (where[:cut] for cut in range(len(where), -1, -1))
    return f"{name}:{next((lines[cut] for cut in cuts if cut in lines), 1)}: "
