"""One frozen `Settings`. Where values come from, and in which order, is `sources`."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from vmrunner.config import provider_names
from vmrunner.config.budgets import BudgetSettings, budgets
from vmrunner.config.lazy_tables import LateTable, LateUnion
from vmrunner.config.notify import NotifySettings
from vmrunner.config.oidc import IdentityRule, LoginIssuer, OidcIssuer
from vmrunner.config.policy_field import Policy
from vmrunner.config.pools import PoolSettings
from vmrunner.config.validation_errors import FieldError
from vmrunner.core import cron_line
from vmrunner.errors import ConfigError
from vmrunner.lib import database_url as databaseurl
from vmrunner.lib import ids, units
from vmrunner.lib.config_section import Bytes, Flag, Seconds, Section
from vmrunner.lib.database_url import SQLITE
from vmrunner.lib.store_url import StoreUrl
from vmrunner.model import Network
from vmrunner.providers import registry
from vmrunner.providers.settings import ProviderSettings


def _uuid(value: object) -> str:
    try:
        return ids.canonical_uuid(str(value))
    except ValueError:
        raise ValueError("not a UUID; it lies beside the ledger, in `installation`") from None


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


class StoreSettings(Section):
    url: str = Field(
        default="",
        description="file:, s3:, gs: or az:. Default: a directory beside the ledger.",
    )
    endpoint: str = Field(default="", description="Of a bucket that is not at its cloud's.")
    region: str = Field(default="", description="Of an s3: bucket; default: AWS_REGION.")

    @field_validator("url")
    @classmethod
    def _usable(cls, value: str) -> str:
        if value:
            StoreUrl.parse(value)
        return value

    @field_validator("endpoint")
    @classmethod
    def _reachable(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s?#@]+", value):
            raise ValueError("not an endpoint; such as https://s3.example.org")
        return value.rstrip("/")


class LimitSettings(Section):
    max_ttl: Seconds = Field(default=4 * 3600.0, description="The longest life of any VM.")
    max_instances: int = Field(default=20, ge=1, description="VMs at once, over all providers.")
    log_bytes: Bytes = Field(default=64 << 20, description="The most that is kept of a log.")
    artifact_bytes: Bytes = Field(default=2 << 30, description="The most that a build brings back.")
    source_bytes: Bytes = Field(default=2 << 30, description="The most that a source may be.")
    privileged: Flag = Field(
        default=False, description="May a build ask for a privileged container."
    )
    docker: bool = Field(default=True, description="May a build ask for a Docker of its own.")
    network: Policy = Field(
        default=Network.OPEN, description="The most that a build reaches: open, none, or hosts."
    )
    images: list[str] | None = Field(
        default=None,
        description="VM images that may be named in clouds beside the configured one and those "
        "that this installation made; default: over HTTP none, else all. `*` is all.",
    )


class DefaultSettings(Section):
    container: str = Field(default="debian:trixie", min_length=1)
    container_runtime: Literal["runc", "runsc"] = Field(
        default="runc", description="runsc is gVisor, which the VM's image must have."
    )
    timeout: Seconds = 30 * 60.0
    network: Policy = Network.OPEN


class ReaperSettings(Section):
    sweep: str = Field(
        default="*/5 * * * *",
        validate_default=False,  # it would load what reads cron lines
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
        try:
            return cron_line.check(value, "sweep")
        except ConfigError as error:
            raise FieldError(error) from None


class RetentionSettings(Section):
    """Retention of the ledger's rows about what is over."""

    rows: Seconds = Field(
        default=90 * 86400.0,
        description="So long a build that ended is in the ledger; its costs stay, as sums of days.",
    )


class CacheSettings(Section):
    """Caches that builds leave to later ones."""

    scope: list[str] = Field(
        default_factory=list,
        description="Labels whose values part them: a build writes to its own scope alone.",
    )
    fallback: list[dict[str, str]] = Field(
        default_factory=list,
        description="Scopes that every build may read too, by the labels that are other there.",
    )
    max_bytes: Bytes = Field(default=2 << 30, description="The most that one may be, packed.")
    tenant_bytes: Bytes = Field(
        default=20 << 30, description="Of one tenant; those unused for longest go."
    )
    total_bytes: Bytes = Field(
        default=200 << 30,
        description="Of all tenants, at least one's; those unused for longest go.",
    )
    keep: Seconds = Field(default=14 * 86400.0, description="So long an unused one is kept.")

    @model_validator(mode="after")
    def _fits(self) -> CacheSettings:
        for labels in self.fallback:
            if unknown := sorted(labels.keys() - set(self.scope)):
                raise ValueError(f"fallback: {unknown[0]!r} is not in scope; add it there")
        if self.max_bytes > self.tenant_bytes:
            raise ValueError("max_bytes is above tenant_bytes; make one of them fit the other")
        return self


_WILDCARD = re.compile(r"\*(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+")


class ServerSettings(Section):
    listen: str = Field(
        default="",
        description="HOST:PORT of the HTTP API that `serve` has; default: none.",
    )
    url: str = Field(
        default="", description="Where its users reach it, through a proxy; https:// for TLS there."
    )
    streams: int = Field(
        default=600, ge=1, description="Logs, events and artifacts that one token reads at once."
    )
    port_domain: str = Field(
        default="",
        description="*.DOMAIN: a host name for each port of a VM, in DNS and TLS; needs `url`.",
    )
    terminals: int = Field(
        default=50,
        ge=1,
        description="Terminals of VMs that one token has at once.",
    )
    ports: int = Field(
        default=200, ge=1, description="Connections to ports of VMs that one token has at once."
    )
    idle_entry: Seconds = Field(
        default=7200.0,
        gt=0,
        description="A terminal or port over which nothing went for so long is closed.",
    )
    unused_source_bytes: Bytes = Field(
        default=16 << 30, description="Uploaded sources of one tenant that no build waits for."
    )
    total_unused_source_bytes: Bytes = Field(
        default=64 << 30, description="The same of all tenants together; at least one's."
    )

    oidc: list[OidcIssuer] = Field(
        default_factory=list, description="Whose identity tokens are exchanged."
    )
    login: list[LoginIssuer] = Field(
        default_factory=list, description="Where people log in to the page, beside tokens."
    )

    @field_validator("oidc")
    @classmethod
    def _once(cls, value: list[OidcIssuer]) -> list[OidcIssuer]:
        pairs = [(issuer.issuer, issuer.audience) for issuer in value]
        if twice := next((issuer for issuer in pairs if pairs.count(issuer) > 1), None):
            raise ValueError(f"{twice[0]} for {twice[1]} is there twice; put its rules into one")
        return value

    @property
    def issuers(self) -> list[str]:
        """Return the URLs of all issuers, each once."""
        jobs = [issuer.issuer for issuer in self.oidc]
        return list(dict.fromkeys([*jobs, *(issuer.issuer for issuer in self.login)]))

    @property
    def identity_rules(self) -> list[IdentityRule]:
        """Return the rules of all issuers."""
        jobs = [rule for issuer in self.oidc for rule in issuer.rules]
        return [*jobs, *(rule for issuer in self.login for rule in issuer.rules)]

    @model_validator(mode="after")
    def _comes_back(self) -> ServerSettings:
        names = [issuer.name for issuer in self.login]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"login: {twice} is there twice; call one of them otherwise")
        if self.login and not self.url:
            raise ValueError("login: people come back to `url`; set it")
        parts = urlsplit(self.url)
        if self.login and parts.scheme != "https" and not units.is_loopback(parts.hostname or ""):
            raise ValueError("login: `url` is without TLS, so a login could be stolen; https://…")
        return self

    @model_validator(mode="after")
    def _leads_to_ports(self) -> ServerSettings:
        if self.port_domain and not self.url:
            raise ValueError("port_domain: a browser logs in at `url` first; set it")
        host = (urlsplit(self.url).hostname or "").lower()
        if self.port_domain and host.endswith(self.port_domain.removeprefix("*")):
            raise ValueError(f"port_domain: {host} of `url` is below it; take another")
        return self

    @field_validator("port_domain")
    @classmethod
    def _wildcard(cls, value: str) -> str:
        if value and not _WILDCARD.fullmatch(value.lower()):
            raise ValueError("not *.DOMAIN; such as *.ports.example.org")
        return value.lower()

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        if value:
            try:
                units.address(value, "listen")
            except ConfigError as error:
                raise FieldError(error) from None
        return value

    @field_validator("url")
    @classmethod
    def _web(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("not a URL; such as https://builds.example.org")
        return value.rstrip("/")


def _table(kind: str) -> type[ProviderSettings] | None:
    driver = registry.find(kind)
    return None if driver is None else registry.settings_of(driver)


def _tables() -> list[type[ProviderSettings]]:
    return [registry.settings_of(driver) for driver in registry.drivers().values()]


AnyProvider = Annotated[ProviderSettings, LateUnion(_table, _tables)]


def _forge(name: str) -> type[Section]:
    """Loaded late: few have it, and it knows all options of a build."""
    from vmrunner.config import forges

    found: type[Section] = getattr(forges, name)
    return found


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
    store: StoreSettings = StoreSettings()
    limits: LimitSettings = LimitSettings()
    defaults: DefaultSettings = DefaultSettings()
    reaper: ReaperSettings = ReaperSettings()
    retention: RetentionSettings = RetentionSettings()
    caches: CacheSettings = CacheSettings()
    server: ServerSettings = ServerSettings()
    providers: dict[str, AnyProvider] = Field(default_factory=dict)
    pools: dict[str, PoolSettings] = Field(default_factory=dict)
    budgets: list[BudgetSettings] = Field(default_factory=list)
    notify: list[NotifySettings] = Field(default_factory=list, description="Webhooks.")
    github: Annotated[Section | None, LateTable(partial(_forge, "GithubSettings"))] = None
    gitlab: Annotated[Section | None, LateTable(partial(_forge, "GitlabSettings"))] = None
    garm: Annotated[Section | None, LateTable(partial(_forge, "GarmSettings"))] = None

    @field_validator("budgets")
    @classmethod
    def _one_each(cls, value: list[BudgetSettings]) -> list[BudgetSettings]:
        names = [budget.name for budget in budgets(value)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two are {twice!r}: the same builds, period and action; leave one")
        return value

    @field_validator("notify")
    @classmethod
    def _distinct(cls, value: list[NotifySettings]) -> list[NotifySettings]:
        names = [section.name for section in value]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two have the name {twice!r}; give each its own")
        return value

    def provider(self, wanted: str | None = None) -> str:
        """The configured name for `--provider`: see `provider_names.chosen`."""
        return provider_names.chosen(wanted, self.default_provider, self.providers)

    def provider_options(self, name: str) -> dict[str, Any]:
        """The driver's own options of one provider, those that are set."""
        return self.providers[name].options()
