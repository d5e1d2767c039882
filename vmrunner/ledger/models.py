"""The tables, as SQLModel defines them: what the migrations made is held against them.

Times are epoch seconds (double), so neither database can lose a time zone. Text that only we read
(specs, offers, processes) is JSON; secret bytes are sealed. Wide columns come last, so that SQLite
reads the narrow ones without touching overflow pages.
"""

from __future__ import annotations

from sqlalchemy import Index, LargeBinary, UniqueConstraint, false
from sqlmodel import Field

from vmrunner.ledger.column_types import METADATA as METADATA
from vmrunner.ledger.column_types import Row
from vmrunner.ledger.column_types import big_column as _big
from vmrunner.ledger.column_types import id_column as _id
from vmrunner.ledger.column_types import json_column as _json
from vmrunner.ledger.column_types import partial_index as _partial
from vmrunner.ledger.column_types import sealed_column as _sealed
from vmrunner.ledger.column_types import time_column as _time


class LedgerRow(Row, table=True):
    """The single row that says which ledger this is."""

    __tablename__ = "ledger"

    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    installation: str
    generation: str
    canary: bytes = Field(sa_type=LargeBinary)  # sealed: tells a wrong secret at once
    paused_at: float | None = _time(default=None)
    removed_vm: str | None = _id(default=None)  # the newest whose row is gone (`removed_vms`)


class BuildRow(Row, table=True):
    """A build as it was submitted, and how far it is."""

    __tablename__ = "builds"
    __table_args__ = (
        _partial("ix_builds_queued", "created_at", where="state = 'queued'"),
        _partial("ix_builds_open", "id", where="state <> 'finished'"),
        _partial("ix_builds_owner", "owner", where="owner IS NOT NULL"),
        Index("ix_builds_finished_at", "finished_at"),
        # Of lists that are filtered: the ids of each in order. Names are searched by prefix too,
        # as a range: that needs byte order, which PostgreSQL's default is not.
        Index("ix_builds_name_id", "name", "id", postgresql_ops={"name": "text_pattern_ops"}),
        Index("ix_builds_actor_id", "actor", "id"),
        _partial("ix_builds_result_id", "result", "id", where="result IS NOT NULL"),
        _partial(
            "ix_builds_sandboxes",
            "id",
            where="spec NOT LIKE '%\"sandbox_ttl\"\\:null%'",
        ),
        _partial(
            "ix_builds_ended", "provider", "result", "reason", "cost", where="state = 'finished'"
        ),
        _partial("ix_builds_lease_until", "lease_until", where="lease_until IS NOT NULL"),
        _partial("ix_builds_source_object", "source_object", where="source_object IS NOT NULL"),
        _partial("ix_builds_log_due", "log_due", where="log_due IS NOT NULL"),
        _partial(
            "ix_builds_kept", "finished_at", where="state = 'finished' AND removed_at IS NULL"
        ),
        UniqueConstraint("tenant", "idempotency_key"),
    )

    id: str = _id(primary_key=True)
    name: str = ""
    idempotency_key: str | None = None  # unique within its tenant
    provider: str
    priority: int = 0
    state: str
    state_since: float = _time()
    created_at: float = _time()
    attempt: int = 0
    instance: str | None = _id(default=None)
    result: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    finished_at: float | None = _time(default=None)
    owner: str | None = None
    owner_until: float = _time(default=0.0)
    epoch: int = 0
    cancel: str | None = None
    cancelled_at: float | None = _time(default=None)
    hold_until: float | None = _time(default=None)
    steps_started: bool = False
    cost: float = _time(default=0.0)
    events: int = 0  # how many events and chunks there are: their sequence numbers
    chunks: int = 0
    log_lines: int = _big(default=0)
    log_bytes: int = _big(default=0)
    tenant: str = Field(default="local", sa_column_kwargs={"server_default": "local"})
    actor: str = Field(default="", sa_column_kwargs={"server_default": ""})  # who submitted it
    lease_until: float | None = _time(default=None)  # of a client that must be there
    source_object: str | None = _id(default=None)
    log_object: str | None = _id(default=None)
    artifacts_object: str | None = _id(default=None)
    collected: int | None = None  # the epoch at which its artifacts were brought, if any were
    log_due: float | None = _time(default=None)  # when its log is to be uploaded, at last
    keep_logs: float | None = _time(default=None)  # seconds; None: as configured
    removed_at: float | None = _time(default=None)  # when log and artifacts were
    unpriced: int = Field(default=0, sa_column_kwargs={"server_default": "0"})  # VMs, not in `cost`
    cost_final: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    price_source: str | None = None
    price_at: float | None = _time(default=None)
    message: str = _json(default="")
    submitter: str | None = _json(default=None)
    phases: str = _json(default="")  # grows by one "state time" line at each move
    spec: str = _json()
    secrets: bytes | None = _sealed()
    revision: int | None = _big(default=None, index=True)  # of its last change
    usage: str | None = _json(default=None)


class LabelRow(Row, table=True):
    """A build's labels, to find it by."""

    __tablename__ = "labels"
    __table_args__ = (Index("ix_labels_name_value", "name", "value", "build"),)

    build: str = _id(primary_key=True, foreign_key="builds.id")
    name: str = Field(primary_key=True)
    value: str


class InstanceRow(Row, table=True):
    """One VM, from the intent on. The unique index is promise 3 in the database itself."""

    __tablename__ = "instances"
    __table_args__ = (
        _partial(
            "uq_instances_alive", "build", where="state NOT IN ('deleting', 'gone')", unique=True
        ),
        _partial("ix_instances_open", "id", where="state <> 'gone'"),
        Index("ix_instances_build", "build"),
        _partial("ix_instances_death", "death", where="state = 'gone'"),
        _partial("ix_instances_pool", "pool", "gone_at", where="pool IS NOT NULL"),
        _partial("ix_instances_gone_at", "gone_at", where="gone_at IS NOT NULL"),
        _partial("ix_instances_summed", "summed", "gone_at", where="gone_at IS NOT NULL"),
    )

    id: str = _id(primary_key=True)
    build: str | None = _id(foreign_key="builds.id", default=None)  # None: of a pool, unclaimed
    attempt: int
    provider: str
    role: str
    state: str
    state_since: float = _time()
    created_at: float = _time()
    deadline: float = _time()
    epoch: int
    owner: str | None = None
    ref: str | None = _json(default=None)
    address: str | None = _json(default=None)
    death: str | None = None
    message: str = _json(default="")
    deletes: int = 0
    delete_at: float = _time(default=0.0)
    gone_at: float | None = _time(default=None)
    pool: str | None = None
    shape: str | None = None  # of its pool when it was made
    start: str | None = None
    due: float | None = _time(default=None)
    claimed_at: float | None = _time(default=None)
    usd_hour: float | None = _time(default=None)  # the rate, frozen; None: unknown
    parked_usd_hour: float | None = _time(default=None)
    price_source: str = Field(default="unknown", sa_column_kwargs={"server_default": "unknown"})
    price_at: float | None = _time(default=None)
    parked_at: float | None = _time(default=None)
    offer: str = _json()
    access: bytes | None = _sealed()
    ordered: bytes | None = _sealed()
    revision: int | None = _big(default=None, index=True)  # of its last change
    summed: bool | None = None  # True: `summed_days` has it; False: it cannot; None: not yet
    container: str | None = _json(default=None)  # of a unit, by digest


class EventRow(Row, table=True):
    """An event of a build, numbered from 1 without gaps."""

    __tablename__ = "events"

    build: str = _id(primary_key=True, foreign_key="builds.id")
    seq: int = Field(primary_key=True)
    time: float = _time()
    kind: str
    data: str = _json(default="{}")


class ChunkRow(Row, table=True):
    """Log bytes, masked, numbered from 1 without gaps."""

    __tablename__ = "chunks"

    build: str = _id(primary_key=True, foreign_key="builds.id")
    seq: int = Field(primary_key=True)
    attempt: int
    time: float = _time()
    offset: int = _big()
    line: int = _big()
    data: bytes = Field(sa_type=LargeBinary)


class ObjectRow(Row, table=True):
    """One object of the store, from before its bytes to after them."""

    __tablename__ = "objects"
    __table_args__ = (
        _partial(
            "uq_objects_source",
            "tenant",
            "digest",
            where="kind = 'source' AND state = 'stored'",
            unique=True,
        ),
        Index("ix_objects_build", "build"),
    )

    name: str = _id(primary_key=True)
    kind: str
    tenant: str
    build: str | None = _id(default=None)
    digest: str
    size: int = _big()
    state: str
    created_at: float = _time()
    unreferenced_since: float | None = _time(default=None)


class EngineRow(Row, table=True):
    """A process that drives builds."""

    __tablename__ = "engines"

    id: str = _id(primary_key=True)
    kind: str
    joined_at: float = _time()
    seen_at: float = _time()
    process: str = _json()
    providers: str = _json(sa_column_kwargs={"server_default": "[]"})
    version: str = Field(
        default="", sa_column_kwargs={"server_default": ""}
    )  # of the tables that it knows
    #: Seconds by which its clock was ahead of the database's, at its last beat.
    ahead: float = _time(default=0.0, sa_column_kwargs={"server_default": "0"})


class LeaseRow(Row, table=True):
    """A task that only one process may do at a time."""

    __tablename__ = "leases"

    name: str = Field(primary_key=True)
    holder: str
    until: float = _time()


class HeartbeatRow(Row, table=True):
    """The time at which a periodic task of the reaper last finished."""

    __tablename__ = "heartbeats"

    name: str = Field(primary_key=True)
    holder: str
    at: float = _time()


class SightingRow(Row, table=True):
    """A memory of the reaper's about a provider, between two sweeps."""

    __tablename__ = "sightings"

    provider: str = Field(primary_key=True)
    what: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)  # names its place, or is a row of one place
    place: str = Field(default="", sa_column_kwargs={"server_default": ""})
    sweep: str
    begun: float = _time()


class ImageRow(Row, table=True):
    """One image in a cloud, from the intent on."""

    __tablename__ = "images"
    __table_args__ = (_partial("ix_images_open", "id", where="closed_at IS NULL"),)

    id: str = _id(primary_key=True)
    provider: str
    scope: str
    name: str
    recipe: str
    hash: str
    builder: str = _id(unique=True)
    state: str
    created_at: float = _time()
    deadline: float = _time()
    ref: str | None = None
    promoted_at: float | None = _time(default=None)
    closed_at: float | None = _time(default=None)
    snapshots: str = _json(default="[]")
    message: str = _json(default="")
    usd_hour: float | None = _time(default=None)  # of its builder
    price_source: str = Field(default="unknown", sa_column_kwargs={"server_default": "unknown"})
    price_at: float | None = _time(default=None)


class PoolRow(Row, table=True):
    """A pool, as a `serve` configured it last."""

    __tablename__ = "pools"

    name: str = Field(primary_key=True)
    spec: str = _json()
    shape: str
    revision: int
    size: int | None = None  # wished by `pool resize`; None: as configured
    draining: bool = False
    named_at: float = _time()  # when a `serve` that lives last had it in its configuration
    #: These three are of versions that had one row for all hosts, and may run still: see
    #: `PoolPlaceRow`.
    want: int | None = None
    empty_reason: str | None = None
    arrivals: str = _json(default="{}")


class PoolPlaceRow(Row, table=True):
    """A pool at one place, as who fills it there sees it."""

    __tablename__ = "pool_places"

    pool: str = Field(primary_key=True)
    place: str = Field(primary_key=True)  # a host's scope, or "": its VMs are within all's reach
    want: int | None = None  # its size now
    empty_reason: str | None = None
    failures: int
    failing_since: float | None = _time(default=None)
    noted_at: float = _time()
    arrivals: str = _json()


class PoolStartRow(Row, table=True):
    """A build that wanted a pool's VM, and whether there was one."""

    __tablename__ = "pool_starts"
    __table_args__ = (
        Index("ix_pool_starts_pool_at", "pool", "at"),
        Index("ix_pool_starts_at", "at", "build"),
    )

    build: str = _id(primary_key=True, foreign_key="builds.id")
    pool: str
    at: float = _time()
    hit: bool
    place: str = Field(default="", sa_column_kwargs={"server_default": ""})


class ActionRow(Row, table=True):
    """An action of a user or an engine that concerns no build."""

    __tablename__ = "actions"

    id: int | None = Field(default=None, primary_key=True)
    at: float = _time()
    actor: str
    verb: str
    subject: str
    detail: str = _json(default="")


class PriceRow(Row, table=True):
    """A price as a cloud told it last."""

    __tablename__ = "prices"

    kind: str = Field(primary_key=True)
    place: str = Field(primary_key=True)
    item: str = Field(primary_key=True)
    usd_hour: float = _time()
    at: float = _time()


class TokenRow(Row, table=True):
    """A token of the HTTP API. The token itself is shown once; here is its SHA-256."""

    __tablename__ = "tokens"

    id: str = Field(primary_key=True)
    name: str
    digest: str = Field(unique=True)
    scopes: str = _json()
    labels: str = _json()
    quota: str = _json()
    actor: str  # as which its holder is known
    created_at: float = _time()
    created_by: str
    expires_at: float | None = _time(default=None)
    revoked_at: float | None = _time(default=None)


class LoginRow(Row, table=True):
    """A browser that showed a token. It ends with the token at the latest."""

    __tablename__ = "logins"

    digest: str = Field(primary_key=True)  # SHA-256 of the cookie
    token: str = Field(foreign_key="tokens.id")
    csrf: str
    created_at: float = _time()
    expires_at: float = _time()


class PersonRow(Row, table=True):
    """A person who logged in at an issuer, and the name by which others know them."""

    __tablename__ = "people"

    actor: str = Field(primary_key=True)  # `oidc:ISSUER#SUB`
    name: str
    seen_at: float = _time()  # logged in last


class CacheRow(Row, table=True):
    """A directory that a build left to later ones of its tenant."""

    __tablename__ = "caches"
    __table_args__ = (
        UniqueConstraint("tenant", "scope", "path", "key"),
        Index("ix_caches_used_at", "used_at"),
        Index("ix_caches_object", "object"),
    )

    id: str = _id(primary_key=True)
    tenant: str
    scope: str
    key: str
    path: str
    object: str = _id()
    build: str = _id()
    created_at: float = _time()
    used_at: float = _time()


class NotifyEndpointRow(Row, table=True):
    """A webhook, as a `serve` configured it last, and how it fares."""

    __tablename__ = "notify_endpoints"

    name: str = Field(primary_key=True)
    events: str = _json()
    match: str = _json()
    named_at: float = _time()  # when a `serve` last had it in its configuration
    retry_at: float = _time(default=0.0)
    failures: int = 0  # tries in a row
    error: str = _json(default="")
    delivered_at: float | None = _time(default=None)
    given_up: int = 0
    given_up_at: float | None = _time(default=None)


class OutboxRow(Row, table=True):
    """One event for one endpoint; kept for a while after it was sent, so that none is sent twice
    for being noticed twice."""

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("endpoint", "event", "subject"),
        _partial("ix_outbox_open", "endpoint", "due", "id", where="state = 'waiting'"),
        Index("ix_outbox_at", "at"),
    )

    id: str = _id(primary_key=True)
    endpoint: str = Field(primary_key=True)
    event: str
    subject: str
    at: float = _time()
    due: float = _time()
    tries: int = 0
    state: str
    data: str = _json(default="")


class BudgetRow(Row, table=True):
    """A budget, of the configuration or of one actor."""

    __tablename__ = "budgets"

    name: str = Field(primary_key=True)
    match: str = _json()
    usd: float = _time()
    period: str
    action: str
    actor: str = Field(index=True)  # "": of all


class ChargeRow(Row, table=True):
    """A VM that a budget pays for, until what it cost is added to what is spent."""

    __tablename__ = "budget_charges"

    budget: str = Field(primary_key=True)
    instance: str = _id(primary_key=True)


class SpentRow(Row, table=True):
    """USD that VMs that are gone have cost a budget in one of its days or months."""

    __tablename__ = "budget_spent"

    budget: str = Field(primary_key=True)
    start: float = _time(primary_key=True)
    usd: float = _time()


class _DaySumRow(Row):
    """Cost of VMs in one day in UTC, of one kind, provider, tenant, set of labels and source of
    prices. `…_ended`: those of them whose last day it was."""

    day: float = _time(primary_key=True)  # its midnight
    key: str = Field(primary_key=True)  # SHA-256 of the next five
    what: str
    provider: str
    tenant: str
    source: str
    labels: str = _json()
    usd: float = _time()
    seconds: float = _time()
    unpriced: int
    unpriced_ended: int
    builds: int
    builds_ended: int
    vms: int
    vms_ended: int
    price_at: float | None = _time(default=None)


class SummedDayRow(_DaySumRow, table=True):
    """Sum of all VMs whose row says so (`instances.summed`) or is gone."""

    __tablename__ = "summed_days"


class CostDayRow(_DaySumRow, table=True):
    """Sum of those whose row is gone."""

    __tablename__ = "cost_days"


class PastCountRow(Row, table=True):
    """Number of builds that ended so, and their cost; of VMs that died so (`result` empty)."""

    __tablename__ = "past_counts"

    what: str = Field(primary_key=True)
    provider: str = Field(primary_key=True)
    result: str = Field(primary_key=True)
    reason: str = Field(primary_key=True)
    count: int
    usd: float = _time()


class RevisionRow(Row, table=True):
    """The single row that counts the transactions which changed builds or instances."""

    __tablename__ = "revisions"

    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    last: int = _big(default=0)
