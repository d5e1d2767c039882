"""The tables `[pools.NAME]` of the configuration, and the pools that they describe."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, field_validator

from vmrunner.config import field_checks
from vmrunner.config.longest_life import longest_life
from vmrunner.config.policy_field import Policy
from vmrunner.config.validation_errors import FieldError
from vmrunner.core import cron_line
from vmrunner.errors import ConfigError
from vmrunner.lib import units
from vmrunner.lib.config_section import Bytes, Flag, Seconds, Section, number
from vmrunner.model import MOST_VMS, PoolKind
from vmrunner.providers import registry

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings
    from vmrunner.model import PoolSpec

_NAME: Final = re.compile("[a-z][a-z0-9-]{0,39}")


class ScheduledSize(Section):
    """A size that a pool has from one time on."""

    cron: str = Field(description="From when, UTC, as a cron line.")
    size: int = Field(ge=0, le=MOST_VMS)

    _number = field_validator("size", mode="before")(number)

    @field_validator("cron")
    @classmethod
    def _readable(cls, value: str) -> str:
        try:
            return cron_line.check(value, "cron")
        except ConfigError as error:
            raise FieldError(error) from None


class PoolSettings(Section):
    """A pool. What is not given of its shape is as for a build."""

    provider: str | None = Field(default=None, description="Default: the default provider.")
    kind: Literal["hot", "parked"] = Field(
        default="hot", description="parked: stopped, where the provider can."
    )
    image: str | None = None
    cpus: int | None = Field(default=None, ge=1)
    memory: Bytes | None = None
    machine_type: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="One that the provider offers, in the place of cpus and memory."
    )
    disk: Bytes | None = None
    network: Policy | None = None
    container: str | None = None
    container_runtime: Literal["runc", "runsc"] | None = None
    spot: Flag = False
    size: int | None = Field(default=None, ge=0, le=MOST_VMS, description="VMs that wait.")
    schedule: list[ScheduledSize] = Field(
        default_factory=list, description="Their number by time, in the place of size."
    )
    hit_rate: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        default=None, description="As many as that share of builds needs, in the place of size."
    )
    min: int = Field(default=0, ge=0, description="With hit_rate: at least so many.")
    max: int | None = Field(
        default=None, ge=1, le=MOST_VMS, description="With hit_rate: at most so many."
    )
    ttl: Seconds = Field(default=3600.0, description="The longest build that it serves.")
    idle: Seconds = Field(default=1800.0, description="An unclaimed VM is replaced after this.")
    usd_per_day: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = Field(
        default=None, description="What VMs that wait may cost a day."
    )

    _number = field_validator(
        "cpus", "size", "hit_rate", "min", "max", "usd_per_day", mode="before"
    )(number)


def pool_specs(settings: Settings) -> dict[str, PoolSpec]:
    """Return the pools of a configuration by name, with all defaults. Raises ConfigError."""
    return {name: spec_of(settings, name, pool) for name, pool in settings.pools.items()}


def spec_of(settings: Settings, name: str, pool: PoolSettings) -> PoolSpec:
    """Return one pool, with all defaults. Raises ConfigError."""
    from vmrunner.core.pools import lifetime
    from vmrunner.model import PoolSpec

    field = f"pools.{name}"
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{field}: {name!r} is no name of a pool",
            hint="up to 40 of a-z, 0-9 and -, a letter first",
        )
    _check_sizing(field, pool)
    try:
        provider = settings.provider(pool.provider)
    except ConfigError as error:
        place = f"{field}: " if pool.provider is None else f"{field}."
        raise ConfigError(f"{place}{error.args[0]}", hint=error.hint) from None
    _check_machine_type(field, pool, provider, settings)
    _check_shape(field, pool)
    defaults = settings.defaults
    spec = PoolSpec(
        name=name,
        provider=provider,
        kind=PoolKind(pool.kind),
        container=pool.container or defaults.container,
        runtime=pool.container_runtime or defaults.container_runtime,
        cpus=pool.cpus,
        memory=pool.memory,
        machine_type=pool.machine_type,
        disk=pool.disk,
        image=pool.image,
        network=pool.network or defaults.network,
        spot=pool.spot,
        log_bytes=settings.limits.log_bytes,
        size=pool.size,
        schedule=tuple((entry.cron, entry.size) for entry in pool.schedule),
        hit_rate=pool.hit_rate,
        least=pool.min,
        most=pool.max or 0,
        ttl=pool.ttl,
        idle=pool.idle,
        usd_per_day=pool.usd_per_day,
    )
    if spec.runtime != "runc":
        raise ConfigError(
            f"{field}.container_runtime: only containers of runc can wait, not of {spec.runtime}",
            hint='container_runtime = "runc"',
        )
    if spec.kind is PoolKind.PARKED:
        driver = registry.find(settings.providers[provider].kind)
        if driver is None or not driver.parks:
            raise ConfigError(
                f"{field}.kind: {provider} is of a kind that cannot park VMs", hint='kind = "hot"'
            )
        if spec.spot:
            raise ConfigError(
                f"{field}.spot: a spot VM cannot be parked", hint='kind = "hot", or leave spot out'
            )
    longest = longest_life(settings, provider)
    if lifetime(spec) > longest.seconds:
        raise ConfigError(
            f"{field}: idle + ttl + 5 min is {units.exact(lifetime(spec))}, more than "
            f"{longest.owner}",
            hint=f"a lower idle or ttl, or {longest.fix}",
        )
    return spec


def _check_shape(field: str, pool: PoolSettings) -> None:
    """Refuse what no build may have: a VM of it would wait for nobody, or never be ready."""
    if pool.container is not None:
        field_checks.container(pool.container, f"{field}.container")
    if pool.image is not None:
        field_checks.text(pool.image, f"{field}.image")
    if pool.memory is not None:
        field_checks.at_least(pool.memory, f"{field}.memory", field_checks.LEAST_MEMORY)
    if pool.disk is not None:
        field_checks.at_least(pool.disk, f"{field}.disk", field_checks.LEAST_DISK)
    for name, seconds in (("ttl", pool.ttl), ("idle", pool.idle)):
        if seconds <= 0:
            raise ConfigError(f"{field}.{name}: 0s leaves no time", hint="more than 0")


def _check_machine_type(field: str, pool: PoolSettings, provider: str, settings: Settings) -> None:
    wanted = pool.machine_type
    if wanted is None:
        return
    memory = None if pool.memory is None else units.exact_size(pool.memory)
    for name, value in (("cpus", pool.cpus), ("memory", memory)):
        if value is not None:
            raise ConfigError(
                f"{field}.machine_type: {wanted!r} has {name} of its own, and {name} = {value} "
                "is given too",
                hint=f"leave {name} out, or machine_type",
            )
    setting, listed = registry.machine_types(settings.providers[provider]) or ("", [wanted])
    if wanted.lower() not in map(str.lower, listed):
        raise ConfigError(
            f"{field}.machine_type: {provider} does not offer {wanted!r}",
            hint=f"one of: {', '.join(listed)}; or add it to providers.{provider}.{setting}",
        )


def _check_sizing(field: str, pool: PoolSettings) -> None:
    given = [
        name
        for name, value in (
            ("size", pool.size), ("schedule", pool.schedule or None), ("hit_rate", pool.hit_rate),
        )
        if value is not None
    ]  # fmt: skip
    if len(given) != 1:
        what = f"{' and '.join(given)} are given" if given else "no size is given"
        raise ConfigError(
            f"{field}: {what}", hint="give one of size, schedule, or hit_rate with max"
        )
    if pool.hit_rate is None and (pool.max is not None or pool.min):
        raise ConfigError(f"{field}: min and max are for hit_rate", hint="leave them out")
    if pool.hit_rate is not None and (pool.max is None or pool.min > pool.max):
        raise ConfigError(
            f"{field}: hit_rate needs max, and min <= max (min = {pool.min}, max = {pool.max})"
        )
