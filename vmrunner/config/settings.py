"""One frozen `Settings`, and the `Paths` that follow from it. Where values come from, and in which
order, is `sources`."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    WithJsonSchema,
    field_validator,
)

from vmrunner.errors import ConfigError
from vmrunner.lib import cron, units
from vmrunner.lib import database_url as databaseurl
from vmrunner.lib.database_url import SQLITE
from vmrunner.model import Network


def _seconds(value: object) -> float:
    try:
        return units.duration(value)
    except ConfigError as error:
        raise ValueError(f"not a duration; {error.hint}") from None


def _bytes(value: object) -> int:
    try:
        return units.size(value)
    except ConfigError as error:
        raise ValueError(f"not a size; {error.hint}") from None


def _uuid(value: object) -> str:
    """As it is written in tags: an id that differs in a letter's case is another's."""
    try:
        return str(uuid.UUID(str(value).strip()))
    except ValueError:
        raise ValueError("not a UUID; it lies beside the ledger, in `installation`") from None


Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema(
        {"type": ["string", "number"], "description": "30m, 1h30m, 90s, or seconds", "minimum": 0}
    ),
]
Bytes = Annotated[
    int,
    BeforeValidator(_bytes),
    WithJsonSchema(
        {"type": ["string", "integer"], "description": "512MiB, 4GiB, or bytes", "minimum": 0}
    ),
]


class Section(BaseModel):
    """A table of the configuration: an unknown key is an error, a value never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DatabaseSettings(Section):
    url: str = Field(default="", description="Default: SQLite under the XDG data directory.")

    @field_validator("url")
    @classmethod
    def _usable(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("it holds a character that no URL has; write it as %XX")
        if value.startswith(SQLITE):
            databaseurl.file(value)
        elif value:
            databaseurl.server(value)
        return value


class LimitSettings(Section):
    max_ttl: Seconds = Field(default=4 * 3600.0, description="The longest life of any VM.")
    max_instances: int = Field(default=20, ge=1, description="VMs at once, over all providers.")
    log_bytes: Bytes = Field(default=64 << 20, description="The most that is kept of a log.")
    artifact_bytes: Bytes = Field(default=2 << 30, description="The most that a build brings back.")
    source_bytes: Bytes = Field(default=2 << 30, description="The most that a source may be.")
    privileged: bool = Field(
        default=False, description="May a build ask for a privileged container."
    )


class DefaultSettings(Section):
    container: str = Field(default="debian:trixie", min_length=1)
    container_runtime: Literal["runc", "runsc"] = Field(
        default="runc", description="runsc is gVisor, which the VM's image must have."
    )
    timeout: Seconds = 30 * 60.0
    network: Network = Network.OPEN


class ReaperSettings(Section):
    sweep: str = Field(
        default="*/5 * * * *",
        description="When to sweep beside every five minutes, as a cron line.",
    )
    keep_logs: Seconds = Field(
        default=30 * 86400.0, description="So long logs and artifacts outlive a build."
    )
    keep_images: Seconds = Field(
        default=30 * 86400.0, description="So long an unused image outlives a newer one."
    )

    @field_validator("sweep")
    @classmethod
    def _readable(cls, value: str) -> str:
        cron.parse(value)
        return value


class QemuSettings(Section):
    """VMs on this machine."""

    kind: Literal["qemu"]
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    image: str | None = Field(default=None, description="A local image's name or hash.")
    dns: str = Field(
        default="auto",
        description="Whom builds ask for names; auto: a public one of this host's, or 9.9.9.9.",
    )
    cpus: int | None = Field(default=None, ge=1)
    memory: Bytes | None = None
    disk: Bytes | None = None
    max_instances: int | None = Field(default=None, ge=1)


class ImageSettings(Section):
    """The AMI that fits and was promoted last, else the newest."""

    owner: str = Field(default="self", description="An account, `self` or `amazon`.")
    name: str | None = Field(default=None, description="May have * and ?.")
    tags: dict[str, str] = Field(default_factory=dict)


class Ec2Settings(Section):
    """VMs in Amazon's EC2. Credentials come from the SDK's own chain alone."""

    kind: Literal["ec2"]
    region: str | None = Field(default=None, description="Default: the SDK's own.")
    profile: str | None = Field(default=None, description="A profile of the SDK's configuration.")
    image: str | ImageSettings | None = Field(
        default=None, description="An AMI's id or name; default: `vmrunner-*` of yours."
    )
    subnets: tuple[str, ...] = Field(default=(), description="In the order in which to try them.")
    security_groups: tuple[str, ...] = ()
    instance_types: tuple[str, ...] | None = Field(
        default=None, description="In the order in which to try them."
    )
    spot: Literal["never", "prefer", "only"] | None = Field(
        default=None, description="Default: where a build asks for it."
    )
    address: Literal["public", "private"] = Field(
        default="public", description="The address over which SSH goes."
    )
    disk: Bytes | None = None
    tags: dict[str, str] = Field(default_factory=dict, description="Beside vmrunner's own.")
    instance_profile: str | None = Field(
        default=None, description="What every build may use: its root can read its credentials."
    )
    scheduler_role: str | None = Field(
        default=None,
        description="Arms each VM with a schedule of AWS's own, which may end it by this role.",
    )
    endpoint_url: str | None = None
    max_instances: int | None = Field(default=None, ge=1)


class GceSettings(Section):
    """VMs in Google's Compute Engine. Credentials come from the SDK's own chain alone."""

    kind: Literal["gce"]
    project: str | None = Field(default=None, description="The project's id.")
    zones: tuple[str, ...] = Field(default=(), description="In the order in which to try them.")
    image: str | None = Field(
        default=None,
        description="A link, an image's name or family/NAME; default: family/vmrunner.",
    )
    machine_types: tuple[str, ...] | None = Field(
        default=None, description="In the order in which to try them."
    )
    network: str | None = Field(default=None, description="Default: global/networks/default.")
    subnetwork: str | None = Field(default=None, description="regions/REGION/subnetworks/NAME.")
    network_tags: tuple[str, ...] = Field(default=(), description="Firewall rules go by them.")
    spot: Literal["never", "prefer", "only"] | None = Field(
        default=None, description="Default: where a build asks for it."
    )
    address: Literal["public", "private"] = Field(
        default="public", description="The address over which SSH goes."
    )
    disk: Bytes | None = None
    disk_type: str | None = Field(default=None, description="pd-balanced, pd-ssd, …")
    labels: dict[str, str] = Field(default_factory=dict, description="Beside vmrunner's own.")
    service_account: str | None = Field(
        default=None, description="What every build may use: its root can read its tokens."
    )
    guard: str | None = Field(
        default=None, description="The region in which deploy/gcp/terraform put the guard."
    )
    api_endpoint: str | None = Field(
        default=None, description="Default: Google's. To http://… no credentials go."
    )
    max_instances: int | None = Field(default=None, ge=1)


class FakeSettings(Section):
    """A cloud in memory, for tests."""

    kind: Literal["fake"]
    max_instances: int | None = Field(default=None, ge=1)


ProviderSettings = Annotated[
    QemuSettings | Ec2Settings | GceSettings | FakeSettings, Field(discriminator="kind")
]

_OURS: Final = frozenset({"kind", "max_instances"})  # the rest are the driver's own options


class Settings(Section):
    """All that can be configured. Durations are seconds, sizes bytes."""

    installation: Annotated[str, BeforeValidator(_uuid)] | None = Field(
        default=None, description="The UUID of one ledger; made once when it is not given."
    )
    secret_key: SecretStr | None = Field(
        default=None, description="Seals what the ledger keeps secret; on many nodes the same."
    )
    default_provider: str | None = None
    database: DatabaseSettings = DatabaseSettings()
    limits: LimitSettings = LimitSettings()
    defaults: DefaultSettings = DefaultSettings()
    reaper: ReaperSettings = ReaperSettings()
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)

    def provider(self, wanted: str | None = None) -> str:
        """The configured name for `--provider`: a name, or a kind that only one of them has.
        None is the default provider."""
        field = "provider"
        if wanted is None:
            wanted, field = self.default_provider, "default_provider"
        if wanted is None:
            if len(self.providers) == 1:
                return next(iter(self.providers))
            names = ", ".join(sorted(self.providers))
            raise ConfigError(
                f"default_provider: not set, and there are several providers: {names}",
                hint="set it, or use --provider",
            )
        if wanted in self.providers:
            return wanted
        having = [name for name, provider in self.providers.items() if provider.kind == wanted]
        if len(having) == 1:
            return having[0]
        if having:
            raise ConfigError(
                f"{field}: {wanted!r} is the kind of several providers",
                hint=f"name one: {', '.join(sorted(having))}",
            )
        raise ConfigError(
            f"{field}: no provider {wanted!r} is configured",
            hint=units.did_you_mean(wanted, self.providers),
        )

    def provider_options(self, name: str) -> dict[str, Any]:
        """The driver's own options of one provider, those that are set."""
        return self.providers[name].model_dump(exclude=set(_OURS), exclude_none=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths:
    """Where things lie on this host. `data` belongs to one ledger, `cache` to the user."""

    data: Path
    cache: Path

    @property
    def ledger(self) -> Path:
        return self.data / "ledger.db"

    @property
    def sources(self) -> Path:
        """Packed sources, one `<build>.tar` each, until the build ends."""
        return self.data / "sources"

    @property
    def artifacts(self) -> Path:
        """What builds brought back, one directory a build."""
        return self.data / "artifacts"

    @property
    def wake(self) -> Path:
        return self.data / "wake"

    @property
    def engine_log(self) -> Path:
        """What background engines said."""
        return self.data / "engine.log"

    def state(self, kind: str) -> Path:
        """Where the providers of one kind keep their machines."""
        return self.data / kind


def database_url(settings: Settings) -> str:
    """The ledger's URL: as configured, else SQLite under the XDG data directory."""
    if settings.database.url:
        return settings.database.url
    return f"{SQLITE}{platformdirs.user_data_path('vmrunner') / 'ledger.db'}"


def paths(settings: Settings) -> Paths:
    """Everything of one ledger lies together: the default one's under the XDG data directory, of a
    SQLite file that was named in `FILE.d` beside it, and of a server in a directory per URL."""
    data = platformdirs.user_data_path("vmrunner")
    url = settings.database.url
    if url.startswith(SQLITE):
        file = Path(databaseurl.file(url))
        if file != data / "ledger.db":
            data = file.with_name(file.name + ".d")
    elif url:
        where = databaseurl.server(url)
        name = f"{where.host}:{where.port or ''}{where.path}?{where.query}"
        data = data / "servers" / hashlib.sha256(name.encode()).hexdigest()[:12]
    return Paths(data=data, cache=cache_path())


def cache_path() -> Path:
    """Where images lie, whatever ledger is in use."""
    return platformdirs.user_cache_path("vmrunner")
