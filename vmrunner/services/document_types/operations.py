"""Types of the documents of what concerns more than one build."""

from __future__ import annotations

from typing_extensions import TypedDict

from vmrunner.core.audit_rules import AuditFault
from vmrunner.core.cost_report import CostKind
from vmrunner.model.cloud import Kind, Level
from vmrunner.model.money import BudgetAction, BudgetPeriod, PriceSource
from vmrunner.model.principals import TokenScope
from vmrunner.model.states import Death
from vmrunner.services.document_types.builds import NetworkDocument
from vmrunner.services.document_types.values import Moment, Seconds, Size, Usd


class CostDocument(TypedDict):
    """A line of a report of costs. `usd` null: a price in it is unknown, and `known_usd` is what
    the rest of it cost."""

    what: CostKind
    key: str | None
    usd: Usd | None
    known_usd: Usd
    unpriced: int
    final: bool
    source: PriceSource | None
    as_of: Moment | None
    builds: int
    vms: int
    seconds: Seconds


class NodeDocument(TypedDict):
    """An engine. `version`: of the tables that it knows."""

    id: str
    kind: str
    machine: str
    pid: int
    joined_at: Moment
    seen_at: Moment
    alive: bool
    reaps: bool
    providers: list[str]
    builds: int
    version: str
    outdated: bool


class ActionDocument(TypedDict):
    """Something that somebody did, and that concerns no build."""

    time: Moment
    actor: str
    actor_name: str | None
    verb: str
    subject: str
    detail: str | None


class VerdictDocument(TypedDict):
    """A decision of the reaper about one thing."""

    provider: str
    what: str
    kind: str
    id: str
    reason: Death
    instance: str | None
    build: str | None
    age: Seconds | None
    late: Seconds | None
    cost: Usd | None
    outcome: str | None


class SurvivorDocument(TypedDict):
    """Something that is alive and should not be."""

    fault: AuditFault
    instance: str | None
    ref: str | None
    kind: Kind | None
    scope: str | None
    late: Seconds | None
    message: str


class RemovalDocument(TypedDict):
    """Something that gc removed."""

    what: str
    count: int
    bytes: Size
    failed: int


class FindingDocument(TypedDict):
    """A line of `doctor`."""

    check: str
    level: Level
    message: str
    fix: str | None


class QuotaDocument(TypedDict):
    """Limits of the builds of one token; null: none of its own."""

    builds: int | None
    max_ttl: Seconds | None
    providers: list[str] | None
    usd_per_day: Usd | None
    network: NetworkDocument | None
    docker: bool | None
    images: list[str] | None


class TokenDocument(TypedDict):
    """A token without its secret, which cannot be shown again."""

    id: str
    name: str
    scopes: list[TokenScope]
    labels: dict[str, str]
    quota: QuotaDocument
    actor: str
    created_at: Moment
    created_by: str
    expires_at: Moment | None
    revoked_at: Moment | None


class BudgetDocument(TypedDict):
    """A budget, and how much of it is spent, or held for VMs that are there."""

    name: str
    period: BudgetPeriod
    match: dict[str, str]
    action: BudgetAction
    usd: Usd
    held_usd: Usd
    since: Moment


class LatchDocument(TypedDict):
    """More orphans than the cap at one place: none of them is ended."""

    provider: str
    place: str
    since: Moment


class EndpointDocument(TypedDict):
    """A webhook, and how it fares."""

    name: str
    named_at: Moment
    waiting: int
    oldest_at: Moment | None
    delivered_at: Moment | None
    failures: int
    error: str | None
    given_up: int
    given_up_at: Moment | None


class CacheDocument(TypedDict):
    """A directory that a build left to later ones."""

    id: str
    key: str
    path: str
    scope: str
    size: Size
    build: str
    tenant: str
    created_at: Moment
    used_at: Moment


class DigestDocument(TypedDict):
    """The name of an upload: `source` of a build, for a day."""

    digest: str


class LeaseDocument(TypedDict):
    """Seconds until the client must come again; 0: the build has ended."""

    seconds: Seconds


class DrainingDocument(TypedDict):
    """State of launching: true where it is stopped."""

    draining: bool


class ExchangedTokenDocument(TypedDict):
    """A token, with its secret."""

    token: str
    expires_at: Moment | None
    scopes: list[TokenScope]
    labels: dict[str, str]
