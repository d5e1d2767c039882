"""Request for a build. Each option is one field, with its check, its unit and its help
text: job files, Python and the command line take it from here, and `BuildSpec` stores it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)

from vmrunner.config import cache_checks, field_checks
from vmrunner.config.policy_field import Policy
from vmrunner.config.validation_errors import FieldError, checked, converted, option_name, spoken
from vmrunner.errors import ConfigError
from vmrunner.lib.config_section import Bytes, Seconds, Section
from vmrunner.model import RUNTIMES, ArtifactRule, CacheRule, Step


def _one_of(noun: str, choices: Sequence[str]) -> BeforeValidator:
    listed = ", ".join(choices)

    def validate(value: Any, info: ValidationInfo) -> str:
        try:
            return field_checks.choice(value, option_name(info), noun, choices)
        except ConfigError as error:
            raise FieldError(error, in_file=f"no {noun}; one of: {listed}") from None

    return BeforeValidator(validate)


def _at_least(least: int) -> Any:
    return checked(lambda count, field: field_checks.at_least(count, field, least))


def _no_truth(value: Any) -> Any:
    """True is no 1."""
    if isinstance(value, bool):
        raise ValueError("not a whole number; such as 1")  # noqa: TRY004 - for pydantic
    return value


Text = Annotated[str, Field(min_length=1), checked(field_checks.text)]
Whole = Annotated[
    int, BeforeValidator(_no_truth, json_schema_input_type=int), checked(field_checks.whole)
]
Count = Annotated[
    int,
    Field(ge=1),
    BeforeValidator(_no_truth, json_schema_input_type=int),
    checked(field_checks.whole),
    WithJsonSchema({"type": "integer", "minimum": 1}),
]
Runtime = Annotated[Literal["runc", "runsc"], _one_of("runtime", RUNTIMES)]


class BuildFields(Section):
    """The options that a job file has too; None is "not said". What an item of a list is differs:
    a job file names secrets, a request holds their values."""

    container: Annotated[Text, checked(field_checks.container)] | None = Field(
        default=None, description="Container image."
    )
    container_runtime: Runtime | None = Field(
        default=None, description="runc, or runsc for gVisor."
    )
    provider: Text | None = Field(default=None, description="A provider's name, or its kind.")
    image: Text | None = Field(default=None, description="VM image.")
    bootstrap: StrictBool | None = Field(
        default=None,
        description="VM image is a plain Debian or Ubuntu: install Docker.",
    )
    docker: StrictBool | None = Field(default=None, description="Give the build its own Docker.")
    registry_secret: Text | None = Field(
        default=None, description="Secret that is used to pull the container image only."
    )
    privileged: StrictBool | None = Field(
        default=None, description="Privileged container, if limits.privileged allows it."
    )
    source: Text | None = Field(
        default=None, description="Files for /work: a directory, or git+URL@REF.", repr=False
    )
    env: Annotated[Mapping[str, str], converted(field_checks.environment_table)] = Field(
        default_factory=dict, description="Variable of the steps."
    )
    secrets: Iterable[str] = ()
    artifacts: Sequence[object] = ()
    caches: Sequence[object] = ()
    labels: Annotated[Mapping[str, str], converted(field_checks.label_table)] = Field(
        default_factory=dict, description="Label of the build; repeat for more."
    )
    timeout: Seconds | None = Field(
        default=None, description="Longest run of the steps; else 30m, or as configured."
    )
    ttl: Seconds | None = Field(
        default=None, description="Longest life of the VM; default: timeout + 15m."
    )
    queue_timeout: Seconds | None = Field(default=None, description="Longest wait for a VM.")
    keep_on_failure: Seconds | None = Field(
        default=None, description="Keep a failed VM this long, for `vmrunner ssh`."
    )
    keep_logs: Seconds | None = Field(
        default=None, description="How long log and artifacts are kept."
    )
    network: Policy | None = Field(
        default=None, description="open, none, or allow=HOST[:PORT],…; else as configured."
    )
    cpus: Count | None = Field(default=None, description="Minimum number of CPUs.")
    memory: Annotated[Bytes, _at_least(field_checks.LEAST_MEMORY)] | None = Field(
        default=None, description="Minimum memory, such as 4GiB."
    )
    disk: Annotated[Bytes, _at_least(field_checks.LEAST_DISK)] | None = Field(
        default=None, description="Disk of the VM, such as 20GiB."
    )
    spot: StrictBool | None = Field(default=None, description="Prefer spot VMs.")
    retry_on_loss: StrictBool | None = Field(
        default=None, description="If the VM is lost, run again even if steps had begun."
    )
    priority: Whole | None = Field(default=None, description="Higher starts first; default: 0.")

    def over(self, weaker: BuildFields) -> Self:
        """This, with what it leaves unsaid from a weaker one. Tables and lists add up."""
        update: dict[str, Any] = {}
        for name in type(weaker).model_fields:
            mine, theirs = getattr(self, name), getattr(weaker, name)
            if mine is None:
                update[name] = theirs
            elif isinstance(mine, Mapping):
                update[name] = {**theirs, **mine}
            elif isinstance(mine, list | tuple) and name != "steps":
                update[name] = type(mine)([*theirs, *mine])
        return self.model_copy(update=update)


class BuildRequest(BuildFields):
    """One build, as it is asked for. All are values: names of variables and files were read
    before. Raises ConfigError with field, value and fix."""

    model_config = ConfigDict(strict=True)
    is_sandbox: ClassVar[bool] = False

    steps: Annotated[tuple[Step, ...], converted(field_checks.steps)] | None = None
    secrets: Annotated[Mapping[str, bytes], converted(field_checks.secret_values)] = Field(
        default_factory=dict,
        description="Secret from this environment, or from a file.",
        repr=False,
    )
    artifacts: Annotated[
        tuple[ArtifactRule, ...],
        converted(field_checks.artifact_rules, input_type=Sequence[str | ArtifactRule]),
    ] = Field(default=(), description="Files to bring back.")
    caches: Annotated[
        tuple[CacheRule, ...],
        converted(cache_checks.cache_rules, input_type=Sequence[Mapping[str, Any] | CacheRule]),
    ] = Field(default=(), description="Directory of the container to keep for later builds.")
    name: Annotated[str, converted(field_checks.build_name, input_type=str)] | None = Field(
        default=None, description="Name of the build, usable in place of its id."
    )
    idempotency_key: (
        Annotated[str, converted(field_checks.idempotency_key, input_type=str)] | None
    ) = Field(default=None, description="Submit once: the same key is the same build.")
    _locations: Mapping[str, str] = PrivateAttr(default_factory=dict)
    _host_uses: tuple[str, ...] = PrivateAttr(default=())
    _faults: tuple[ConfigError, ...] = PrivateAttr(default=())
    _unread: frozenset[str] = PrivateAttr(default=frozenset())

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise spoken(error, type(self).model_fields) from None

    @property
    def locations(self) -> Mapping[str, str]:
        """Places in a job file, by field ("FILE:LINE: ")."""
        return self._locations

    @property
    def host_uses(self) -> tuple[str, ...]:
        """Files and variables that a job file takes from this machine."""
        return self._host_uses

    @property
    def faults(self) -> tuple[ConfigError, ...]:
        """Faults of a job file. With any this is only what could be read."""
        return self._faults

    @property
    def unread(self) -> frozenset[str]:
        """Return the fields that are missing here, since they could not be read."""
        return self._unread

    def of_file(
        self,
        locations: Mapping[str, str],
        host_uses: Iterable[str],
        *,
        faults: Iterable[ConfigError] = (),
        unread: frozenset[str] = frozenset(),
    ) -> BuildRequest:
        """The same, said by a job file."""
        copy = self.model_copy()
        copy._locations, copy._host_uses = locations, tuple(host_uses)
        copy._faults, copy._unread = tuple(faults), unread
        return copy

    def over(self, weaker: BuildFields) -> Self:
        merged = super().over(weaker)
        if isinstance(weaker, BuildRequest):
            merged._host_uses = (*weaker.host_uses, *self.host_uses)
            merged._locations = {
                k: at for k, at in weaker.locations.items() if not getattr(self, k)
            }
            merged._faults = (*weaker.faults, *self.faults)
            merged._unread = frozenset(k for k in weaker.unread if getattr(self, k) is None)
        return merged


class SandboxRequest(BuildRequest):
    """A sandbox: a build without steps, which lives for `ttl` from when it is ready, and may be
    extended up to `max_ttl`."""

    is_sandbox: ClassVar[bool] = True

    max_ttl: Seconds | None = Field(default=None, description="As far as it may be extended.")
