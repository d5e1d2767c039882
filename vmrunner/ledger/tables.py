"""The tables, as statements are written of them: names alone. `scripts/tables` writes this module
from `models`, which migrations and tests alone load: SQLModel brings an ORM, which takes longer
than most commands do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from vmrunner.ledger.sql import DeferredTable

if TYPE_CHECKING:
    from sqlalchemy import TableClause

#: Columns whose `+` joins text.
_TEXT: Final = frozenset({"phases"})


def _table(name: str, columns: str) -> TableClause:
    return cast("TableClause", DeferredTable(name, columns, _TEXT))


ACTIONS: Final = _table("actions", "id at actor verb subject detail")
BUDGET_CHARGES: Final = _table("budget_charges", "budget instance")
BUDGET_SPENT: Final = _table("budget_spent", "budget start usd")
BUDGETS: Final = _table("budgets", "name match usd period action actor")
BUILDS: Final = _table(
    "builds",
    "id name idempotency_key provider priority state state_since created_at attempt instance "
    "result reason exit_code finished_at owner owner_until epoch cancel cancelled_at hold_until "
    "steps_started cost events chunks log_lines log_bytes tenant actor lease_until source_object "
    "log_object artifacts_object collected log_due keep_logs removed_at unpriced cost_final "
    "price_source price_at message submitter phases spec secrets revision usage",
)
CACHES: Final = _table("caches", "id tenant scope key path object build created_at used_at")
CHUNKS: Final = _table("chunks", "build seq attempt time offset line data")
COST_DAYS: Final = _table(
    "cost_days",
    "day key what provider tenant source labels usd seconds unpriced unpriced_ended builds "
    "builds_ended vms vms_ended price_at",
)
ENGINES: Final = _table("engines", "id kind joined_at seen_at process providers version ahead")
EVENTS: Final = _table("events", "build seq time kind data")
HEARTBEATS: Final = _table("heartbeats", "name holder at")
IMAGES: Final = _table(
    "images",
    "id provider scope name recipe hash builder state created_at deadline ref promoted_at "
    "closed_at snapshots message usd_hour price_source price_at",
)
INSTANCES: Final = _table(
    "instances",
    "id build attempt provider role state state_since created_at deadline epoch owner ref address "
    "death message deletes delete_at gone_at pool shape start due claimed_at usd_hour "
    "parked_usd_hour price_source price_at parked_at offer access ordered revision summed "
    "container",
)
LABELS: Final = _table("labels", "build name value")
LEASES: Final = _table("leases", "name holder until")
LEDGER: Final = _table("ledger", "id installation generation canary paused_at removed_vm")
LOGINS: Final = _table("logins", "digest token csrf created_at expires_at")
NOTIFY_ENDPOINTS: Final = _table(
    "notify_endpoints",
    "name events match named_at retry_at failures error delivered_at given_up given_up_at",
)
OBJECTS: Final = _table(
    "objects", "name kind tenant build digest size state created_at unreferenced_since"
)
OUTBOX: Final = _table("outbox", "id endpoint event subject at due tries state data")
PAST_COUNTS: Final = _table("past_counts", "what provider result reason count usd")
PEOPLE: Final = _table("people", "actor name seen_at")
POOL_PLACES: Final = _table(
    "pool_places", "pool place want empty_reason failures failing_since noted_at arrivals"
)
POOL_STARTS: Final = _table("pool_starts", "build pool at hit place")
POOLS: Final = _table(
    "pools", "name spec shape revision size draining named_at want empty_reason arrivals"
)
PRICES: Final = _table("prices", "kind place item usd_hour at")
REVISIONS: Final = _table("revisions", "id last")
SIGHTINGS: Final = _table("sightings", "provider what subject place sweep begun")
SUMMED_DAYS: Final = _table(
    "summed_days",
    "day key what provider tenant source labels usd seconds unpriced unpriced_ended builds "
    "builds_ended vms vms_ended price_at",
)
TOKENS: Final = _table(
    "tokens", "id name digest scopes labels quota actor created_at created_by expires_at revoked_at"
)
ALL: Final = (
    ACTIONS, BUDGET_CHARGES, BUDGET_SPENT, BUDGETS, BUILDS, CACHES, CHUNKS, COST_DAYS, ENGINES,
    EVENTS, HEARTBEATS, IMAGES, INSTANCES, LABELS, LEASES, LEDGER, LOGINS, NOTIFY_ENDPOINTS,
    OBJECTS, OUTBOX, PAST_COUNTS, PEOPLE, POOL_PLACES, POOL_STARTS, POOLS, PRICES, REVISIONS,
    SIGHTINGS, SUMMED_DAYS, TOKENS,
)  # fmt: skip
