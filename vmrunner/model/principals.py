"""Tokens of the HTTP API, and the principal that one of them stands for."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from vmrunner.model.allow_list import NetworkPolicy, network_of
from vmrunner.model.builds import LOCAL_TENANT, BuildRecord


class TokenScope(StrEnum):
    """A right that a token gives."""

    SUBMIT = "submit"
    READ = "read"
    ADMIN = "admin"
    METRICS = "metrics"
    ENTER = "enter"  # terminals and ports of builds and sandboxes


#: Begins the actor of a token that a CI system's identity was exchanged for: `oidc:ISSUER#SUB`.
OIDC: Final = "oidc:"
#: Begins the actor of another token.
OF_TOKEN: Final = "token:"  # noqa: S105 - no secret
#: The tenant of tokens without a label filter.
UNFILTERED: Final = "unfiltered"
#: Tenants who see all, and so may give a build to another tenant by its labels.
TRUSTED_TENANTS: Final = (LOCAL_TENANT, UNFILTERED)


def tenant_labels(tenant: str) -> Mapping[str, str]:
    """The label filter of the tenant of this name; empty: it sees all."""
    labels: Mapping[str, str] = {} if tenant in TRUSTED_TENANTS else json.loads(tenant)
    return labels


def credited_labels(
    labels: Mapping[str, str], tenant: str, forced: Collection[str]
) -> Mapping[str, str]:
    """Return the labels of a build that count for budgets and webhooks: all but those under a name
    that tokens force (`forced`), unless this tenant's own token forces that name."""
    if tenant in TRUSTED_TENANTS:
        return labels
    own = tenant_labels(tenant)
    return {
        name: value
        for name, value in labels.items()
        if name not in forced or own.get(name) == value
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenQuota:
    """Limits for the builds of one token; None: no limit of its own. `max_ttl`: seconds."""

    builds: int | None = None  # at once
    max_ttl: float | None = None
    providers: tuple[str, ...] | None = None
    usd_per_day: float | None = None  # UTC; held as a budget's
    network: NetworkPolicy | None = None
    docker: bool | None = None  # False: neither that nor a privileged container
    images: tuple[str, ...] | None = None  # beside the configured one

    def stored(self) -> dict[str, Any]:
        """The quota as JSON; limits that are not set are left out."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        network = None if self.network is None else self.network.value
        return {k: v for k, v in (values | {"network": network}).items() if v is not None}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> TokenQuota:
        """The quota that was stored. Raises ValueError, TypeError or KeyError for anything else."""
        values = dict(stored)
        for name in ("providers", "images"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        if values.get("network") is not None:
            values["network"] = network_of(values["network"])
        return cls(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A row of `tokens`. `actor`: its holder's name in records, such as `token:t-01…`."""

    id: str
    name: str
    scopes: frozenset[TokenScope]
    labels: Mapping[str, str]
    quota: TokenQuota
    actor: str
    created_at: float
    created_by: str
    expires_at: float | None = None
    revoked_at: float | None = None

    def valid(self, now: float) -> bool:
        """True if it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """A verified caller. `labels`: the filter of what it sees, forced on what it submits."""

    actor: str
    scopes: frozenset[TokenScope]
    labels: Mapping[str, str] = field(default_factory=dict)
    quota: TokenQuota = TokenQuota()

    @classmethod
    def of(cls, token: Token) -> Principal:
        return cls(actor=token.actor, scopes=token.scopes, labels=token.labels, quota=token.quota)

    @property
    def tenant(self) -> str:
        """The name of its tenant: the label filter as text."""
        return json.dumps(self.labels, sort_keys=True) if self.labels else UNFILTERED

    def sees(self, build: BuildRecord) -> bool:
        """Return True if it may see a build: the build has the labels of the filter, and so has
        its tenant, unless its submitter sees all and may submit for others."""
        own = self.labels.items() <= build.spec.labels.items()
        theirs = build.tenant in TRUSTED_TENANTS
        return own and (theirs or self.labels.items() <= tenant_labels(build.tenant).items())
