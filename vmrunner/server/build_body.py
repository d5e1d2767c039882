"""Bodies of `POST /builds` and `POST /sandboxes`: a job of a job file, with values where that names
what a host has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, Field, StrictBool, field_validator, model_validator

from vmrunner.config import cache_checks, field_checks
from vmrunner.config.build_request import BuildRequest, SandboxRequest
from vmrunner.config.jobfile import JobArtifact, JobCache, JobDefaults, JobStep
from vmrunner.config.validation_errors import checked
from vmrunner.lib.config_section import Seconds
from vmrunner.model import ArtifactRule, Network
from vmrunner.server import body_lengths, shown_bodies

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LISTED: Final[Mapping[str, type[BaseModel]]] = {
    "steps": JobStep, "artifacts": JobArtifact, "caches": JobCache,
}  # fmt: skip


def _without_nulls(value: Any, model: type[BaseModel]) -> Any:
    """Return an object without those fields of its model that are null; others are wrong names."""
    if not isinstance(value, dict):
        return value
    return {
        name: found
        for name, found in value.items()
        if found is not None or name not in model.model_fields
    }


class _AskedFor(JobDefaults):
    """Request over HTTP: values only. The client resolves paths, variables and git."""

    _sandbox: ClassVar[bool] = False

    source: str | None = Field(
        default=None, description="The digest that PUT /sources gave: sha256:…"
    )
    source_name: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="What people call the source; default: its digest."
    )
    secrets: dict[str, str] = Field(  # type: ignore[assignment]
        default_factory=dict,
        description="Values by name, to the letter: @FILE is read by the command line alone.",
        json_schema_extra=field_checks.VARIABLES,
        repr=False,
    )
    name: Annotated[str, checked(field_checks.build_name)] | None = Field(
        default=None, description="A name, usable instead of the id."
    )
    idempotency_key: Annotated[str, checked(field_checks.idempotency_key)] | None = Field(
        default=None, description="Submit once: the same key is the same build."
    )
    foreground: StrictBool = Field(
        default=False, description="It ends unless POST …/lease renews its lease within 60 s."
    )

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        """Check lengths before anything is parsed: what is parsed in vain costs as much. A field
        that is null is one that was not said, as clients made from the API's document say it."""
        if not isinstance(value, dict):
            return value
        value = shown_bodies.request_of(value, sandbox=cls._sandbox)
        body_lengths.check(value)
        body = _without_nulls(value, cls)
        for name, model in _LISTED.items():
            if isinstance(items := body.get(name), list):
                body[name] = [_without_nulls(item, model) for item in items]
        return body

    @field_validator("secrets")
    @classmethod
    def _encodable(cls, value: dict[str, str]) -> dict[str, str]:
        try:
            "".join(value.values()).encode()
        except UnicodeEncodeError:
            raise ValueError("one is not UTF-8; encode it, with base64 for example") from None
        return value

    @field_validator("source_name")
    @classmethod
    def _printable(cls, value: str | None) -> str | None:
        if value is not None and not value.isprintable():
            raise ValueError("it holds a control character; leave that out")
        return value

    @field_validator("source")
    @classmethod
    def _uploaded(cls, value: str | None) -> str | None:
        if value is not None and not _DIGEST.fullmatch(value):
            raise ValueError("not a digest; upload the source with PUT /api/v1/sources first")
        return value

    def _given(self) -> dict[str, Any]:
        """The fields that are set, as a request takes them. The services find the source."""
        values: dict[str, Any] = {
            name: value
            for name in SandboxRequest.model_fields
            if name not in ("steps", "source", "secrets", "artifacts", "caches")
            and (value := getattr(self, name, None)) is not None
        }
        return values | {"secrets": {name: value.encode() for name, value in self.secrets.items()}}


class BuildBody(_AskedFor):
    """A build."""

    steps: list[JobStep] = Field(min_length=1, max_length=field_checks.STEPS)
    artifacts: list[JobArtifact] = Field(default_factory=list, max_length=field_checks.ARTIFACTS)
    caches: list[JobCache] = Field(default_factory=list, max_length=cache_checks.CACHES)

    @field_validator("caches")
    @classmethod
    def _named(cls, value: list[JobCache]) -> list[JobCache]:
        for cache in value:
            if next(cache_checks.globs_of(cache.key), None) is not None:
                raise ValueError("no server reads your files; put the hash itself into the key")
        return value

    @property
    def request(self) -> BuildRequest:
        """Return it as the services take it."""
        return BuildRequest(
            **self._given(),
            steps=tuple(item.step for item in self.steps),
            artifacts=tuple(
                ArtifactRule(glob=item.path, always=item.always) for item in self.artifacts
            ),
            caches=tuple(item.rule for item in self.caches),
        )


class SandboxBody(_AskedFor):
    """A sandbox: a build without steps. Its network is none unless said."""

    _sandbox = True

    max_ttl: Seconds | None = Field(default=None, description="As far as it may be extended.")

    @field_validator("artifacts", "caches", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        if value:
            raise ValueError("a sandbox has none; leave it out")
        return value

    @property
    def request(self) -> BuildRequest:
        """Return it as the services take it."""
        return SandboxRequest(**{"network": Network.NONE, **self._given()})
